"""Exported files give the trained adapter in other programs; their header is truthful."""

import copy
import hashlib
import json
import statistics
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from diffusers import DDPMScheduler, StableDiffusionPipeline
from safetensors import safe_open
from safetensors.torch import load_file

from tests.sd1_topology import write_with_sd1_topology
from tests.trainer.builders import Workbench, last
from tests.trainer.conftest import NewBench
from trainer.engine import files
from trainer.engine.data import load_pixels
from trainer.engine.training import BaseCache, Training
from trainer.messages import Example, Finished


def predictions(denoiser: torch.nn.Module) -> torch.Tensor:
    """In float64, where the weights decide: in float32 some processors round by more than what is compared."""
    rng = torch.Generator().manual_seed(5)
    noisy = torch.randn((4, 4, 8, 8), generator=rng, dtype=torch.float64)
    texts = torch.randn((4, 77, 32), generator=rng, dtype=torch.float64)
    with torch.no_grad():
        exact = copy.deepcopy(denoiser).double().eval()
        predicted: torch.Tensor = exact(noisy, torch.tensor([10, 300, 600, 900]), texts).sample
    return predicted


@pytest.fixture(scope="module")
def pipeline(base: Path) -> StableDiffusionPipeline:
    return StableDiffusionPipeline.from_pretrained(
        base, local_files_only=True, dtype=torch.float32, safety_checker=None
    )


def loaded(pipeline: StableDiffusionPipeline, file: str) -> torch.Tensor:
    pipeline.load_lora_weights(file)
    try:
        return predictions(pipeline.unet)
    finally:
        pipeline.unload_lora_weights()


def finish(bench: Workbench, **changes: object) -> tuple[Finished, torch.Tensor]:
    """A run's files, and the predictions of its adapter in memory before it was removed."""
    training = Training(bench.request(**changes), bench.bases, {"torch": "x"})
    for update in training.updates():
        if isinstance(update, Finished):
            assert training._learner is not None
            return update, predictions(training._learner.model.denoiser)
    raise AssertionError("it did not finish")


@pytest.fixture(scope="module", params=["attention", pytest.param("transformer", marks=pytest.mark.slow)])
def trained(new_bench: NewBench, request: pytest.FixtureRequest) -> tuple[Finished, torch.Tensor]:
    """Files and predictions of an adapter whose alpha is not its rank."""
    return finish(
        new_bench(),
        adapter__rank=8,
        adapter__alpha=3.0,
        adapter__layers=request.param,
        length__count=8,
        optimizer__lr=0.05,
    )


@pytest.mark.slow
def test_both_files_give_the_engines_predictions_when_alpha_is_not_rank(
    trained: tuple[Finished, torch.Tensor], pipeline: StableDiffusionPipeline
) -> None:
    done, memory = trained
    base = predictions(pipeline.unet)
    assert (memory - base).abs().max() > 0.01
    for file in (done.kohya, done.diffusers):
        assert (loaded(pipeline, file.path) - memory).abs().max() < 1e-6
    assert torch.equal(predictions(pipeline.unet), base)


@pytest.mark.slow
def test_a_loader_with_the_key_rules_of_comfyui_and_a1111_gives_the_same_predictions(
    trained: tuple[Finished, torch.Tensor], pipeline: StableDiffusionPipeline
) -> None:
    # Both look up `lora_unet_` and the module's name with underscores, and add up @ down * alpha / rank to its weight.
    done, memory = trained
    tensors = load_file(done.kohya.path)
    merged = copy.deepcopy(pipeline.unet)
    for name, module in merged.named_modules():
        prefix = "lora_unet_" + name.replace(".", "_")
        if f"{prefix}.alpha" in tensors:
            down, up = tensors.pop(f"{prefix}.lora_down.weight"), tensors.pop(f"{prefix}.lora_up.weight")
            change = up.flatten(1) @ down.flatten(1) * (tensors.pop(f"{prefix}.alpha") / down.shape[0])
            module.weight.data += change.reshape(module.weight.shape)
    assert not tensors
    assert torch.allclose(predictions(merged), memory, atol=1e-4)


@pytest.mark.slow
def test_an_untrained_adapter_changes_nothing(bench: Workbench, pipeline: StableDiffusionPipeline) -> None:
    done, memory = finish(bench, length__count=1, optimizer__lr=1e-12, optimizer__weight_decay=0.0)
    base = predictions(pipeline.unet)
    for result in (memory, loaded(pipeline, done.kohya.path), loaded(pipeline, done.diffusers.path)):
        assert torch.allclose(result, base, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "dtype"), [("float16", torch.float16), ("bfloat16", torch.bfloat16)])
def test_files_have_the_requested_dtype(bench: Workbench, name: str, dtype: torch.dtype) -> None:
    done = last(bench.run(bench.request(save__dtype=name, adapter__alpha=2.3)), Finished)
    kohya = load_file(done.kohya.path)
    assert {tensor.dtype for key, tensor in kohya.items() if key.endswith(".weight")} == {dtype}
    assert {tensor.item() for key, tensor in kohya.items() if key.endswith(".alpha")} == {torch.tensor(2.3).item()}
    assert {tensor.dtype for tensor in load_file(done.diffusers.path).values()} == {dtype}


