"""The loop that trains the models of the demo world, on a model of two numbers."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from trainer.demo.course import Log, follow


class Line:
    name = "line"
    rate = 0.05

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.module = nn.Linear(1, 1)
        self.steps: list[int] = []
        self.first = 0.0

    def loss(self, step: int) -> Tensor:
        self.steps.append(step)
        drawn = torch.randn(64, 1)
        self.first = self.first or float(drawn[0])
        return nn.functional.mse_loss(self.module(drawn), 3 * drawn + 1)


def test_a_course_ends_with_its_time_and_leaves_the_mean_of_its_weights(tmp_path: Path) -> None:
    course = Line()
    follow(course, tmp_path, seconds=4, seed=0, log=Log(tmp_path / "log.jsonl"))
    assert course.module.weight.item() == pytest.approx(3, abs=0.1)
    assert course.module.bias.item() == pytest.approx(1, abs=0.1)
    told = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in told if line["event"] == "trained"]
    assert losses[-1] < losses[0] / 10
    assert (told[0]["event"], told[-1]["event"], told[-1]["step"]) == ("started", "ended", len(course.steps))


def test_a_course_goes_on_where_it_was_and_not_beyond_its_time(tmp_path: Path) -> None:
    log = Log(tmp_path / "log.jsonl")
    one, two, three = Line(), Line(), Line()
    follow(one, tmp_path, seconds=0.2, seed=0, log=log)
    follow(two, tmp_path, seconds=0.4, seed=0, log=log)
    follow(three, tmp_path, seconds=0.4, seed=0, log=log)
    assert one.steps[0] == 0
    assert two.steps[0] == len(one.steps)
    assert two.first != one.first
    assert three.steps == []
    assert three.module.weight.item() == two.module.weight.item()


def test_a_checkpoint_that_is_none_is_not_taken_for_a_beginning(tmp_path: Path) -> None:
    (tmp_path / "line.safetensors").write_bytes(b"torn")
    with pytest.raises(ValueError, match=r"line\.safetensors is no checkpoint"):
        follow(Line(), tmp_path, seconds=0.1, seed=0, log=Log(tmp_path / "log.jsonl"))


def test_another_seed_does_not_go_on_from_this_one(tmp_path: Path) -> None:
    log = Log(tmp_path / "log.jsonl")
    follow(Line(), tmp_path, seconds=0.1, seed=0, log=log)
    with pytest.raises(ValueError, match="begun with seed 0"):
        follow(Line(), tmp_path, seconds=0.2, seed=1, log=log)
