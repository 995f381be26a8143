"""The pool enforces its limits: a file that hangs, grows too large or crashes its decoder affects no other file.

A decoder stopped by SIGSTOP plays the one that hangs: it waits without using CPU time.
"""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import msgspec
import pytest
from PIL import Image

from catalog.ingest.decoder_messages import REQUESTS, RULES, Examine
from catalog.ingest.outcomes import Accepted, Limits, Refused
from catalog.ingest.pool import Decoder
from contracts.errors import Unavailable
from tests.limits import WAIT

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc and named pipes")


@pytest.fixture
def valid_picture(tmp_path: Path) -> Path:
    path = tmp_path / "good.png"
    Image.new("RGB", (64, 64), "green").save(path)
    return path


@pytest.fixture(scope="module")
def noise(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("noise") / "noise.bmp"
    Image.effect_noise((4200, 4200), 90).convert("RGB").save(path)
    return path


@pytest.fixture
def slow_picture(noise: Path, tmp_path: Path) -> Path:
    """Seconds of CPU time, most of them for the PNG that replaces it."""
    path = tmp_path / "slow.bmp"
    path.hardlink_to(noise)
    return path


def running_decoders() -> set[int]:
    """Process ids of the running decoders that this process started."""
    found = set()
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            command = (entry / "cmdline").read_bytes()
        except OSError:
            continue  # it ended meanwhile
        if parent == os.getpid() and b"catalog.ingest.decoder" in command:
            found.add(int(entry.name))
    return found


@asynccontextmanager
async def stopped_decoder() -> AsyncIterator[int]:
    """The process id of the only decoder, which is stopped until this context ends, if it lives then."""
    child = running_decoders().pop()
    os.kill(child, signal.SIGSTOP)
    yield child
    with suppress(ProcessLookupError):
        os.kill(child, signal.SIGCONT)


async def busy_decoder(seconds: float) -> int:
    """The process id of the only decoder, once it has used so much CPU time."""
    while True:
        for child in running_decoders():
            if cpu_seconds(child) > seconds:
                return child
        await asyncio.sleep(0.01)


def cpu_seconds(child: int) -> float:
    try:
        fields = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def kill(child: int) -> None:
    os.kill(child, signal.SIGKILL)
    while not has_ended(child):  # noqa: ASYNC110  another object owns the child process
        await asyncio.sleep(0.01)


def has_ended(child: int) -> bool:
    """Whether the process has exited and closed its files.

    `running_decoders` cannot tell: a dying process loses its command line before its files are closed.
    """
    try:
        return Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0] in {"Z", "X"}
    except OSError:
        return True


async def test_children_start_on_demand_are_reused_and_end_with_the_pool(valid_picture: Path) -> None:
    async with Decoder(Limits()) as decoder:
        assert running_decoders() == set()
        await decoder.examine(valid_picture, into=valid_picture.parent)
        first = running_decoders()
        assert len(first) == 1
        await decoder.examine(valid_picture, into=valid_picture.parent)
        assert running_decoders() == first
        await asyncio.gather(*(decoder.examine(valid_picture, into=valid_picture.parent) for _ in range(10)))
        assert len(running_decoders()) == 2
    assert running_decoders() == set()


@pytest.mark.slow
async def test_a_file_that_takes_too_much_cpu_time_is_refused_and_others_are_not_affected(
    valid_picture: Path, slow_picture: Path
) -> None:
    async with Decoder(Limits(cpu_seconds=0.3, cpu_seconds_per_mb=0)) as decoder:
        paths = [slow_picture, valid_picture, valid_picture, slow_picture, valid_picture]
        outcomes = await asyncio.gather(*(decoder.examine(path, into=valid_picture.parent) for path in paths))
    assert [type(outcome) for outcome in outcomes] == [Refused, Accepted, Accepted, Refused, Accepted]
    assert outcomes[0] == Refused(
        reason="took-too-long", detail="decoding it took more CPU time than a file of its size may"
    )


@pytest.mark.slow
async def test_a_larger_file_may_take_more_cpu_time(slow_picture: Path) -> None:
    async with Decoder(Limits(cpu_seconds=0.3), workers=1) as decoder:
        assert isinstance(await decoder.examine(slow_picture, into=slow_picture.parent), Accepted)


async def test_time_in_which_the_decoder_waits_for_the_machine_does_not_count(valid_picture: Path) -> None:
    async with Decoder(Limits(cpu_seconds=0.5), workers=1) as decoder:
        await decoder.examine(valid_picture, into=valid_picture.parent)
        async with stopped_decoder():
            outcome = asyncio.create_task(decoder.examine(valid_picture, into=valid_picture.parent))
            await asyncio.sleep(1.0)  # twice the CPU time it may take
            assert not outcome.done()
        assert isinstance(await outcome, Accepted)


