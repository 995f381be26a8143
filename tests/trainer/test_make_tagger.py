"""The script that makes the demo tagger, for twelve seconds: a file that says what the trained network says."""

import csv
import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from catalog.domain.standing import DEFAULTS
from tagger.models import known
from tagger.wd.tagger import Tagger
from trainer.demo.make_tagger import make_tagger
from trainer.demo.onnx_file import write_onnx
from trainer.demo.tagging import USUAL, Network, Words, as_input, best_threshold, calibrate, micro_f1, probabilities


@pytest.mark.slow
def test_the_script_lowers_the_loss_and_leaves_a_model_with_wds_interface(tmp_path: Path) -> None:
    make_tagger(tmp_path / "tagger", tmp_path / "work", minutes=0.2)
    told = [json.loads(line) for line in (tmp_path / "work" / "tagger-log.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in told if line["event"] == "trained"]
    assert losses[-1] < losses[0] * 0.7
    assert told[-1]["micro_f1"] > 0.3
    assert told[-1]["bytes"] < 2_000_000
    session = onnxruntime.InferenceSession(tmp_path / "tagger" / "model.onnx")
    (taken,), (given,) = session.get_inputs(), session.get_outputs()
    assert (taken.name, taken.shape[1:], given.name) == ("input", [64, 64, 3], "output")
    assert known(tmp_path)["tagger"] == tmp_path / "tagger"
    model = Tagger(tmp_path / "tagger", threads=1)
    assert (model.identity.name, model.thresholds["general"]) == ("demo", DEFAULTS["general"])
    with (tmp_path / "tagger" / "selected_tags.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == given.shape[1]
    assert {row["name"]: row["category"] for row in rows}["long_ears"] == "0"
    assert [row["category"] for row in rows[:4]] == ["9"] * 4


def test_the_file_says_what_the_network_says(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network, pictures = Network(len(Words().names)), torch.randint(256, (8, 3, 64, 64), dtype=torch.uint8)
    network.train()(as_input(pictures))  # gives the norms a past
    network.eval()
    write_onnx(network, tmp_path / "model.onnx")
    said = onnxruntime.InferenceSession(tmp_path / "model.onnx").run(None, {"input": as_input(pictures).numpy()})[0]
    assert np.allclose(said, network(as_input(pictures)).sigmoid().detach().numpy(), atol=1e-5)


def test_pixels_go_in_as_blue_green_red() -> None:
    red = torch.tensor([255, 0, 0], dtype=torch.uint8)[None, :, None, None].expand(1, 3, 64, 64)
    assert as_input(red)[0, 0, 0].tolist() == [0.0, 0.0, 255.0]


def test_the_chosen_threshold_comes_to_lie_at_the_usual_one() -> None:
    torch.manual_seed(0)
    network, pictures = Network(len(Words().names)).eval(), torch.randint(256, (8, 3, 64, 64), dtype=torch.uint8)
    before = probabilities(network, pictures, torch.device("cpu"))
    chosen = float(before[:, 4:].median()) + 1e-4
    calibrate(network.requires_grad_(False), chosen)
    after = probabilities(network, pictures, torch.device("cpu"))
    assert torch.equal(after[:, :4], before[:, :4])
    assert torch.equal(after[:, 4:] > USUAL, before[:, 4:] > chosen)
    assert 0.2 < (after[:, 4:] > USUAL).float().mean() < 0.8
    assert DEFAULTS["general"] == USUAL


def test_the_threshold_is_the_one_with_the_highest_f1() -> None:
    ratings = torch.zeros(4, 4)
    found = torch.cat([ratings, torch.tensor([[0.9, 0.5], [0.6, 0.3], [0.2, 0.9], [0.7, 0.45]])], dim=1)
    wanted = torch.cat([ratings, torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])], dim=1)
    threshold = best_threshold(found, wanted)
    assert 0.5 <= threshold < 0.6
    assert micro_f1(found, wanted, threshold) == 1.0
