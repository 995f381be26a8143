"""The script that trains the demo base, run for some dozens of steps: the losses decrease and the base is complete."""

import json
import statistics
from pathlib import Path

import pytest
import torch

from demo_world.models import base_pipeline, picture_cache
from demo_world.models.autoencoder_training import encode_means, normalise_latents
from demo_world.models.make_base import make_base
from tests.demo_world.step_clock import StepClock
from trainer import families

CPU = torch.device("cpu")


@pytest.mark.drill
def test_the_script_lowers_the_losses_and_saves_a_working_base(tmp_path: Path) -> None:
    make_base(tmp_path / "base", tmp_path / "work", minutes=0.5, clock=StepClock(seconds_per_step=0.6))
    log = [json.loads(line) for line in (tmp_path / "work" / "log.jsonl").read_text().splitlines()]
    for stage in ("vae", "denoiser"):
        losses = [line["loss"] for line in log if line["event"] == "trained" and line["stage"] == stage]
        quarter = max(1, len(losses) // 4)
        assert statistics.fmean(losses[-quarter:]) < 0.95 * statistics.fmean(losses[:quarter])
    assert log[-1]["event"] == "saved"
    assert log[-1]["megabytes"] < 12
    base = families.load(tmp_path / "base", device=CPU, dtype=torch.float32)
    picture = base.render("a big red star, in the middle, blue background", size=(64, 64), steps=2, guidance=3, seed=0)
    assert picture.size == (64, 64)
    assert base.vae_scale_factor == 8
    assert not base.is_truncated(
        "zibi, " + "creature, purple, pointy ears, square body, short legs, curly tail, spotted"
    )


@pytest.mark.slow
def test_normalised_latents_have_unit_variance_and_decode_as_before(tmp_path: Path) -> None:
    torch.manual_seed(0)
    vae = base_pipeline.build_untrained(tmp_path).vae.eval().requires_grad_(False)
    pictures = picture_cache.training_pictures(tmp_path, seed=0, count=64)
    before = encode_means(vae, pictures, CPU)
    decoded_before = vae.decode(before).sample
    normalise_latents(vae, pictures, CPU)
    after = encode_means(vae, pictures, CPU)
    assert torch.allclose(after.mean((0, 2, 3)), torch.zeros(8), atol=1e-4)
    assert torch.allclose(after.std((0, 2, 3)), torch.ones(8), atol=1e-3)
    assert torch.allclose(vae.decode(after).sample, decoded_before, atol=1e-3)


@pytest.mark.slow
def test_pictures_are_rendered_once_and_in_order(tmp_path: Path) -> None:
    first = picture_cache.training_pictures(tmp_path, seed=0, count=10)
    files = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.npy")}
    again = picture_cache.training_pictures(tmp_path, seed=0, count=20)
    assert torch.equal(first, again[:10])
    assert files == {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.npy")}
    assert not torch.equal(picture_cache.scribbles(tmp_path, seed=0, count=10), first)