@pytest.mark.slow
async def test_a_decoder_that_hangs_is_replaced(valid_picture: Path) -> None:
    async with Decoder(Limits(hang_seconds=2), workers=1) as decoder:
        await decoder.examine(valid_picture, into=valid_picture.parent)
        async with stopped_decoder():
            outcome = await decoder.examine(valid_picture, into=valid_picture.parent)
        assert outcome == Refused(reason="took-too-long", detail="decoding it did not end within 2 seconds")
        assert isinstance(await decoder.examine(valid_picture, into=valid_picture.parent), Accepted)


@pytest.mark.slow
async def test_a_file_that_takes_too_much_memory_is_refused(valid_picture: Path) -> None:
    large = valid_picture.with_name("large.png")
    Image.new("L", (8000, 8000)).save(large)
    async with Decoder(Limits(memory_bytes=100 << 20), workers=1) as decoder:
        outcome = await decoder.examine(large, into=valid_picture.parent)
        assert isinstance(outcome, Refused)
        assert outcome.reason == "too-much-memory"
        assert isinstance(await decoder.examine(valid_picture, into=valid_picture.parent), Accepted)


async def test_a_child_killed_while_idle_is_replaced(valid_picture: Path) -> None:
    async with Decoder(Limits(), workers=1) as decoder:
        await decoder.examine(valid_picture, into=valid_picture.parent)
        await kill(running_decoders().pop())
        assert isinstance(await decoder.examine(valid_picture, into=valid_picture.parent), Accepted)


async def test_a_file_is_retried_after_its_child_was_killed_once(valid_picture: Path) -> None:
    async with Decoder(Limits(), workers=1) as decoder:
        await decoder.examine(valid_picture, into=valid_picture.parent)
        async with stopped_decoder() as child:
            outcome = asyncio.create_task(decoder.examine(valid_picture, into=valid_picture.parent))
            await asyncio.sleep(0)
            await kill(child)
        assert isinstance(await outcome, Accepted)


@pytest.mark.slow
async def test_a_file_that_crashes_two_children_is_refused(valid_picture: Path, slow_picture: Path) -> None:
    async with Decoder(Limits(), workers=1) as decoder:
        outcome = asyncio.create_task(decoder.examine(slow_picture, into=valid_picture.parent))
        for _ in range(2):
            await kill(await busy_decoder(0.6))  # it starts within 0.2 s
        assert await outcome == Refused(reason="decoder-crashed", detail="decoding it crashed the decoder")
        assert isinstance(await decoder.examine(valid_picture, into=valid_picture.parent), Accepted)


async def test_a_cancelled_call_ends_its_child(valid_picture: Path) -> None:
    async with Decoder(Limits(), workers=1) as decoder:
        await decoder.examine(valid_picture, into=valid_picture.parent)
        async with stopped_decoder():
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(decoder.examine(valid_picture, into=valid_picture.parent), timeout=0.2)
        assert running_decoders() == set()
        assert isinstance(await decoder.examine(valid_picture, into=valid_picture.parent), Accepted)


async def test_a_missing_file_or_folder_is_an_error_not_a_refusal(valid_picture: Path) -> None:
    async with Decoder(Limits(), workers=1) as decoder:
        with pytest.raises(FileNotFoundError):
            await decoder.examine(valid_picture.with_name("gone"), into=valid_picture.parent)
        with pytest.raises(FileNotFoundError):
            await decoder.examine(valid_picture, into=valid_picture.parent / "no" / "such" / "folder")
        assert isinstance(await decoder.examine(valid_picture, into=valid_picture.parent), Accepted)


async def test_a_decoder_that_cannot_start_is_unavailable(valid_picture: Path) -> None:
    async with Decoder(Limits(memory_bytes=1), workers=1) as decoder:
        with pytest.raises(Unavailable):
            await decoder.examine(valid_picture, into=valid_picture.parent)


async def test_a_closed_decoder_starts_no_child(valid_picture: Path) -> None:
    async with Decoder(Limits(), workers=1) as decoder:
        pass
    with pytest.raises(Unavailable):
        await decoder.examine(valid_picture, into=valid_picture.parent)


def start_decoder(limits: Limits) -> "subprocess.Popen[bytes]":
    program = [sys.executable, "-m", "catalog.ingest.decoder", msgspec.json.encode(limits).decode()]
    return subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def test_a_child_ends_when_its_pipe_closes() -> None:
    with start_decoder(Limits()) as child:
        child.communicate(timeout=WAIT)
        assert child.returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("limits", "signal_number"),
    [
        (Limits(cpu_seconds=0.05, cpu_seconds_per_mb=0), signal.SIGPROF),
        (Limits(hang_seconds=0.01, cpu_seconds=99), signal.SIGALRM),  # a second more: the parent is to notice first
    ],
)
def test_a_child_ends_at_its_limits_even_without_a_parent(
    slow_picture: Path, limits: Limits, signal_number: int
) -> None:
    request = Examine(
        source=str(slow_picture),
        picture=str(slow_picture) + ".p",
        thumbnail=str(slow_picture) + ".t",
        cut=str(slow_picture) + ".c",
        rules=RULES,
    )
    with start_decoder(limits) as child:
        child.communicate(REQUESTS.encode(request), timeout=WAIT)
        assert child.returncode == -signal_number
