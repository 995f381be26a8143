"""`loratory demo`, whole, with the user's pictures: what a newcomer sees first."""

import asyncio
import hashlib
import os
import re
import signal
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.loratory.processes import nobody_left, of_folder

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")]


async def demo(data: Path, steps: int, *options: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "loratory", "demo", "--data", str(data), "--steps", str(steps), *options),
        env={**os.environ, "OMP_NUM_THREADS": "2"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def test_it_ends_with_a_lora_and_says_where_it_lies(tmp_path: Path, pictures: Path) -> None:
    data = tmp_path / "data"
    process = await demo(data, 2, "--no-serve", "--images", str(pictures))
    out, error = await process.communicate()
    said = out.decode()
    assert (process.returncode, error) == (0, b""), said
    assert "3 pictures imported, 1 there already, 1 refused, 1 captions read, 1 other files passed over" in said
    assert "3 pictures tagged by demo: " in said
    (lora,) = [line.split(": ", 1)[1] for line in said.splitlines() if line.startswith("LoRA (kohya): ")]
    assert Path(lora).parent == data / "loras"
    assert f"sha256 {hashlib.sha256(Path(lora).read_bytes()).hexdigest()}" in said
    assert "recognised" not in said
    assert f"sheet: {data}/sheet.png" in said
    with Image.open(data / "sheet.png") as sheet:
        assert sheet.width == 2 * 48 + 3 * 192 + 2 * 16  # three captions are asked where nobody named prompts
    assert of_folder(data) == []


async def test_of_drawn_pictures_it_says_how_often_the_creature_was_recognised(tmp_path: Path) -> None:
    data = tmp_path / "data"
    process = await demo(data, 2, "--no-serve", "--port", "0", "--seed", "3")
    out, error = await process.communicate()
    said = out.decode()
    assert (process.returncode, error) == (0, b""), said
    assert "12 pictures imported, 0 there already, 0 refused, 12 captions read" in said
    (sentence,) = [line for line in said.splitlines() if "recognised" in line]
    assert re.fullmatch(
        r"momo was recognised in \d of 5 pictures before, in \d of 5 with the LoRA, after \d+ s of training", sentence
    )
    assert (data / "sheet-3.png").read_bytes() == (data / "loras" / "demo-3.png").read_bytes()
    with Image.open(data / "sheet-3.png") as sheet:
        assert sheet.width == 2 * 48 + 5 * 192 + 4 * 16


async def test_killed_while_it_trains_it_leaves_nobody_not_even_the_trainers_child(tmp_path: Path) -> None:
    data = tmp_path / "data"
    process = await demo(data, 100_000, "--port", "0", "--preset", "stand-in-demo")
    assert process.stdout is not None
    async with asyncio.timeout(240):
        while line := (await process.stdout.readline()).decode():
            if line.startswith("training"):
                break
    assert len(of_folder(data)) >= 7  # itself, nats, four services, the engine
    process.send_signal(signal.SIGKILL)
    await process.communicate()
    assert await nobody_left(data)
