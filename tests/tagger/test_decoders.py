"""The processes that read pictures for the tagger."""

import asyncio
import os
import signal
from pathlib import Path

import pytest
from PIL import Image

from tagger.wd.decoder import read
from tagger.wd.decoder_messages import Read, Square, Unreadable
from tagger.wd.decoders import Decoders
from tests.limits import WAIT


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"{number}.jpg" for number in range(12)]
    for number, path in enumerate(paths):
        Image.new("RGB", (60 + number, 50), (number * 20, 80, 90)).save(path)
    return paths


async def test_pictures_are_read_at_once_as_one_after_the_other(pictures: list[Path]) -> None:
    pictures[3].write_bytes(b"no picture")
    async with Decoders(2) as decoders:
        squares = await asyncio.gather(*(decoders.read(path, 448) for path in pictures))
    assert squares == [read(Read(str(path), 448)) for path in pictures]
    assert [isinstance(square, Square) for square in squares] == [number != 3 for number in range(12)]
    assert squares[3] == Unreadable("the picture cannot be read (UnidentifiedImageError)")


async def test_a_picture_that_ends_its_process_twice_is_unreadable_and_the_next_is_read(
    pictures: list[Path], tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "fifo")  # opening it waits
    async with Decoders(1) as decoders:
        assert isinstance(await decoders.read(pictures[0], 16), Square)
        reading = asyncio.create_task(decoders.read(tmp_path / "fifo", 16))
        killed: set[int] = set()
        async with asyncio.timeout(WAIT):
            while len(killed) < 2:
                for child in list(decoders._children):
                    if child.pid not in killed:
                        killed.add(child.pid)
                        os.kill(child.pid, signal.SIGKILL)
                await asyncio.sleep(0.01)
            result = await reading
        assert isinstance(result, Unreadable) and "too much memory or time" in result.reason
        assert isinstance(await decoders.read(pictures[1], 16), Square)


async def test_a_cancelled_read_does_not_answer_the_next_one(pictures: list[Path], tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    async with Decoders(1) as decoders:
        reading = asyncio.create_task(decoders.read(tmp_path / "fifo", 16))
        await asyncio.sleep(0.3)
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        assert await decoders.read(pictures[0], 16) == read(Read(str(pictures[0]), 16))
