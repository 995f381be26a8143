"""The figures of a base: those of one that has learnt nothing are near nothing."""

from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline

from trainer.demo import parts
from trainer.demo.figures import figures, sheet
from trainer.demo.world.scoring import Judge


def test_a_base_that_knows_nothing_draws_nothing_that_was_asked(tmp_path: Path) -> None:
    torch.manual_seed(0)
    parts.save(parts.untrained(tmp_path), tmp_path / "base")
    base = StableDiffusionPipeline.from_pretrained(tmp_path / "base", dtype=torch.float32)
    base.set_progress_bar_config(disable=True)
    found, drawn = figures(base, Judge(each=3), "evaluation", 6)
    assert found["prompts"] == len(drawn) == 6
    assert found["shape and colour"] <= 1 / 6
    assert sheet(drawn).size == (640, 64)
