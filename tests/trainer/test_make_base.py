"""The script that makes the demo base, for a minute: what is made is a whole base, and its losses fall."""

import json
import statistics
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from trainer import families
from trainer.demo import album, parts
from trainer.demo.autoencoding import encoded, normalise
from trainer.demo.make_base import make_base

CPU = torch.device("cpu")


@pytest.fixture
def alone() -> Iterator[None]:
    """One thread: beside other tests, two wait for each other most of the time, and a clock ends each course."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.slow
@pytest.mark.usefixtures("alone")
def test_the_script_lowers_the_losses_and_leaves_a_base_that_draws(tmp_path: Path) -> None:
    make_base(tmp_path / "base", tmp_path / "work", minutes=1)
    told = [json.loads(line) for line in (tmp_path / "work" / "log.jsonl").read_text().splitlines()]
    for course in ("vae", "denoiser"):
        losses = [line["loss"] for line in told if line["event"] == "trained" and line["course"] == course]
        quarter = max(1, len(losses) // 4)
        assert statistics.fmean(losses[-quarter:]) < 0.95 * statistics.fmean(losses[:quarter])
    assert told[-1]["event"] == "saved"
    assert told[-1]["megabytes"] < 12
    base = families.load(tmp_path / "base", device=CPU, dtype=torch.float32)
    picture = base.render("a big red star, in the middle, blue background", size=(64, 64), steps=2, guidance=3, seed=0)
    assert picture.size == (64, 64)
    assert base.factor == 8
    assert not base.is_cut("zibi, " + "creature, purple, pointy ears, square body, short legs, curly tail, spotted")


def test_normalised_latents_have_deviation_one_and_decode_as_before(tmp_path: Path) -> None:
    torch.manual_seed(0)
    vae = parts.untrained(tmp_path).vae.eval().requires_grad_(False)
    pictures = album.pictures(tmp_path, seed=0, count=64)
    before = encoded(vae, pictures, CPU)
    drawn_before = vae.decode(before).sample
    normalise(vae, pictures, CPU)
    after = encoded(vae, pictures, CPU)
    assert torch.allclose(after.mean((0, 2, 3)), torch.zeros(8), atol=1e-4)
    assert torch.allclose(after.std((0, 2, 3)), torch.ones(8), atol=1e-3)
    assert torch.allclose(vae.decode(after).sample, drawn_before, atol=1e-3)


def test_pictures_are_drawn_once_and_in_their_order(tmp_path: Path) -> None:
    first = album.pictures(tmp_path, seed=0, count=10)
    files = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.npy")}
    again = album.pictures(tmp_path, seed=0, count=20)
    assert torch.equal(first, again[:10])
    assert files == {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.npy")}
    assert not torch.equal(album.scribbles(tmp_path, seed=0, count=10), first)
