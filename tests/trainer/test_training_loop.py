"""The training loop of the demo models, on a model with two parameters."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from trainer.demo.training_loop import Log, train_stage


class LinearStage:
    name = "line"
    learning_rate = 0.05

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.module = nn.Linear(1, 1)
        self.steps: list[int] = []
        self.first_input = 0.0

    def loss(self, step: int) -> Tensor:
        self.steps.append(step)
        inputs = torch.randn(64, 1)
        self.first_input = self.first_input or float(inputs[0])
        return nn.functional.mse_loss(self.module(inputs), 3 * inputs + 1)


def test_a_stage_ends_on_time_with_averaged_weights(tmp_path: Path) -> None:
    stage = LinearStage()
    train_stage(stage, tmp_path, seconds=4, seed=0, log=Log(tmp_path / "log.jsonl"))
    assert stage.module.weight.item() == pytest.approx(3, abs=0.1)
    assert stage.module.bias.item() == pytest.approx(1, abs=0.1)
    entries = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in entries if line["event"] == "trained"]
    assert losses[-1] < losses[0] / 10
    assert (entries[0]["event"], entries[-1]["event"], entries[-1]["step"]) == ("started", "ended", len(stage.steps))


def test_a_stage_resumes_and_does_not_exceed_its_time(tmp_path: Path) -> None:
    log = Log(tmp_path / "log.jsonl")
    first, second, third = LinearStage(), LinearStage(), LinearStage()
    train_stage(first, tmp_path, seconds=0.2, seed=0, log=log)
    train_stage(second, tmp_path, seconds=0.4, seed=0, log=log)
    train_stage(third, tmp_path, seconds=0.4, seed=0, log=log)
    assert first.steps[0] == 0
    assert second.steps[0] == len(first.steps)
    assert second.first_input != first.first_input
    assert third.steps == []
    assert third.module.weight.item() == second.module.weight.item()


def test_a_damaged_checkpoint_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "line.safetensors").write_bytes(b"torn")
    with pytest.raises(ValueError, match=r"line\.safetensors is not a valid checkpoint"):
        train_stage(LinearStage(), tmp_path, seconds=0.1, seed=0, log=Log(tmp_path / "log.jsonl"))


def test_a_checkpoint_of_another_seed_is_an_error(tmp_path: Path) -> None:
    log = Log(tmp_path / "log.jsonl")
    train_stage(LinearStage(), tmp_path, seconds=0.1, seed=0, log=log)
    with pytest.raises(ValueError, match="started with seed 0"):
        train_stage(LinearStage(), tmp_path, seconds=0.2, seed=1, log=log)
