"""A log that is damaged is noticed: at the start, while the workshop runs, and by who asks; never skipped in silence.

That `loratory restore` brings all of it back is shown in test_restore.py.
"""

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.acceptance.house import House, cli
from tests.damage import BLOCKS, blocks, cut, delete_log, flip_in, forget_index

pytestmark = [pytest.mark.slow]

P = "/api/v1"
LOG = Path(BLOCKS).parent
SETS = 24


class Kept(NamedTuple):
    """A workshop that has ended: its data, its log as it was earlier, and the last sequence then and now."""

    data: Path
    earlier: Path
    then: int
    last: int

    def of(self, number: int) -> int:
        """The sequence of the data set with this number."""
        return self.last - SETS + 1 + number


def write(house: House, numbers: range) -> int:
    """Data sets; the sequence of the last one."""
    with house.http() as http:
        made = [http.post(f"{P}/datasets", json={"name": f"set {number:02}"}).raise_for_status() for number in numbers]
    return int(made[-1].headers["Loratory-Seq"])


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kept]:
    home = tmp_path_factory.mktemp("kept")
    house = House(home / "data", workers=False)
    try:
        house.start()
        then = write(house, range(SETS // 2))
        house.stop()
        shutil.copytree(house.data / "nats" / LOG, home / "earlier")
        house.start()
        last = write(house, range(SETS // 2, SETS))
    finally:
        house.stop()
    yield Kept(house.data, home / "earlier", then, last)


@pytest.fixture
def data(kept: Kept, tmp_path: Path) -> Path:
    """A copy that may be harmed."""
    shutil.copytree(kept.data, tmp_path / "data")
    return tmp_path / "data"


def flip(kept: Kept, nats: Path) -> tuple[int, int]:
    flip_in(blocks(nats)[0], b'"name":"set 20"')
    return kept.of(20), 1


def flip_after_a_crash(kept: Kept, nats: Path) -> tuple[int, int]:
    flip(kept, nats)
    forget_index(nats)
    return kept.of(20), SETS - 20


def truncate(kept: Kept, nats: Path) -> tuple[int, int]:
    cut(blocks(nats)[0], b'"name":"set 20"')
    return kept.of(20), SETS - 20


def go_back(kept: Kept, nats: Path) -> tuple[int, int]:
    shutil.rmtree(nats / LOG)
    shutil.copytree(kept.earlier, nats / LOG)
    return kept.then + 1, kept.last - kept.then


def delete(kept: Kept, nats: Path) -> tuple[int, int]:
    delete_log(nats)
    return 1, kept.last


@pytest.mark.parametrize("harm", [flip, flip_after_a_crash, truncate, go_back, delete])
def test_it_is_refused_at_the_start_with_what_is_missing_and_since_when(
    kept: Kept, data: Path, harm: Callable[[Kept, Path], tuple[int, int]]
) -> None:
    first, missing = harm(kept, data / "nats")

    refused = cli("up", "--data", data, "--port", "0", "--no-tagger", "--no-trainer", timeout=60)

    assert refused.returncode == 1
    assert "Loratory is at" not in refused.stdout
    counted = f"of {kept.last} archived commits {missing} are missing and 0 changed, from commit {first} on"
    assert counted in refused.stderr
    assert first == 1 or f"the last good one is commit {first - 1} of 20" in refused.stderr
    assert "`loratory restore` puts them back" in refused.stderr

    asked = cli("audit", "verify", "--data", data, timeout=60)
    assert asked.returncode == 1
    assert f"log missing from commit {first} on: " in asked.stdout
    assert counted in asked.stdout


def test_a_byte_of_the_archive_is_found_by_who_asks_the_running_workshop_and_at_the_next_start(
    kept: Kept, data: Path
) -> None:
    house = House(data, workers=False)
    try:
        house.start()
        assert cli("audit", "verify", "--url", house.address).stdout.endswith("history is whole\n")
        flip_in(data / "catalog" / "archive.db", b'"name":"set 05"')
        asked = cli("audit", "verify", "--url", house.address)
    finally:
        house.stop()
    assert asked.returncode == 1
    assert f"archive changed from commit {kept.of(5)} on: " in asked.stdout

    refused = cli("up", "--data", data, "--port", "0", "--no-tagger", "--no-trainer", timeout=60)
    assert refused.returncode == 1
    assert f"commit {kept.of(5)} of the archive" in refused.stderr


def test_a_log_that_goes_back_while_the_workshop_runs_ends_it_before_anything_is_written(
    kept: Kept, data: Path
) -> None:
    house = House(data, workers=False)
    try:
        house.start()
        up = house._process
        assert up is not None
        up.send_signal(signal.SIGSTOP)  # or it would start the server again before the files are changed
        os.kill(house.pid("nats"), signal.SIGKILL)
        go_back(kept, data / "nats")
        up.send_signal(signal.SIGCONT)
        assert up.wait(60) == 1
        assert f"the log ends at {kept.then}, but commits up to {kept.last} were read from it" in house.said
        assert f"the last good one is commit {kept.then} of 20" in house.said
    finally:
        house.stop()
    asked = cli("audit", "verify", "--data", data, timeout=60)
    assert f"log missing from commit {kept.then + 1} on: " in asked.stdout
