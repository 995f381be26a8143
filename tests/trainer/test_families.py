import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from contracts.errors import Rejected
from tests.trainer.builders import Workbench, last
from trainer import families
from trainer.engine.training import BaseCache
from trainer.messages import Finished, Planned

CPU = torch.device("cpu")


def rename(folder: Path, pattern: str, ending: str) -> None:
    for file in folder.rglob(pattern):
        file.rename(file.with_name(file.name.replace(".safetensors", ending)))


def rewrite(file: Path, **changes: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


BROKEN_BASES: dict[str, tuple[Callable[[Path], object], str]] = {
    "no index": (lambda folder: (folder / "model_index.json").unlink(), "no model_index.json"),
    "index is text": (lambda folder: (folder / "model_index.json").write_text("{"), "not valid JSON"),
    "index is a list": (lambda folder: (folder / "model_index.json").write_text("[]"), "not a JSON object"),
    "another family": (lambda folder: rewrite(folder / "model_index.json", _class_name="FluxPipeline"), "FluxPipeline"),
    "a foreign part": (lambda folder: rewrite(folder / "model_index.json", unet=["os", "system"]), "its unet is"),
    "a foreign scheduler": (lambda folder: rewrite(folder / "model_index.json", scheduler=["os", "x"]), "scheduler is"),
    "no unet": (lambda folder: shutil.rmtree(folder / "unet"), "unet/config.json is missing"),
    "no weights": (lambda folder: rename(folder / "vae", "*.safetensors", ".gone"), "vae has no .safetensors"),
    "only pickles": (lambda folder: rename(folder / "text_encoder", "*.safetensors", ".bin"), "only .bin weights"),
    "no tokenizer": (lambda folder: shutil.rmtree(folder / "tokenizer"), "tokenizer is empty"),
    "no scheduler": (lambda folder: shutil.rmtree(folder / "scheduler"), "scheduler is empty"),
    "damaged weights": (
        lambda folder: (folder / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"x" * 99),
        "cannot be loaded",
    ),
    "predicts samples": (
        lambda folder: rewrite(folder / "scheduler" / "scheduler_config.json", prediction_type="sample"),
        "not supported",
    ),
}


@pytest.fixture
def copy(base: Path, tmp_path: Path) -> Path:
    return shutil.copytree(base, tmp_path / "copy")


@pytest.mark.parametrize(("corrupt", "reason"), BROKEN_BASES.values(), ids=BROKEN_BASES.keys())
def test_an_invalid_base_is_refused_with_the_reason(copy: Path, corrupt: Callable[[Path], object], reason: str) -> None:
    corrupt(copy)
    with pytest.raises(Rejected, match=reason):
        families.load(copy, device=CPU, dtype=torch.float32)


@pytest.mark.slow
def test_half_precision_files_are_used_if_there_are_no_others(copy: Path) -> None:
    rename(copy, "*.safetensors", ".fp16.safetensors")
    model = families.load(copy, device=CPU, dtype=torch.float32)
    assert {weight.dtype for weight in model.denoiser.parameters()} == {torch.float32}


def test_a_folder_downloaded_from_a_hub_loads_without_its_safety_checker(copy: Path) -> None:
    # Given pickles beside the weights, unused checker and extractor entries, and half-precision files for one part
    rewrite(
        copy / "model_index.json",
        safety_checker=["stable_diffusion", "StableDiffusionSafetyChecker"],
        feature_extractor=["transformers", "CLIPFeatureExtractor"],
        scheduler=["diffusers", "PNDMScheduler"],
    )
    rewrite(copy / "scheduler" / "scheduler_config.json", _class_name="PNDMScheduler", skip_prk_steps=True)
    (copy / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"never read")
    rename(copy / "unet", "*.safetensors", ".fp16.safetensors")
    model = families.load(copy, device=CPU, dtype=torch.float32)
    picture = model.render("momo", size=(64, 64), steps=4, guidance=7.5, seed=0)
    assert picture.size == (64, 64)


@pytest.mark.slow
def test_digests_depend_on_the_files_and_not_on_their_path(base: Path, copy: Path) -> None:
    original, copied = (families.load(folder, device=CPU, dtype=torch.float32) for folder in (base, copy))
    assert original.base_digest == copied.base_digest
    rewrite(copy / "scheduler" / "scheduler_config.json", beta_end=0.02)
    changed = families.load(copy, device=CPU, dtype=torch.float32)
    assert changed.base_digest != original.base_digest
    assert (changed.vae_digest, changed.text_encoder_digest) == (original.vae_digest, original.text_encoder_digest)


def test_a_base_is_reloaded_when_its_files_change(copy: Path) -> None:
    bases = BaseCache()
    assert [bases.get(copy, CPU, torch.float32)[1] for _ in range(2)] == [False, True]
    rewrite(copy / "scheduler" / "scheduler_config.json", beta_end=0.02)
    assert not bases.get(copy, CPU, torch.float32)[1]


@pytest.mark.slow
def test_v_prediction_bases_train_and_their_header_says_so(copy: Path, bench: Workbench) -> None:
    rewrite(copy / "scheduler" / "scheduler_config.json", prediction_type="v_prediction")
    bench.base, bench.bases = copy, BaseCache()
    model, _ = bench.bases.get(copy, CPU, torch.float32)
    latents, noise = torch.full((2, 4, 8, 8), 2.0), torch.ones(2, 4, 8, 8)
    timesteps = torch.tensor([0, 999])
    alphas = 1 - model.add_noise(torch.zeros_like(latents), noise, timesteps)[:, 0, 0, 0] ** 2
    assert torch.allclose(
        model.target(latents, noise, timesteps)[:, 0, 0, 0], alphas.sqrt() - 2 * (1 - alphas).sqrt(), atol=1e-5
    )
    snr = alphas / (1 - alphas)
    assert torch.allclose(model.min_snr_weights(timesteps, 5.0), snr.clamp(max=5) / (snr + 1), rtol=1e-2)
    done = last(bench.run(bench.request(objective__min_snr_gamma=5.0)), Finished)
    assert b'"modelspec.prediction_type":"v"' in Path(done.kohya.path).read_bytes()


def test_min_snr_weights_of_noise_prediction_follow_the_paper(base: Path) -> None:
    model = families.load(base, device=CPU, dtype=torch.float32)
    timesteps = torch.tensor([0, 500, 999])
    weights = model.min_snr_weights(timesteps, 5.0)
    assert weights[0] < 0.01
    assert weights[1:].tolist() == [1.0, 1.0]


@pytest.mark.slow
def test_truncated_captions_are_counted(bench: Workbench) -> None:
    bench.examples = [
        type(it)(path=it.path, digest=it.digest, caption="a" * 200, ordinal=it.ordinal) for it in bench.examples
    ]
    assert last(bench.run(bench.request(length__count=1)), Planned).truncated_captions == 5


@pytest.mark.slow
def test_bfloat16_trains_on_a_cpu_and_float16_is_refused(bench: Workbench) -> None:
    bench.bases = BaseCache()
    updates = bench.run(bench.request(precision="bfloat16"))
    assert last(updates, Planned).precision == "bfloat16"
    assert last(updates, Finished).step == 4
    with pytest.raises(Rejected, match="float16 needs a CUDA device"):
        bench.run(bench.request(precision="float16"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="gpu: there is one here")
def test_a_missing_device_is_refused(bench: Workbench) -> None:
    with pytest.raises(Rejected, match="no"):
        bench.run(bench.request(device="cuda"))
