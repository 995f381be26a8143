"""The child as the parent meets it: a process, a pipe, and nothing else."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.trainer.builders import Workbench
from trainer import messages
from trainer.messages import Failed, Finished, Loading, Planned, Ready, Sampled, Saved, Stepped, Stop, Stopped, Update


class Child:
    def __init__(self, log: Path) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        with log.open("wb") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-W", "error", "-m", "trainer.engine"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=environment,
            )

    def send(self, order: messages.Order) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(messages.frame(order))
        self.process.stdin.flush()

    def updates(self) -> Iterator[Update]:
        assert self.process.stdout is not None
        while prefix := self.process.stdout.read(messages.PREFIX):
            yield messages.update_in(self.process.stdout.read(messages.length(prefix)))

    def until(self, *kinds: type) -> list[Update]:
        seen = []
        for update in self.updates():
            seen.append(update)
            if isinstance(update, kinds):
                return seen
        raise AssertionError(f"the child ended after {seen[-3:]}")

    def hang_up(self) -> int:
        assert self.process.stdin is not None
        self.process.stdin.close()
        return self.process.wait(10)


@pytest.fixture(scope="module")
def child(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Child]:
    """One warm child for the whole file, as a trainer has."""
    started = Child(tmp_path_factory.mktemp("child") / "log")
    assert isinstance(started.until(Loading)[0], Loading)
    ready = started.until(Ready)[-1]
    assert isinstance(ready, Ready)
    assert ready.device == "cpu"
    yield started
    assert started.hang_up() == 0
    assert started.process.stdout is not None
    started.process.stdout.close()


def test_it_tells_the_story_of_a_run_in_order(child: Child, bench: Workbench) -> None:
    bench.base = bench.folder / "made" / "when" / "needed"
    child.send(bench.order(length__count=3))
    kinds = [type(update) for update in child.until(Finished, Failed)]
    told = [kind for kind in kinds if kind is not Loading]
    assert told == [Planned, Stepped, Stepped, Stepped, Saved, Sampled, Finished]
    child.send(bench.order(length__count=3))
    (planned,) = [update for update in child.until(Finished, Failed) if isinstance(update, Planned)]
    assert planned.warm


def test_it_stops_between_two_steps_and_can_be_gone_on_with(child: Child, bench: Workbench) -> None:
    child.send(bench.order(length__count=100_000))
    child.until(Stepped)
    child.send(Stop(save=True))
    stopped = child.until(Stopped)[-1]
    assert isinstance(stopped, Stopped)
    assert stopped.path is not None
    child.send(bench.order(length__count=stopped.step + 1, resume_from=stopped.path))
    done = child.until(Finished, Failed)
    assert [update.step for update in done if isinstance(update, Stepped)] == [stopped.step + 1]


def test_it_stops_without_saving_when_so_asked(child: Child, bench: Workbench) -> None:
    child.send(bench.order(length__count=100_000))
    child.until(Stepped)
    child.send(Stop(save=False))
    stopped = child.until(Stopped)[-1]
    assert isinstance(stopped, Stopped)
    assert stopped.path is None


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"data__bucket_step": 512}, "rejected"),
        ({"optimizer__lr": 10.0, "length__count": 300, "max_grad_norm": 1e6}, "diverged"),
    ],
)
def test_it_says_why_it_cannot_and_takes_the_next_order(
    child: Child, bench: Workbench, changes: dict[str, object], code: str
) -> None:
    child.send(bench.order(**changes))
    failed = child.until(Failed, Finished)[-1]
    assert isinstance(failed, Failed)
    assert failed.code == code
    child.send(bench.order(length__count=1))
    assert isinstance(child.until(Failed, Finished)[-1], Finished)


def test_bad_pictures_and_checkpoints_have_codes_of_their_own(child: Child, bench: Workbench, tmp_path: Path) -> None:
    child.send(bench.order(resume_from=str(tmp_path / "none")))
    failed = child.until(Failed)[-1]
    assert isinstance(failed, Failed)
    assert failed.code == "bad-checkpoint"
    first = bench.examples[0]
    bench.examples = [type(first)(path="none.png", digest="y", caption="", ordinal=4)]
    child.send(bench.order())
    failed = child.until(Failed)[-1]
    assert isinstance(failed, Failed)
    assert (failed.code, failed.reason.startswith("picture 4")) == ("bad-picture", True)


def test_what_a_killed_child_had_saved_is_gone_on_with_to_the_same_file(
    child: Child, bench: Workbench, tmp_path: Path
) -> None:
    changes = {"length.count": 12, "save.every": 5, "data.accumulate": 2, "adapter.dropout": 0.1}
    killed = Child(tmp_path / "killed")
    killed.send(bench.order(**changes))
    saved = killed.until(Saved)[-1]
    assert isinstance(saved, Saved)
    killed.until(Stepped)
    killed.process.kill()
    assert killed.process.stdin is not None
    assert killed.process.stdout is not None
    killed.process.stdin.close()
    killed.process.stdout.close()
    killed.process.wait(10)

    child.send(bench.order(**changes, resume_from=saved.path))
    resumed = child.until(Finished, Failed)[-1]
    child.send(bench.order(**changes))
    whole = child.until(Finished, Failed)[-1]
    assert isinstance(resumed, Finished)
    assert isinstance(whole, Finished)
    assert Path(resumed.kohya.path).read_bytes() == Path(whole.kohya.path).read_bytes()


def test_it_ends_when_its_pipe_closes_even_while_importing_or_training(bench: Workbench, tmp_path: Path) -> None:
    importing, training = Child(tmp_path / "one"), Child(tmp_path / "two")
    importing.until(Loading)
    assert importing.hang_up() == 0
    training.send(bench.order(length__count=100_000))
    training.until(Stepped)
    training.process.send_signal(signal.SIGINT)
    assert training.hang_up() == 0
    for child in (importing, training):
        assert child.process.stdout is not None
        child.process.stdout.close()
