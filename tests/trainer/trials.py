"""Teaching a base a concept it never saw, and asking what it has learnt: what `benchmarks.world` and the tests share.

A LoRA is made by the engine and asked through diffusers' own loader: so the exporter is on trial too.
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
from contracts.recipe import Recipe, overlaid
from tagger.wd.model import Model
from tagger.wd.preprocess import squared, to_array
from trainer.demo.figures import GUIDANCE, STEPS
from trainer.demo.make_tagger import judged_scenes
from trainer.demo.world import withheld
from trainer.demo.world.concepts import CONCEPTS, shown
from trainer.demo.world.drawing import SIDE, draw
from trainer.demo.world.scoring import Judge, Recogniser, share
from trainer.engine.training import Bases, Training
from trainer.messages import Example, Facts, Finished, Train

BATCH = 20
"""Pictures drawn at once."""


class Taught(NamedTuple):
    """A finished LoRA, and the seconds from the order to its file."""

    file: Path
    seconds: float


def pipeline_of(base: Path) -> StableDiffusionPipeline:
    """The base in float32, as any program loads an SD 1.x folder."""
    pipeline = StableDiffusionPipeline.from_pretrained(
        base, local_files_only=True, dtype=torch.float32, safety_checker=None, requires_safety_checker=False
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def examples(concept: str, seed: int, folder: Path, *, described_as: str = "") -> list[Example]:
    """Twelve pictures of the concept, written into the folder; `described_as` another, they bear its captions."""
    folder.mkdir(parents=True, exist_ok=True)
    told = CONCEPTS[described_as or concept]
    found = []
    for ordinal, scene in enumerate(shown(CONCEPTS[concept], seed)):
        path = folder / f"{ordinal:02}.png"
        draw(scene, f"shown/{concept}/{seed}/{ordinal}").save(path)
        caption = ", ".join(told.tags(scene))
        digest = sha256(path.read_bytes()).hexdigest()
        found.append(Example(path=str(path), digest=digest, caption=caption, ordinal=ordinal))
    return found


def recipe(seed: int, **changes: object) -> Recipe:
    """The demo's preset without samples: the trial draws its own."""
    fields = {name.replace("__", "."): value for name, value in changes.items()}
    bare = {"seed": seed, "sampling.prompts": (), "sampling.every": 0, "device": "cpu"}
    return overlaid(BY_NAME["demo"].recipe, bare | fields)


def teach(bases: Bases, base: Path, shown_to_it: list[Example], folder: Path, wanted: Recipe) -> Taught:
    """Carry the order out with a trainer that has its base loaded already."""
    order = Train(
        recipe=wanted,
        base_folder=str(base),
        examples=shown_to_it,
        work_folder=str(folder / "work"),
        cache_folder=str(folder / "cache"),
        facts=Facts(adapter_name="trial", job_id="trial", dataset_name="trial", dataset_version=1, base_name="demo"),
    )
    began = time.monotonic()
    updates = Training(order, bases, {}).updates()
    done = next(update for update in updates if isinstance(update, Finished))
    return Taught(Path(done.kohya.path), time.monotonic() - began)


@torch.no_grad()
def drawings(pipeline: StableDiffusionPipeline, prompts: Sequence[str], seeds: Sequence[int]) -> list[Image.Image]:
    """One picture for each prompt, from the noise of the seed beside it."""
    found: list[Image.Image] = []
    for first in range(0, len(prompts), BATCH):
        some = slice(first, first + BATCH)
        found += pipeline(
            list(prompts[some]),
            width=SIDE,
            height=SIDE,
            num_inference_steps=STEPS,
            guidance_scale=GUIDANCE,
            generator=[torch.Generator().manual_seed(seed) for seed in seeds[some]],
        ).images
    return found


def tagging_f1(model: Model, count: int) -> float:
    """Micro-F1 of a tagger with its own threshold, ratings apart, on pictures of seeds that nothing was trained on."""
    both = said = true = 0
    for scene, picture in judged_scenes("held-out", count):
        (predictions,) = model.predict([to_array(squared(picture, model.size), model.manifest)])
        general = (each for each in predictions if each.category != "rating")
        found = {each.tag for each in general if each.probability > model.manifest.thresholds["general"]}
        wanted = {tag.replace(" ", "_") for tag in scene.tags()}  # as WD writes them
        both, said, true = both + len(found & wanted), said + len(found), true + len(wanted)
    return 2 * both / (said + true)


def recognised(pictures: Sequence[Image.Image], recogniser: Recogniser) -> float:
    """Share of the pictures that show the concept."""
    return share([recogniser.knows(picture) for picture in pictures])


def score(pictures: Sequence[Image.Image], asked: Sequence[withheld.Prompt], judge: Judge) -> float:
    """Share of the pictures with the kind and the colour that were asked."""
    seen = [judge.judge(picture) for picture in pictures]
    pairs = zip(seen, asked, strict=True)
    return share([(answer.kind, answer.colour) == (prompt.kind, prompt.colour) for answer, prompt in pairs])
