"""Evaluation: an untrained base scores near zero, and the shipped models reach the figures of their model cards."""

from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline

from contracts.shipped_models import shipped_models
from demo_world.models import base_pipeline
from demo_world.models.evaluate import evaluate, picture_grid
from demo_world.scoring import SceneClassifier
from tagger.wd.model import OnnxTagger
from tests.demo_world import trials


@pytest.mark.slow
def test_an_untrained_base_does_not_follow_prompts(tmp_path: Path) -> None:
    torch.manual_seed(0)
    base_pipeline.save_pipeline(base_pipeline.build_untrained(tmp_path), tmp_path / "base")
    base = StableDiffusionPipeline.from_pretrained(tmp_path / "base", dtype=torch.float32)
    base.set_progress_bar_config(disable=True)
    rates, pictures = evaluate(base, SceneClassifier(examples_per_kind=3), "evaluation", 6)
    assert rates["prompts"] == len(pictures) == 6
    assert rates["shape and colour"] <= 1 / 6
    assert picture_grid(pictures).size == (640, 64)


@pytest.fixture(scope="module")
def classifier() -> SceneClassifier:
    return SceneClassifier()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["evaluation", "combinations"])
def test_the_shipped_base_follows_prompts(classifier: SceneClassifier, name: str) -> None:
    rates, _ = evaluate(trials.load_pipeline(shipped_models("bases")["demo"]), classifier, name, 25)
    assert rates["shape and colour"] >= 0.75  # for all prompts: 0.885 and 0.92


def test_the_shipped_tagger_predicts_the_right_tags() -> None:
    tagger = OnnxTagger.load(shipped_models("taggers")["demo"])
    assert trials.tagging_f1(tagger, 100) >= 0.93  # for a thousand pictures: 0.966
