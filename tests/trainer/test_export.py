"""What other programs load is what was trained; the header says the truth."""

import copy
import hashlib
import json
import statistics
from pathlib import Path

import pytest
import torch
from diffusers import DDPMScheduler, StableDiffusionPipeline
from safetensors import safe_open
from safetensors.torch import load_file

from tests.trainer.builders import Workbench, last
from trainer.engine import files
from trainer.engine.data import pixels
from trainer.engine.training import Training
from trainer.messages import Example, Finished


def predictions(denoiser: torch.nn.Module) -> torch.Tensor:
    chance = torch.Generator().manual_seed(5)
    noisy = torch.randn((4, 4, 8, 8), generator=chance)
    texts = torch.randn((4, 77, 32), generator=chance)
    with torch.no_grad():
        return denoiser.eval()(noisy, torch.tensor([10, 300, 600, 900]), texts).sample


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
    """A run's files, and what its adapter predicted in memory before it was taken out."""
    training = Training(bench.order(**changes), bench.bases, {"torch": "x"})
    for update in training.updates():
        if isinstance(update, Finished):
            memory = predictions(training._learner.model.denoiser)  # type: ignore[union-attr]
            return update, memory
    raise AssertionError("it did not finish")


LAYERS = pytest.mark.parametrize("layers", ["attention", "transformer"])


@LAYERS
def test_both_files_give_what_the_engine_gives_with_alpha_unlike_rank(
    bench: Workbench, pipeline: StableDiffusionPipeline, layers: str
) -> None:
    done, memory = finish(
        bench, adapter__rank=8, adapter__alpha=3.0, adapter__layers=layers, length__count=8, optimizer__lr=0.05
    )
    base = predictions(pipeline.unet)
    assert (memory - base).abs().max() > 0.01
    for file in (done.kohya, done.diffusers):
        assert (loaded(pipeline, file.path) - memory).abs().max() < 1e-6
    assert torch.equal(predictions(pipeline.unet), base)


@LAYERS
def test_a_reader_with_the_key_rules_of_comfyui_and_a1111_gives_the_same(
    bench: Workbench, pipeline: StableDiffusionPipeline, layers: str
) -> None:
    # Both look up `lora_unet_` and the module's name with underscores, and add up @ down * alpha / rank to its weight.
    done, memory = finish(
        bench, adapter__rank=8, adapter__alpha=3.0, adapter__layers=layers, length__count=8, optimizer__lr=0.05
    )
    tensors = load_file(done.kohya.path)
    merged = copy.deepcopy(pipeline.unet)
    for name, module in merged.named_modules():
        place = "lora_unet_" + name.replace(".", "_")
        if f"{place}.alpha" in tensors:
            down, up = tensors.pop(f"{place}.lora_down.weight"), tensors.pop(f"{place}.lora_up.weight")
            change = up.flatten(1) @ down.flatten(1) * (tensors.pop(f"{place}.alpha") / down.shape[0])
            module.weight.data += change.reshape(module.weight.shape)
    assert not tensors
    assert torch.allclose(predictions(merged), memory, atol=1e-4)


def test_an_untrained_adapter_changes_nothing(bench: Workbench, pipeline: StableDiffusionPipeline) -> None:
    done, memory = finish(bench, length__count=1, optimizer__lr=1e-12, optimizer__weight_decay=0.0)
    base = predictions(pipeline.unet)
    for said in (memory, loaded(pipeline, done.kohya.path), loaded(pipeline, done.diffusers.path)):
        assert torch.allclose(said, base, atol=1e-6)


@pytest.mark.parametrize(("name", "dtype"), [("float16", torch.float16), ("bfloat16", torch.bfloat16)])
def test_files_have_the_number_format_asked_for(bench: Workbench, name: str, dtype: torch.dtype) -> None:
    done = last(bench.run(bench.order(save__dtype=name, adapter__alpha=2.3)), Finished)
    kohya = load_file(done.kohya.path)
    assert {tensor.dtype for key, tensor in kohya.items() if key.endswith(".weight")} == {dtype}
    assert {tensor.item() for key, tensor in kohya.items() if key.endswith(".alpha")} == {torch.tensor(2.3).item()}
    assert {tensor.dtype for tensor in load_file(done.diffusers.path).values()} == {dtype}


