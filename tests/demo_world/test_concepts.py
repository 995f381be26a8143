"""End-to-end test of trainer and exporter: the demo base learns an unknown creature, and diffusers renders it.

A LoRA passes if diffusers, loading the exported file, renders what the engine rendered from the same noise, and if the
concept is recognised on backgrounds that are not in its training pictures, where the base renders something else.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image
from safetensors.torch import load_file, save_file

from contracts.shipped_models import shipped_models
from demo_world import withheld
from demo_world.concepts import CONCEPTS
from demo_world.models.evaluate import render_prompts
from demo_world.scoring import ConceptClassifier
from tests.demo_world import trials
from trainer.engine.training import BaseCache

pytestmark = pytest.mark.slow

DEMO_BASE = shipped_models("bases")["demo"]
PROMPTS = withheld.read_trials()[0].prompts[:12]
STEPS, LEARNING_RATE = 80, 4e-3
"""A seventh of the demo's steps, at three times its learning rate: a short training suffices here."""

MIN_RECOGNISED, MAX_FALSE_POSITIVES = 0.4, 0.1
"""Share of prompts that show the concept: minimum with the LoRA, maximum without. The model card has the figures."""

MAX_PIXEL_DIFFERENCE = 2
"""Of 255: the two loaders sum the same numbers in a different order."""

Tensors = dict[str, torch.Tensor]
Corruption = Callable[[Tensors], Tensors]


class LoraRun(NamedTuple):
    """A finished LoRA, and the engine's own samples for the first three prompts."""

    file: Path
    samples: list[Image.Image]


@pytest.fixture(scope="module")
def pipeline() -> StableDiffusionPipeline:
    return trials.load_pipeline(DEMO_BASE)


@pytest.fixture(scope="module")
def momo() -> ConceptClassifier:
    return ConceptClassifier(CONCEPTS["momo"])


def train(folder: Path, concept: str = "momo", *, described_as: str = "momo") -> LoraRun:
    """Train on a concept's pictures, optionally with the captions of another concept."""
    recipe = trials.trial_recipe(0, sampling__prompts=PROMPTS[:3], length__count=STEPS, optimizer__lr=LEARNING_RATE)
    examples = trials.write_examples(concept, 0, folder / "pictures", described_as=described_as)
    done = trials.train_lora(BaseCache(), DEMO_BASE, examples, folder, recipe)
    samples = sorted((folder / "work" / "samples").glob(f"step-{recipe.length.count:08}-*.png"))
    return LoraRun(done.file, [Image.open(path).convert("RGB") for path in samples])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> LoraRun:
    return train(tmp_path_factory.mktemp("run"))


def passes(pipeline: StableDiffusionPipeline, momo: ConceptClassifier, run: LoraRun) -> bool:
    """Prompts are rendered only with a file that renders what the engine did."""
    is_same = largest_difference(pipeline, run) <= MAX_PIXEL_DIFFERENCE
    return is_same and recognised(pipeline, momo, run) >= MIN_RECOGNISED


def recognised(pipeline: StableDiffusionPipeline, momo: ConceptClassifier, run: LoraRun) -> float:
    """Share of the prompts that show the concept."""
    samples = render(pipeline, run, lambda: render_prompts(pipeline, PROMPTS, range(len(PROMPTS))))
    return trials.recognition_rate(samples, momo)


def largest_difference(pipeline: StableDiffusionPipeline, run: LoraRun) -> int:
    """Of a pixel from that of the engine's samples; rendered one at a time, as the engine renders them."""
    again = render(
        pipeline, run, lambda: [render_prompts(pipeline, [one], [seed])[0] for seed, one in enumerate(PROMPTS[:3])]
    )
    pairs = zip(again, run.samples, strict=True)
    return max(int(np.abs(np.asarray(one, int) - np.asarray(other, int)).max()) for one, other in pairs)


def render(
    pipeline: StableDiffusionPipeline, run: LoraRun, pictures: Callable[[], list[Image.Image]]
) -> list[Image.Image]:
    """These pictures, with the LoRA."""
    pipeline.load_lora_weights(run.file)
    try:
        return pictures()
    finally:
        pipeline.unload_lora_weights()


def write_corrupted(run: LoraRun, folder: Path, corrupt: Corruption) -> LoraRun:
    path = folder / "corrupted.safetensors"
    save_file(corrupt(load_file(run.file)), path)
    return run._replace(file=path)


@pytest.mark.drill
def test_a_concept_is_learnt_and_the_exported_file_contains_it(
    pipeline: StableDiffusionPipeline, momo: ConceptClassifier, run: LoraRun
) -> None:
    base_pictures = render_prompts(pipeline, PROMPTS, range(len(PROMPTS)))
    assert trials.recognition_rate(base_pictures, momo) <= MAX_FALSE_POSITIVES
    assert passes(pipeline, momo, run)


def zero_up_weights(tensors: Tensors) -> Tensors:
    return {name: tensor * 0 if "lora_up" in name else tensor for name, tensor in tensors.items()}


def swap_layers(tensors: Tensors) -> Tensors:
    """Exchange the weights of two layers of the same shape."""
    one, *others = (name for name in sorted(tensors) if name.endswith("attn1_to_q.lora_up.weight"))
    other = next(name for name in others if tensors[name].shape == tensors[one].shape)
    return tensors | {one: tensors[other], other: tensors[one]}


def double_alpha(tensors: Tensors) -> Tensors:
    return {name: tensor * 2 if name.endswith(".alpha") else tensor for name, tensor in tensors.items()}


@pytest.mark.parametrize("corrupt", [zero_up_weights, swap_layers])
def test_a_corrupted_file_does_not_pass(
    pipeline: StableDiffusionPipeline, momo: ConceptClassifier, run: LoraRun, tmp_path: Path, corrupt: Corruption
) -> None:
    assert not passes(pipeline, momo, write_corrupted(run, tmp_path, corrupt))


def test_doubled_alpha_is_detected(pipeline: StableDiffusionPipeline, run: LoraRun, tmp_path: Path) -> None:
    assert largest_difference(pipeline, write_corrupted(run, tmp_path, double_alpha)) > MAX_PIXEL_DIFFERENCE


@pytest.mark.drill
def test_a_concept_is_not_learnt_from_the_pictures_of_another(
    pipeline: StableDiffusionPipeline, momo: ConceptClassifier, tmp_path: Path
) -> None:
    bolli = train(tmp_path, "bolli")
    assert largest_difference(pipeline, bolli) <= MAX_PIXEL_DIFFERENCE
    assert recognised(pipeline, momo, bolli) < MIN_RECOGNISED
