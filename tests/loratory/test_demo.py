"""`loratory demo` from start to end, with the user's images and with drawn ones."""

import asyncio
import hashlib
import os
import re
import signal
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.loratory.processes import processes_of, wait_all_ended

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


async def demo(data: Path, steps: int, *options: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "loratory", "demo", "--data", str(data), "--steps", str(steps), *options),
        env={**os.environ, "OMP_NUM_THREADS": "2"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


@pytest.mark.slow
async def test_it_ends_with_a_lora_and_prints_its_path(tmp_path: Path, image_folder: Path) -> None:
    data = tmp_path / "data"
    process = await demo(data, 2, "--no-serve", "--images", str(image_folder))
    out, error = await process.communicate()
    output = out.decode()
    assert (process.returncode, error) == (0, b""), output
    assert (
        "3 images imported, 1 already present, 1 skipped, 0 texts read as tags, 1 as captions, 1 other file ignored"
        in output
    )
    assert "3 images tagged by demo: " in output
    (lora,) = [line.split(": ", 1)[1] for line in output.splitlines() if line.startswith("LoRA (kohya): ")]
    assert Path(lora).parent == data / "loras"
    assert f"sha256 {hashlib.sha256(Path(lora).read_bytes()).hexdigest()}" in output
    assert "recognised" not in output
    assert f"sheet: {data}/sheet.png" in output
    with Image.open(data / "sheet.png") as sheet:
        assert sheet.width == 2 * 48 + 3 * 192 + 2 * 16  # without prompts, three captions are sampled
    assert processes_of(data) == []


@pytest.mark.slow
async def test_with_drawn_images_it_prints_how_often_the_creature_was_recognised(tmp_path: Path) -> None:
    data = tmp_path / "data"
    process = await demo(data, 2, "--no-serve", "--port", "0", "--seed", "3")
    out, error = await process.communicate()
    output = out.decode()
    assert (process.returncode, error) == (0, b""), output
    assert "12 images imported, 0 already present, 0 skipped, 12 texts read as tags" in output
    (sentence,) = [line for line in output.splitlines() if "recognised" in line]
    assert re.fullmatch(
        r"momo was recognised in \d of 5 pictures before, in \d of 5 with the LoRA, after \d+ s of training", sentence
    )
    assert (data / "sheet-3.png").read_bytes() == (data / "loras" / "demo-3.png").read_bytes()
    with Image.open(data / "sheet-3.png") as sheet:
        assert sheet.width == 2 * 48 + 5 * 192 + 4 * 16


@pytest.mark.slow
async def test_killed_while_training_it_leaves_no_processes_not_even_the_engine(tmp_path: Path) -> None:
    data = tmp_path / "data"
    process = await demo(data, 100_000, "--port", "0", "--preset", "tiny-random-demo")
    assert process.stdout is not None
    async with asyncio.timeout(240):
        while line := (await process.stdout.readline()).decode():
            if line.startswith("training"):
                break
    assert len(processes_of(data)) >= 7  # itself, nats, four services, the engine
    process.send_signal(signal.SIGKILL)
    await process.communicate()
    assert await wait_all_ended(data)