def test_kohyas_keys_are_those_of_sd1(bench: Workbench) -> None:
    done = last(bench.run(bench.order()), Finished)
    tensors = load_file(done.kohya.path)
    place = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_out_0"
    assert tensors[f"{place}.lora_down.weight"].shape == (4, 32)
    assert tensors[f"{place}.lora_up.weight"].shape == (32, 4)
    assert tensors[f"{place}.alpha"].shape == ()
    assert len(tensors) == 3 * 128


def test_whole_blocks_have_the_keys_that_sd_scripts_writes(bench: Workbench) -> None:
    done = last(bench.run(bench.order(adapter__layers="transformer")), Finished)
    tensors = load_file(done.kohya.path)
    block = "lora_unet_down_blocks_0_attentions_0"
    assert tensors[f"{block}_proj_in.lora_down.weight"].shape == (4, 32, 1, 1)
    assert tensors[f"{block}_proj_out.lora_up.weight"].shape == (32, 4, 1, 1)
    for place in ("ff_net_0_proj", "ff_net_2"):
        assert f"{block}_transformer_blocks_0_{place}.alpha" in tensors
    # sd-scripts adapts every Linear and 1x1 convolution inside of Transformer2DModel: 12 of one with one block.
    assert len(tensors) == 3 * 12 * 16


def test_the_header_says_the_truth(bench: Workbench) -> None:
    done = last(bench.run(bench.order(length__count=7, data__repeats=2, data__batch_size=2)), Finished)
    with safe_open(done.kohya.path, framework="pt") as opened:
        said = opened.metadata()
    assert said["ss_steps"] == said["ss_max_train_steps"] == "7"
    assert said["ss_network_dim"] == "4"
    assert said["ss_network_alpha"] == "2.0"
    assert said["ss_base_model_version"] == "sd_v1"
    assert said["ss_v2"] == "False"
    assert json.loads(said["ss_tag_frequency"]) == {"creatures": {"momo": 5, "smiling": 2}}
    assert json.loads(said["ss_dataset_dirs"]) == {"creatures": {"n_repeats": 2, "img_count": 5}}
    assert sum(bucket["count"] for bucket in json.loads(said["ss_bucket_info"])["buckets"].values()) == 10
    assert said["modelspec.architecture"] == "stable-diffusion-v1/lora"
    assert said["modelspec.prediction_type"] == "epsilon"
    assert said["modelspec.trigger_phrase"] == "momo"
    assert (said["loratory.job"], said["loratory.dataset_version"]) == ("job_1", "3")
    content = Path(done.kohya.path).read_bytes()
    assert said["sshs_model_hash"] == done.kohya.tensors == hashlib.sha256(files.data_of(content)).hexdigest()
    assert said["sshs_legacy_hash"] == "e3b0c442"
    assert not [name for name in said if "time" in name.replace("timestep", "") or "session" in name or "date" in name]
    assert str(bench.base) not in content.decode("latin-1")


def errors(pipeline: StableDiffusionPipeline, examples: list[Example]) -> list[float]:
    """The denoising error on 64 fixed (picture, time, noise) triples, by diffusers alone."""
    noising = DDPMScheduler.from_config(pipeline.scheduler.config)
    found = []
    for number in range(64):
        example = examples[number % len(examples)]
        chance = torch.Generator().manual_seed(1000 + number)
        with torch.no_grad():
            latents = pipeline.vae.encode(pixels(example, (64, 64))[None]).latent_dist.mean * 0.18215
            text = pipeline.encode_prompt(example.caption, "cpu", 1, False)[0]
            noise, time = torch.randn(latents.shape, generator=chance), torch.randint(0, 1000, (1,), generator=chance)
            said = pipeline.unet(noising.add_noise(latents, noise, time), time, text).sample
        found.append(float((said - noise).square().mean()))
    return found


def test_the_loaded_file_lowers_the_loss(bench: Workbench, pipeline: StableDiffusionPipeline) -> None:
    done = last(bench.run(bench.order(length__count=60)), Finished)
    before = errors(pipeline, bench.examples)
    pipeline.load_lora_weights(done.kohya.path)
    try:
        after = errors(pipeline, bench.examples)
    finally:
        pipeline.unload_lora_weights()
    gains = [one - other for one, other in zip(before, after, strict=True)]
    # Student's t of 64 pairs: 2.39 is p < 0.01, one-sided.
    assert statistics.mean(gains) / (statistics.stdev(gains) / len(gains) ** 0.5) > 2.39
