"""The demo world's own programs, run as children: one draws a creature, one judges and lays the sheet."""

import asyncio
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import msgspec

from contracts.errors import LoratoryError

T = TypeVar("T")

WITHIN = 120.0
"""Seconds a program may take."""


class Subject(msgspec.Struct, frozen=True, kw_only=True):
    """Who is on the drawn pictures: the trigger, too. `prompts` ask for it in other scenes."""

    concept: str = ""
    prompts: tuple[str, ...] = ()


class Compared(msgspec.Struct, frozen=True, kw_only=True):
    """Pictures for a sheet: some of the data set's (which has `of`), the base's, the LoRA's in the same order."""

    shown: list[str]
    of: int
    before: list[str]
    after: list[str]
    prompts: list[str]
    concept: str
    seconds: float | None


class Judged(msgspec.Struct, frozen=True, kw_only=True):
    """How many pictures show the concept, and that in a sentence; nothing where no concept was named."""

    sentence: str
    before: int | None = None
    after: int | None = None


async def draw(folder: Path, environ: Mapping[str, str], *, count: int, seed: int) -> Subject:
    """A creature in so many scenes, as pictures with captions in the folder."""
    arguments = (str(folder), "--count", str(count), "--seed", str(seed), "--trigger", "momo")
    return await _told(environ, Subject, "trainer.demo.pictures", *arguments)


async def lay_sheet(file: Path, compared: Compared, environ: Mapping[str, str]) -> Judged:
    """The sheet as a PNG, and what a judge says of it."""
    return await _told(environ, Judged, "trainer.demo.sheet", str(file), said=msgspec.json.encode(compared))


async def _told(environ: Mapping[str, str], answer: type[T], module: str, *arguments: str, said: bytes = b"") -> T:
    """What the program says, as JSON, when it has ended; LoratoryError with its last words when it fails."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", module, *arguments),
        env=dict(environ),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(WITHIN):
            told, complaints = await process.communicate(said)
    except TimeoutError as error:
        raise LoratoryError(f"{module} is not done after {WITHIN:g} s") from error
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        last = complaints.decode(errors="replace").strip().rpartition("\n")[2]
        raise LoratoryError(f"{module} failed: {last or f'exit code {process.returncode}'}")
    try:
        return msgspec.json.decode(told, type=answer)
    except msgspec.DecodeError as error:
        raise LoratoryError(f"{module} says what makes no sense: {error}") from error
