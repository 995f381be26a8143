"""`python -m trainer.engine` as a subprocess, over its pipe."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.limits import WAIT
from tests.trainer.builders import Workbench
from trainer.engine_pipe import REQUESTS, UPDATES
from trainer.messages import (
    EngineReady,
    EngineRequest,
    Finished,
    Loading,
    Planned,
    RequestFailed,
    Sampled,
    Saved,
    Stepped,
    Stop,
    Stopped,
    Update,
)

pytestmark = pytest.mark.slow  # starting an engine takes ten seconds of CPU time


class Engine:
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

    def send(self, request: EngineRequest) -> None:
        assert self.process.stdin is not None
        REQUESTS.write(self.process.stdin, request)

    def updates(self) -> Iterator[Update]:
        assert self.process.stdout is not None
        while update := UPDATES.read(self.process.stdout):
            yield update

    def read_until(self, *types: type) -> list[Update]:
        received = []
        for update in self.updates():
            received.append(update)
            if isinstance(update, types):
                return received
        raise AssertionError(f"the engine exited after {received[-3:]}")

    def close(self) -> int:
        assert self.process.stdin is not None
        self.process.stdin.close()
        return self.process.wait(WAIT)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """One engine for all tests of this file, as a trainer has."""
    started = Engine(tmp_path_factory.mktemp("engine") / "log")
    assert isinstance(started.read_until(Loading)[0], Loading)
    ready = started.read_until(EngineReady)[-1]
    assert isinstance(ready, EngineReady)
    assert ready.device == "cpu"
    yield started
    assert started.close() == 0
    assert started.process.stdout is not None
    started.process.stdout.close()


def test_updates_of_a_run_arrive_in_order(engine: Engine, bench: Workbench) -> None:
    bench.base = bench.folder / "created" / "on" / "demand"
    engine.send(bench.request(length__count=3))
    kinds = [type(update) for update in engine.read_until(Finished, RequestFailed)]
    without_loading = [kind for kind in kinds if kind is not Loading]
    assert without_loading == [Planned, Stepped, Stepped, Stepped, Saved, Sampled, Finished]
    engine.send(bench.request(length__count=3))
    (planned,) = [update for update in engine.read_until(Finished, RequestFailed) if isinstance(update, Planned)]
    assert planned.warm


def test_it_stops_between_two_steps_and_can_be_resumed(engine: Engine, bench: Workbench) -> None:
    engine.send(bench.request(length__count=100_000))
    engine.read_until(Stepped)
    engine.send(Stop(save=True))
    stopped = engine.read_until(Stopped)[-1]
    assert isinstance(stopped, Stopped)
    assert stopped.path is not None
    engine.send(bench.request(stopped.path, length__count=stopped.step + 1))
    done = engine.read_until(Finished, RequestFailed)
    assert [update.step for update in done if isinstance(update, Stepped)] == [stopped.step + 1]


def test_it_stops_without_saving_on_request(engine: Engine, bench: Workbench) -> None:
    engine.send(bench.request(length__count=100_000))
    engine.read_until(Stepped)
    engine.send(Stop(save=False))
    stopped = engine.read_until(Stopped)[-1]
    assert isinstance(stopped, Stopped)
    assert stopped.path is None


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"data__bucket_step": 512}, "rejected"),
        ({"optimizer__lr": 10.0, "length__count": 300, "max_grad_norm": 1e6}, "diverged"),
    ],
)
def test_a_failed_request_reports_its_code_and_the_next_one_runs(
    engine: Engine, bench: Workbench, changes: dict[str, object], code: str
) -> None:
    engine.send(bench.request(**changes))
    failed = engine.read_until(RequestFailed, Finished)[-1]
    assert isinstance(failed, RequestFailed)
    assert failed.code == code
    engine.send(bench.request(length__count=1))
    assert isinstance(engine.read_until(RequestFailed, Finished)[-1], Finished)


def test_bad_pictures_and_checkpoints_have_their_own_codes(engine: Engine, bench: Workbench, tmp_path: Path) -> None:
    engine.send(bench.request(str(tmp_path / "none")))
    failed = engine.read_until(RequestFailed)[-1]
    assert isinstance(failed, RequestFailed)
    assert failed.code == "bad-checkpoint"
    first = bench.examples[0]
    bench.examples = [type(first)(path="none.png", digest="y", caption="", ordinal=4)]
    engine.send(bench.request())
    failed = engine.read_until(RequestFailed)[-1]
    assert isinstance(failed, RequestFailed)
    assert (failed.code, failed.reason.startswith("picture 4")) == ("bad-picture", True)


@pytest.mark.slow
def test_resuming_after_a_kill_gives_the_same_file(engine: Engine, bench: Workbench, tmp_path: Path) -> None:
    changes: dict[str, object] = {"length.count": 12, "save.every": 5, "data.accumulate": 2, "adapter.dropout": 0.1}
    killed = Engine(tmp_path / "killed")
    killed.send(bench.request(**changes))
    saved = killed.read_until(Saved)[-1]
    assert isinstance(saved, Saved)
    killed.read_until(Stepped)
    killed.process.kill()
    assert killed.process.stdin is not None
    assert killed.process.stdout is not None
    killed.process.stdin.close()
    killed.process.stdout.close()
    killed.process.wait(WAIT)

    engine.send(bench.request(saved.path, **changes))
    resumed = engine.read_until(Finished, RequestFailed)[-1]
    engine.send(bench.request(**changes))
    uninterrupted = engine.read_until(Finished, RequestFailed)[-1]
    assert isinstance(resumed, Finished)
    assert isinstance(uninterrupted, Finished)
    assert Path(resumed.kohya.path).read_bytes() == Path(uninterrupted.kohya.path).read_bytes()


@pytest.mark.slow
def test_it_exits_when_its_pipe_closes_even_while_importing_or_training(bench: Workbench, tmp_path: Path) -> None:
    importing, training = Engine(tmp_path / "one"), Engine(tmp_path / "two")
    importing.read_until(Loading)
    assert importing.close() == 0
    training.send(bench.request(length__count=100_000))
    training.read_until(Stepped)
    training.process.send_signal(signal.SIGINT)
    assert training.close() == 0
    for process in (importing, training):
        assert process.process.stdout is not None
        process.process.stdout.close()
