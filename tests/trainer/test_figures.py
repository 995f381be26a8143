"""The figures: a base that has learnt nothing has none to speak of; the shipped models keep what their cards say."""

from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline

from tagger.wd.model import Model
from tests.trainer import trials
from trainer.bases import DEMO
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


@pytest.mark.parametrize("name", ["evaluation", "combinations"])
def test_the_shipped_base_draws_what_it_is_asked(name: str) -> None:
    found, _ = figures(trials.pipeline_of(DEMO), Judge(), name, 25)
    assert found["shape and colour"] >= 0.75  # of all prompts 0.885 and 0.92


def test_the_shipped_tagger_says_what_is_there() -> None:
    tagger = Path(__file__).parents[2] / "tagger" / "demo"
    assert trials.tagging_f1(Model.load(tagger), 100) >= 0.93  # of a thousand pictures 0.966
