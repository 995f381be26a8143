"""The script that trains the demo tagger, run for 120 steps: the exported model equals the trained network."""

import csv
import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from catalog.domain.effective_tags import DEFAULT_THRESHOLDS
from demo_world.models.make_tagger import make_tagger
from demo_world.models.onnx_export import export_onnx
from demo_world.models.tagger_network import (
    DEFAULT_THRESHOLD,
    TaggerNetwork,
    TagVocabulary,
    best_threshold,
    calibrate,
    micro_f1,
    predict_probabilities,
    to_wd_input,
)
from tagger.models import available_models
from tagger.wd.tagger import Tagger
from tests.demo_world.step_clock import StepClock


@pytest.mark.drill
def test_the_script_lowers_the_loss_and_writes_a_model_with_wds_interface(tmp_path: Path) -> None:
    make_tagger(tmp_path / "tagger", tmp_path / "work", minutes=0.2, clock=StepClock(seconds_per_step=0.1))
    log = [json.loads(line) for line in (tmp_path / "work" / "tagger-log.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in log if line["event"] == "trained"]
    assert losses[-1] < losses[0] * 0.7
    assert log[-1]["micro_f1"] > 0.3
    assert log[-1]["bytes"] < 2_000_000
    session = onnxruntime.InferenceSession(tmp_path / "tagger" / "model.onnx")
    (model_input,), (model_output,) = session.get_inputs(), session.get_outputs()
    assert (model_input.name, model_input.shape[1:], model_output.name) == ("input", [64, 64, 3], "output")
    assert available_models(tmp_path)["tagger"] == tmp_path / "tagger"
    model = Tagger(tmp_path / "tagger", threads=1)
    assert (model.identity.name, model.thresholds["general"]) == ("demo", DEFAULT_THRESHOLDS.categories["general"])
    with (tmp_path / "tagger" / "selected_tags.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == model_output.shape[1]
    assert {row["name"]: row["category"] for row in rows}["long_ears"] == "0"
    assert [row["category"] for row in rows[:4]] == ["9"] * 4


def test_the_exported_model_equals_the_network(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network, pictures = TaggerNetwork(len(TagVocabulary().names)), torch.randint(256, (8, 3, 64, 64), dtype=torch.uint8)
    network.train()(to_wd_input(pictures))  # fills the running statistics of the norms
    network.eval()
    export_onnx(network, tmp_path / "model.onnx")
    exported = onnxruntime.InferenceSession(tmp_path / "model.onnx").run(
        None, {"input": to_wd_input(pictures).numpy()}
    )[0]
    assert np.allclose(exported, network(to_wd_input(pictures)).sigmoid().detach().numpy(), atol=1e-5)


def test_the_channel_order_is_bgr() -> None:
    red = torch.tensor([255, 0, 0], dtype=torch.uint8)[None, :, None, None].expand(1, 3, 64, 64)
    assert to_wd_input(red)[0, 0, 0].tolist() == [0.0, 0.0, 255.0]


def test_calibration_moves_the_chosen_threshold_to_the_default() -> None:
    torch.manual_seed(0)
    network, pictures = (
        TaggerNetwork(len(TagVocabulary().names)).eval(),
        torch.randint(256, (8, 3, 64, 64), dtype=torch.uint8),
    )
    before = predict_probabilities(network, pictures, torch.device("cpu"))
    chosen = float(before[:, 4:].median()) + 1e-4
    calibrate(network.requires_grad_(False), chosen)
    after = predict_probabilities(network, pictures, torch.device("cpu"))
    assert torch.equal(after[:, :4], before[:, :4])
    assert torch.equal(after[:, 4:] > DEFAULT_THRESHOLD, before[:, 4:] > chosen)
    assert 0.2 < (after[:, 4:] > DEFAULT_THRESHOLD).float().mean() < 0.8
    assert DEFAULT_THRESHOLDS.categories["general"] == DEFAULT_THRESHOLD


def test_the_best_threshold_has_the_highest_f1() -> None:
    ratings = torch.zeros(4, 4)
    predictions = torch.cat([ratings, torch.tensor([[0.9, 0.5], [0.6, 0.3], [0.2, 0.9], [0.7, 0.45]])], dim=1)
    targets = torch.cat([ratings, torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])], dim=1)
    threshold = best_threshold(predictions, targets)
    assert 0.5 <= threshold < 0.6
    assert micro_f1(predictions, targets, threshold) == 1.0
