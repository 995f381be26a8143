"""Trains LoRAs on concepts unknown to the base and evaluates them; shared by `benchmarks.world` and the tests.

The engine trains the LoRA and diffusers' own loader loads it, so the exporter is tested too.
"""

import time
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import torch
from diffusers import StableDiffusionPipeline
from PIL import Image

from catalog.domain.builtin_presets import BY_NAME
from contracts.recipe import Recipe, apply_changes
from demo_world import withheld
from demo_world.concepts import CONCEPTS, concept_scenes
from demo_world.drawing import draw_scene
from demo_world.models.make_tagger import evaluation_pictures
from demo_world.scoring import ConceptClassifier, SceneClassifier, success_rate
from tagger.wd.arrays import to_array
from tagger.wd.decoder_messages import Square
from tagger.wd.model import OnnxTagger
from tagger.wd.preprocess import to_square
from trainer.engine.training import BaseCache, Training
from trainer.messages import AdapterMetadata, Example, Finished, Train


class TrainedLora(NamedTuple):
    """A finished LoRA, and the seconds from the request to the file."""

    file: Path
    seconds: float


def load_pipeline(base: Path) -> StableDiffusionPipeline:
    """Load the base in float32, like any other SD 1.x folder."""
    pipeline = StableDiffusionPipeline.from_pretrained(
        base, local_files_only=True, dtype=torch.float32, safety_checker=None, requires_safety_checker=False
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def square_of(picture: Image.Image, size: int) -> Square:
    return Square(size, to_square(picture, size).tobytes())


def write_examples(concept: str, seed: int, folder: Path, *, described_as: str = "") -> list[Example]:
    """Write twelve pictures of the concept to the folder; `described_as`: use the captions of another concept."""
    folder.mkdir(parents=True, exist_ok=True)
    captioned = CONCEPTS[described_as or concept]
    examples = []
    for ordinal, scene in enumerate(concept_scenes(CONCEPTS[concept], seed)):
        path = folder / f"{ordinal:02}.png"
        draw_scene(scene, f"shown/{concept}/{seed}/{ordinal}").save(path)
        caption = ", ".join(captioned.tags(scene))
        digest = sha256(path.read_bytes()).hexdigest()
        examples.append(Example(path=str(path), digest=digest, caption=caption, ordinal=ordinal))
    return examples


def trial_recipe(seed: int, **changes: object) -> Recipe:
    """The preset `demo` without samples during training."""
    fields = {name.replace("__", "."): value for name, value in changes.items()}
    overrides = {"seed": seed, "sampling.prompts": (), "sampling.every": 0, "device": "cpu"}
    return apply_changes(BY_NAME["demo"].recipe, overrides | fields)


def train_lora(bases: BaseCache, base: Path, examples: list[Example], folder: Path, recipe: Recipe) -> TrainedLora:
    """Train a LoRA in this process, with a cache of loaded bases."""
    request = Train(
        recipe=recipe,
        base_folder=str(base),
        examples=examples,
        work_folder=str(folder / "work"),
        cache_folder=str(folder / "cache"),
        draft_folder=str(folder / "drafts"),
        metadata=AdapterMetadata(
            adapter_name="trial", job_id="trial", dataset_name="trial", dataset_version=1, base_name="demo"
        ),
    )
    started = time.monotonic()
    updates = Training(request, bases, {}).updates()
    done = next(update for update in updates if isinstance(update, Finished))
    return TrainedLora(Path(done.kohya.path), time.monotonic() - started)


def tagging_f1(model: OnnxTagger, count: int) -> float:
    """Micro-F1 of a tagger at its own threshold, without ratings, on pictures with seeds that no training uses."""
    correct = predicted = actual = 0
    for scene, picture in evaluation_pictures("held-out", count):
        (predictions,) = model.predict([to_array(square_of(picture, model.size), model.manifest)])
        general = (each for each in predictions if each.category != "rating")
        found = {each.tag for each in general if each.probability > model.manifest.thresholds["general"]}
        expected = {tag.replace(" ", "_") for tag in scene.tags()}  # as WD writes them
        correct, predicted, actual = correct + len(found & expected), predicted + len(found), actual + len(expected)
    return 2 * correct / (predicted + actual)


def recognition_rate(pictures: Sequence[Image.Image], classifier: ConceptClassifier) -> float:
    """Share of the pictures that show the concept."""
    return success_rate([classifier.matches(picture) for picture in pictures])


def prompt_score(
    pictures: Sequence[Image.Image], prompts: Sequence[withheld.Prompt], classifier: SceneClassifier
) -> float:
    """Share of the pictures that show the kind and colour of their prompt."""
    results = [classifier.classify(picture) for picture in pictures]
    pairs = zip(results, prompts, strict=True)
    return success_rate([(result.kind, result.colour) == (prompt.kind, prompt.colour) for result, prompt in pairs])
