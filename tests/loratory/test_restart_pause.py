"""The pauses between restarts: how they grow, when they end, and what is said while they last."""

import asyncio
from pathlib import Path

import pytest

from contracts.retry import RetryPolicy
from contracts.wire.service.supervision import Pause, SupervisionFile, SupervisionReport, read_supervision
from loratory import restart_pause
from loratory.restart_pause import Pauses, RestartPause
from loratory.restarts import RESTARTS, RestartBackoff, RestartPolicy
from tests.limits import WAIT

LONG = RestartPolicy(delays=RetryPolicy(first_delay=3600), disk_poll=0.01)
NONE = RestartPolicy(delays=RetryPolicy(first_delay=0), disk_poll=0.01)


def test_pauses_grow_up_to_a_minute_and_never_end() -> None:
    backoff = RestartBackoff(RESTARTS)
    delays = [backoff.next_delay(now=float(second)) for second in range(1000)]
    assert delays[:4] == [0.2, 0.4, 0.8, 1.6]
    assert set(delays[9:]) == {60.0}


def test_a_process_that_was_ready_for_a_while_is_restarted_at_once() -> None:
    backoff = RestartBackoff(RESTARTS)
    for second in range(9):
        backoff.next_delay(now=float(second))
    backoff.became_ready(now=100.0)
    backoff.became_ready(now=100.0 + RESTARTS.settled_after)  # ready since the first time
    assert backoff.next_delay(now=100.0 + RESTARTS.settled_after) == 0.2


def test_a_process_that_dies_as_soon_as_it_is_ready_is_restarted_more_and_more_slowly() -> None:
    backoff = RestartBackoff(RESTARTS)
    delays = []
    for number in range(20):
        backoff.became_ready(now=100.0 * number)
        delays.append(backoff.next_delay(now=100.0 * number + RESTARTS.settled_after / 2))
    assert delays[-1] == 60.0
    assert backoff.next_delay(now=10_000.0) == 60.0  # and was never ready again


def test_a_pause_is_one_sentence() -> None:
    report = SupervisionReport(
        {
            "catalog": Pause(reason="it ended because there is no room for archive.db; 12 MB free", until=140.0),
            "nats": Pause(reason="waiting for disk space; 12 MB free"),
        }
    )
    why = "it ended because there is no room for archive.db; 12 MB free"
    assert report.sentence("catalog", now=100.0) == f"catalog: waiting 40 s to start again; {why}"
    assert report.sentence("catalog", now=139.9) == f"catalog: waiting 1 s to start again; {why}"
    assert report.sentence("catalog", now=150.0) == f"catalog: starting again; {why}"
    assert report.sentence("nats", now=100.0) == "nats: waiting for disk space; 12 MB free"
    assert report.sentence("gateway", now=100.0) == ""


def test_the_file_has_room_for_the_longest_reasons_and_goes_with_its_writer(tmp_path: Path) -> None:
    path = tmp_path / "supervision.json"
    services = ("nats", "catalog", "gateway", "tagger", "trainer")
    longest = SupervisionReport({name: Pause.because("ä" * 10_000, until=1e9) for name in services})
    with SupervisionFile(path) as file:
        size = path.stat().st_size
        assert read_supervision(path) == SupervisionReport()
        file.write(longest)
        assert read_supervision(path) == longest
        file.write(SupervisionReport())
        assert read_supervision(path) == SupervisionReport()
        assert path.stat().st_size == size  # never larger: it must be writable on a full disk
    assert not path.exists()
    assert read_supervision(path) == read_supervision(None) == SupervisionReport()


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The free disk space; change `free[0]`."""
    space = [1 << 40]
    monkeypatch.setattr(restart_pause, "free_bytes", lambda _folder: space[0])  # filling a disk takes root
    return space


def pause_of(tmp_path: Path, policy: RestartPolicy) -> tuple[RestartPause, list[str]]:
    lines: list[str] = []
    return RestartPause("catalog", tmp_path, policy, Pauses(SupervisionFile(tmp_path / "file")), lines.append), lines


async def until_said(lines: list[str], text: str) -> None:
    async with asyncio.timeout(WAIT):
        while not any(text in line for line in lines):  # noqa: ASYNC110 - polls a list
            await asyncio.sleep(0.005)


async def test_a_pause_ends_as_soon_as_a_full_disk_has_room(tmp_path: Path, free: list[int]) -> None:
    pause, lines = pause_of(tmp_path, LONG)
    free[0] = 12_345_678
    waiting = asyncio.create_task(pause.wait("it ended because there is no room for archive.db"))
    await until_said(
        lines, "waiting 3600 s to start again; it ended because there is no room for archive.db; 12 MB free"
    )
    assert pause.sentence.startswith("catalog: waiting 3600 s")
    free[0] = 1 << 40
    await asyncio.wait_for(waiting, WAIT)
    assert lines[-1] == "disk space is available again"
    pause.became_ready()
    assert pause.sentence == ""


async def test_a_pause_also_ends_early_when_the_disk_became_full_during_it(tmp_path: Path, free: list[int]) -> None:
    pause, lines = pause_of(tmp_path, LONG)
    waiting = asyncio.create_task(pause.wait("it was killed by SIGKILL"))
    await until_said(lines, "waiting 3600 s to start again; it was killed by SIGKILL")
    await asyncio.sleep(0.1)
    assert not waiting.done()  # there was room all the time
    free[0] = 0
    await asyncio.sleep(0.1)
    free[0] = 1 << 40
    await asyncio.wait_for(waiting, WAIT)


async def test_waiting_for_room_says_so_only_on_a_full_disk(tmp_path: Path, free: list[int]) -> None:
    pause, lines = pause_of(tmp_path, NONE)
    await pause.wait_for_room()
    assert lines == []
    free[0] = 0
    waiting = asyncio.create_task(pause.wait_for_room())
    await until_said(lines, "waiting for disk space; 0 MB free")
    free[0] = 1 << 40
    await asyncio.wait_for(waiting, WAIT)


def test_a_folder_that_is_gone_has_no_room(tmp_path: Path) -> None:
    assert restart_pause.free_bytes(tmp_path) > 0
    assert restart_pause.free_bytes(tmp_path / "unmounted") == 0