@pytest.fixture
def sd1_bench(base: Path, bases: BaseCache, examples: list[Example], cache: Path, tmp_path: Path) -> Workbench:
    return Workbench(write_with_sd1_topology(base, tmp_path / "sd1"), bases, examples, cache, tmp_path)


@pytest.mark.slow
def test_kohya_keys_are_those_of_sd1(sd1_bench: Workbench) -> None:
    done = last(sd1_bench.run(sd1_bench.request()), Finished)
    tensors = load_file(done.kohya.path)
    prefix = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_out_0"
    assert tensors[f"{prefix}.lora_down.weight"].shape == (4, 32)
    assert tensors[f"{prefix}.lora_up.weight"].shape == (32, 4)
    assert tensors[f"{prefix}.alpha"].shape == ()
    assert len(tensors) == 3 * 128


@pytest.mark.slow
def test_transformer_layers_have_the_keys_that_sd_scripts_writes(sd1_bench: Workbench) -> None:
    done = last(sd1_bench.run(sd1_bench.request(adapter__layers="transformer")), Finished)
    tensors = load_file(done.kohya.path)
    block = "lora_unet_down_blocks_0_attentions_0"
    assert tensors[f"{block}_proj_in.lora_down.weight"].shape == (4, 32, 1, 1)
    assert tensors[f"{block}_proj_out.lora_up.weight"].shape == (32, 4, 1, 1)
    for layer in ("ff_net_0_proj", "ff_net_2"):
        assert f"{block}_transformer_blocks_0_{layer}.alpha" in tensors
    # sd-scripts adapts every Linear and 1x1 convolution inside of Transformer2DModel: 12 of one with one block.
    assert len(tensors) == 3 * 12 * 16


@pytest.mark.slow
def test_the_header_is_truthful(bench: Workbench) -> None:
    done = last(bench.run(bench.request(length__count=7, data__repeats=2, data__batch_size=2)), Finished)
    with safe_open(done.kohya.path, framework="pt") as opened:
        header = opened.metadata()
    assert header["ss_steps"] == header["ss_max_train_steps"] == "7"
    assert header["ss_network_dim"] == "4"
    assert header["ss_network_alpha"] == "2.0"
    assert header["ss_base_model_version"] == "sd_v1"
    assert header["ss_v2"] == "False"
    assert json.loads(header["ss_tag_frequency"]) == {"creatures": {"momo": 5, "smiling": 2}}
    assert json.loads(header["ss_dataset_dirs"]) == {"creatures": {"n_repeats": 2, "img_count": 5}}
    assert sum(bucket["count"] for bucket in json.loads(header["ss_bucket_info"])["buckets"].values()) == 10
    assert header["modelspec.architecture"] == "stable-diffusion-v1/lora"
    assert header["modelspec.prediction_type"] == "epsilon"
    assert header["modelspec.trigger_phrase"] == "momo"
    assert (header["loratory.job"], header["loratory.dataset_version"]) == ("job_1", "3")
    content = Path(done.kohya.path).read_bytes()
    assert header["sshs_model_hash"] == done.kohya.tensors == hashlib.sha256(files.tensor_data(content)).hexdigest()
    assert header["sshs_legacy_hash"] == "e3b0c442"
    assert not [
        name for name in header if "time" in name.replace("timestep", "") or "session" in name or "date" in name
    ]
    assert str(bench.base) not in content.decode("latin-1")


class Sample(NamedTuple):
    """One fixed (picture, timestep, noise) triple, encoded with diffusers alone."""

    noisy: torch.Tensor
    timestep: torch.Tensor
    text: torch.Tensor
    noise: torch.Tensor


@torch.no_grad()
def draw_samples(pipeline: StableDiffusionPipeline, examples: list[Example]) -> list[Sample]:
    scheduler = DDPMScheduler.from_config(pipeline.scheduler.config)
    encoded = [
        (
            pipeline.vae.encode(load_pixels(example, (64, 64))[None]).latent_dist.mean * 0.18215,
            pipeline.encode_prompt(example.caption, "cpu", 1, False)[0],
        )
        for example in examples
    ]
    samples = []
    for number in range(64):
        latents, text = encoded[number % len(examples)]
        rng = torch.Generator().manual_seed(1000 + number)
        noise, timestep = torch.randn(latents.shape, generator=rng), torch.randint(0, 1000, (1,), generator=rng)
        samples.append(Sample(scheduler.add_noise(latents, noise, timestep), timestep, text, noise))
    return samples


@torch.no_grad()
def errors(pipeline: StableDiffusionPipeline, samples: list[Sample]) -> list[float]:
    return [
        float((pipeline.unet(noisy, timestep, text).sample - noise).square().mean())
        for noisy, timestep, text, noise in samples
    ]


@pytest.mark.slow
def test_the_exported_file_lowers_the_loss(bench: Workbench, pipeline: StableDiffusionPipeline) -> None:
    done = last(bench.run(bench.request(length__count=20)), Finished)
    samples = draw_samples(pipeline, bench.examples)
    before = errors(pipeline, samples)
    pipeline.load_lora_weights(done.kohya.path)
    try:
        after = errors(pipeline, samples)
    finally:
        pipeline.unload_lora_weights()
    gains = [one - other for one, other in zip(before, after, strict=True)]
    # Student's t of 64 pairs: 2.39 is p < 0.01, one-sided.
    assert statistics.mean(gains) / (statistics.stdev(gains) / len(gains) ** 0.5) > 2.39
