"""The training loop of the demo models, on a model with two parameters."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from demo_world.models.training_loop import Log, StageTrainer
from tests.demo_world.step_clock import StepClock


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


def trainer(folder: Path, seed: int = 0) -> StageTrainer:
    return StageTrainer(folder, seed, Log(folder / "log.jsonl"), StepClock(seconds_per_step=0.01))


def test_a_stage_ends_on_time_with_averaged_weights(tmp_path: Path) -> None:
    stage = LinearStage()
    trainer(tmp_path).train(stage, seconds=6)
    assert stage.module.weight.item() == pytest.approx(3, abs=0.1)
    assert stage.module.bias.item() == pytest.approx(1, abs=0.1)
    entries = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in entries if line["event"] == "trained"]
    assert losses[-1] < losses[0] / 10
    assert (entries[0]["event"], entries[-1]["event"], entries[-1]["step"]) == ("started", "ended", len(stage.steps))


def test_a_stage_resumes_and_does_not_exceed_its_time(tmp_path: Path) -> None:
    first, second, third = LinearStage(), LinearStage(), LinearStage()
    trainer(tmp_path).train(first, seconds=0.2)
    trainer(tmp_path).train(second, seconds=0.4)
    trainer(tmp_path).train(third, seconds=0.4)
    assert first.steps == list(range(20))
    assert second.steps == list(range(20, 40))
    assert second.first_input != first.first_input
    assert third.steps == []
    assert third.module.weight.item() == second.module.weight.item()


def test_a_damaged_checkpoint_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "line.safetensors").write_bytes(b"torn")
    with pytest.raises(ValueError, match=r"line\.safetensors is not a valid checkpoint"):
        trainer(tmp_path).train(LinearStage(), seconds=0.1)


def test_a_checkpoint_of_another_seed_is_an_error(tmp_path: Path) -> None:
    trainer(tmp_path).train(LinearStage(), seconds=0.1)
    with pytest.raises(ValueError, match="started with seed 0"):
        trainer(tmp_path, seed=1).train(LinearStage(), seconds=0.2)
