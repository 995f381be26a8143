"""Training on real photographs: the written LoRA files reproduce the trained adapter."""

import math
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDPMScheduler, StableDiffusionPipeline
from PIL import Image
from safetensors.torch import load_file, save_file

from contracts.recipe import Recipe
from contracts.wire.blobs.local import LocalBlobs
from loratory.responses import Job
from tests.acceptance.local_stack import LocalStack, cli
from trainer.engine import files
from trainer.engine.adapter import attach_lora
from trainer.engine.data import load_pixels
from trainer.families import Model, load
from trainer.messages import Example

pytestmark = [pytest.mark.slow, pytest.mark.shared]

STEPS = 100


@dataclass(frozen=True)
class Run:
    """The result of the demo: its output, the data set's images, the job, its files, and the base it trained on."""

    output: str
    images: list[Any]
    job: Job
    kohya: Path
    diffusers: Path
    checkpoint: dict[str, torch.Tensor]
    examples: list[Example]
    base: Path


@pytest.fixture(scope="module")
def run(photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    data = tmp_path_factory.mktemp("photographs") / "data"
    options = ("--images", photographs / "dog", "--data", data, "--steps", str(STEPS), "--preset", "tiny-random-demo")
    demo = cli("demo", "--no-serve", *options, timeout=800)
    assert demo.returncode == 0, demo.stdout + demo.stderr
    stack = LocalStack(data, workers=False)
    stack.start()
    try:
        with stack.client() as client, stack.http() as http:
            (job,) = client.jobs()
            images = client.images(job.dataset)
            last = http.get(f"/api/v1/jobs/{job.id}/checkpoints").json()["items"][-1]
    finally:
        stack.stop()
    assert last["step"] == STEPS
    blobs = LocalBlobs(data / "blobs")
    tensors, _ = files.load_verified(blobs.path(last["checkpoint"]))
    examples = [
        Example(path=str(blobs.path(image.picture)), digest=image.picture, caption=image.caption, ordinal=image.ordinal)
        for image in images
    ]
    adapter = {name.removeprefix("adapter."): tensor for name, tensor in tensors.items() if name.startswith("adapter.")}
    written = {artifact.format: blobs.path(artifact.digest) for artifact in job.artifacts}
    return Run(
        demo.stdout,
        images,
        job,
        written["kohya"],
        written["diffusers"],
        adapter,
        examples,
        data / "cache/bases/tiny-random",
    )


@pytest.fixture(scope="module")
def pipeline(run: Run) -> StableDiffusionPipeline:
    return StableDiffusionPipeline.from_pretrained(
        run.base, local_files_only=True, dtype=torch.float32, safety_checker=None
    )


@pytest.fixture
def engine(run: Run) -> Iterator[Model]:
    """The base as the engine loads it."""
    yield load(run.base, device=torch.device("cpu"), dtype=torch.float32)


def predictions(denoiser: torch.nn.Module) -> torch.Tensor:
    generator = torch.Generator().manual_seed(5)
    noisy, texts = torch.randn((4, 4, 12, 12), generator=generator), torch.randn((4, 77, 32), generator=generator)
    with torch.no_grad():
        predicted: torch.Tensor = denoiser.eval()(noisy, torch.tensor([10, 300, 600, 900]), texts).sample
    return predicted


def in_memory(model: Model, recipe: Recipe, weights: dict[str, torch.Tensor] | None) -> torch.Tensor:
    """Predictions with the engine's own adapter; an untrained one if there are no weights."""
    with attach_lora(model, recipe) as adapter:
        if weights is not None:
            adapter.load(weights)
        return predictions(model.denoiser)


def loaded_by_diffusers(pipeline: StableDiffusionPipeline, file: Path) -> torch.Tensor:
    pipeline.load_lora_weights(str(file.parent), weight_name=file.name)
    try:
        return predictions(pipeline.unet)
    finally:
        pipeline.unload_lora_weights()


def as_safetensors(blob: Path, folder: Path) -> Path:
    """A link to the blob with the file extension that loaders expect."""
    file = folder / f"{blob.name}.safetensors"
    file.symlink_to(blob)
    return file


def test_all_photographs_are_imported_tagged_and_trained_on(run: Run, photographs: Path) -> None:
    names = sorted(path.name for path in (photographs / "dog").iterdir() if path.suffix == ".jpg")
    assert len(names) == 5
    assert sorted(image.name for image in run.images) == names
    assert "5 images imported, 0 already present, 0 skipped" in run.output
    assert all(image.tags for image in run.images)
    for image, example in zip(run.images, run.examples, strict=True):
        with Image.open(example.path) as picture, Image.open(photographs / "dog" / image.name) as photograph:
            assert picture.size in {photograph.size, photograph.size[::-1]}
    lines = [line.partition(": ")[2] for line in run.output.splitlines() if line.startswith("LoRA (")]
    assert len(lines) == 2
    assert [Path(line).read_bytes() for line in lines] == [run.kohya.read_bytes(), run.diffusers.read_bytes()]
    assert "the page is at http://127.0.0.1:" in run.output


def test_both_files_predict_the_same_as_the_engines_adapter(
    run: Run, pipeline: StableDiffusionPipeline, engine: Model, tmp_path: Path
) -> None:
    lora = run.job.recipe.adapter
    assert lora.alpha != lora.rank
    memory, base = in_memory(engine, run.job.recipe, run.checkpoint), predictions(pipeline.unet)
    assert (memory - base).abs().max() > 0.01
    for file in (run.kohya, run.diffusers):
        assert (loaded_by_diffusers(pipeline, as_safetensors(file, tmp_path)) - memory).abs().max() < 1e-4
    assert torch.equal(predictions(pipeline.unet), base)


def test_an_untrained_adapter_changes_nothing(
    run: Run, pipeline: StableDiffusionPipeline, engine: Model, tmp_path: Path
) -> None:
    base = predictions(pipeline.unet)
    assert torch.equal(in_memory(engine, run.job.recipe, None), base)
    untrained = {
        name: torch.zeros_like(tensor) if ".lora_up." in name else tensor
        for name, tensor in load_file(run.kohya).items()
    }
    save_file(untrained, tmp_path / "untrained.safetensors")
    assert torch.equal(loaded_by_diffusers(pipeline, tmp_path / "untrained.safetensors"), base)


@torch.no_grad()
def encode(pipeline: StableDiffusionPipeline, example: Example) -> tuple[torch.Tensor, torch.Tensor]:
    """Latents and text of an example."""
    latents = pipeline.vae.encode(load_pixels(example, (96, 96))[None]).latent_dist.mean
    return latents * pipeline.vae.config.scaling_factor, pipeline.encode_prompt(example.caption, "cpu", 1, False)[0]


def denoising_errors(pipeline: StableDiffusionPipeline, examples: list[Example]) -> list[float]:
    """The denoising errors on 64 fixed (picture, timestep, noise) triples, computed with diffusers alone."""
    scheduler = DDPMScheduler.from_config(pipeline.scheduler.config)
    encoded, errors = [encode(pipeline, example) for example in examples], []
    for number in range(64):
        (latents, text), generator = encoded[number % len(examples)], torch.Generator().manual_seed(1000 + number)
        with torch.no_grad():
            noise = torch.randn(latents.shape, generator=generator)
            timestep = torch.randint(0, 1000, (1,), generator=generator)
            noisy = scheduler.add_noise(latents, noise, timestep)
            prediction = pipeline.unet(noisy, timestep, text).sample
        errors.append(float((prediction - noise).square().mean()))
    return errors


def test_loading_the_file_lowers_the_loss(run: Run, pipeline: StableDiffusionPipeline, tmp_path: Path) -> None:
    before = denoising_errors(pipeline, run.examples)
    file = as_safetensors(run.kohya, tmp_path)
    pipeline.load_lora_weights(str(file.parent), weight_name=file.name)
    try:
        after = denoising_errors(pipeline, run.examples)
    finally:
        pipeline.unload_lora_weights()
    improvements = [one - other for one, other in zip(before, after, strict=True)]
    # Student's t for 64 pairs: 2.39 is p < 0.01, one-sided.
    assert statistics.mean(improvements) / (statistics.stdev(improvements) / math.sqrt(len(improvements))) > 2.39
