"""The pool holds its limits: a file that hangs, bloats or kills its decoder costs nobody else anything.

A named pipe that nobody writes to stands for the picture that takes for ever.
"""

import asyncio
import errno
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
from PIL import Image

from catalog.ingest.frames import Examine, packed
from catalog.ingest.outcomes import Accepted, Limits, Refused
from catalog.ingest.pool import Decoder
from contracts.errors import Unavailable

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc and named pipes")


@pytest.fixture
def good(tmp_path: Path) -> Path:
    path = tmp_path / "good.png"
    Image.new("RGB", (64, 64), "green").save(path)
    return path


@pytest.fixture
def endless(tmp_path: Path) -> Path:
    path = tmp_path / "endless.png"
    os.mkfifo(path)
    return path


def children() -> set[int]:
    """The decoders that this process started and that still live."""
    found = set()
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            command = (entry / "cmdline").read_bytes()
        except OSError:
            continue  # it ended while we looked
        if parent == os.getpid() and b"catalog.ingest.decoder" in command:
            found.add(int(entry.name))
    return found


@asynccontextmanager
async def at_work_on(pipe: Path) -> AsyncIterator[int]:
    """The one child, once it reads from the pipe, which holds it until this ends."""
    while (end := writing_end(pipe)) is None:  # noqa: ASYNC110  a pipe tells nobody that it is read
        await asyncio.sleep(0.01)
    try:
        yield children().pop()
    finally:
        os.close(end)


def writing_end(pipe: Path) -> int | None:
    try:
        return os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
    except OSError as error:
        assert error.errno == errno.ENXIO, "nobody reads yet"
        return None


async def killed(child: int) -> None:
    os.kill(child, signal.SIGKILL)
    while not ended(child):  # noqa: ASYNC110  it is not our child to wait for
        await asyncio.sleep(0.01)


def ended(child: int) -> bool:
    """Also its files are closed: a process that dies has lost its command line before, and is none of `children`."""
    try:
        return Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0] in {"Z", "X"}
    except OSError:
        return True


async def test_children_start_when_needed_are_used_again_and_end_with_the_pool(good: Path) -> None:
    async with Decoder(Limits()) as decoder:
        assert children() == set()
        await decoder.examine(good, into=good.parent)
        first = children()
        assert len(first) == 1
        await decoder.examine(good, into=good.parent)
        assert children() == first
        await asyncio.gather(*(decoder.examine(good, into=good.parent) for _ in range(10)))
        assert len(children()) == 2
    assert children() == set()


async def test_a_file_that_takes_for_ever_is_refused_and_the_others_go_on(good: Path, endless: Path) -> None:
    async with Decoder(Limits(seconds=0.5)) as decoder:
        paths = [endless, good, good, endless, good]
        outcomes = await asyncio.gather(*(decoder.examine(path, into=good.parent) for path in paths))
    assert [type(outcome) for outcome in outcomes] == [Refused, Accepted, Accepted, Refused, Accepted]
    assert outcomes[0] == Refused(reason="took-too-long", sentence="decoding it took longer than 0.5 seconds")


async def test_a_file_that_takes_too_much_memory_is_refused(good: Path) -> None:
    large = good.with_name("large.png")
    Image.new("L", (8000, 8000)).save(large)
    async with Decoder(Limits(memory_bytes=100 << 20), workers=1) as decoder:
        outcome = await decoder.examine(large, into=good.parent)
        assert isinstance(outcome, Refused)
        assert outcome.reason == "too-much-memory"
        assert isinstance(await decoder.examine(good, into=good.parent), Accepted)


async def test_a_child_killed_while_idle_costs_no_file(good: Path) -> None:
    async with Decoder(Limits(), workers=1) as decoder:
        await decoder.examine(good, into=good.parent)
        await killed(children().pop())
        assert isinstance(await decoder.examine(good, into=good.parent), Accepted)


async def test_a_child_killed_once_at_work_costs_no_file(good: Path, endless: Path) -> None:
    async with Decoder(Limits(), workers=1) as decoder:
        outcome = asyncio.create_task(decoder.examine(endless, into=good.parent))
        async with at_work_on(endless) as child:
            await killed(child)
        await asyncio.to_thread(endless.write_bytes, good.read_bytes())
        assert isinstance(await outcome, Accepted)


async def test_a_file_that_two_children_die_of_is_refused(good: Path, endless: Path) -> None:
    async with Decoder(Limits(), workers=1) as decoder:
        outcome = asyncio.create_task(decoder.examine(endless, into=good.parent))
        for _ in range(2):
            async with at_work_on(endless) as child:
                await killed(child)
        assert await outcome == Refused(reason="decoder-crashed", sentence="decoding it ended the decoder")
        assert isinstance(await decoder.examine(good, into=good.parent), Accepted)


async def test_a_caller_that_gives_up_takes_its_child_with_it(good: Path, endless: Path) -> None:
    async with Decoder(Limits(), workers=1) as decoder:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(decoder.examine(endless, into=good.parent), timeout=0.5)
        assert children() == set()
        assert isinstance(await decoder.examine(good, into=good.parent), Accepted)


async def test_a_missing_file_or_folder_is_an_error_and_no_refusal(good: Path) -> None:
    async with Decoder(Limits(), workers=1) as decoder:
        with pytest.raises(FileNotFoundError):
            await decoder.examine(good.with_name("gone"), into=good.parent)
        with pytest.raises(FileNotFoundError):
            await decoder.examine(good, into=good.parent / "no" / "such" / "folder")
        assert isinstance(await decoder.examine(good, into=good.parent), Accepted)


async def test_a_decoder_that_cannot_start_is_no_refusal(good: Path) -> None:
    async with Decoder(Limits(memory_bytes=1), workers=1) as decoder:
        with pytest.raises(Unavailable):
            await decoder.examine(good, into=good.parent)


async def test_a_closed_decoder_starts_nothing(good: Path) -> None:
    async with Decoder(Limits(), workers=1) as decoder:
        pass
    with pytest.raises(Unavailable):
        await decoder.examine(good, into=good.parent)


def decoder_alone(limits: Limits) -> "subprocess.Popen[bytes]":
    program = [sys.executable, "-m", "catalog.ingest.decoder", msgspec.json.encode(limits).decode()]
    return subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def test_a_child_ends_when_its_pipe_closes() -> None:
    with decoder_alone(Limits()) as child:
        child.communicate(timeout=30)
        assert child.returncode == 0


def test_a_child_that_hangs_ends_even_without_a_parent(endless: Path) -> None:
    request = Examine(source=str(endless), picture=str(endless) + ".p", thumbnail=str(endless) + ".t")
    with decoder_alone(Limits(seconds=0.1)) as child:
        child.communicate(packed(request), timeout=30)
        assert child.returncode == -signal.SIGALRM
