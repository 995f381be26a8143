"""The programs of the demo world, run as child processes: drawing a creature, and scoring the contact sheet."""

from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import msgspec

from contracts.errors import LoratoryError
from loratory.child import run_python

T = TypeVar("T")

PROGRAM_TIMEOUT_SECONDS = 120.0


class DrawnConcept(msgspec.Struct, frozen=True, kw_only=True):
    """The creature in the drawn images: `concept` is its trigger, `prompts` describe it in other scenes."""

    concept: str = ""
    prompts: tuple[str, ...] = ()


class SheetInput(msgspec.Struct, frozen=True, kw_only=True):
    """Image files of a contact sheet: some training images of `dataset_size`, base samples, LoRA samples."""

    training_images: list[str]
    dataset_size: int
    before: list[str]
    after: list[str]
    prompts: list[str]
    concept: str
    seconds: float | None


class SheetScore(msgspec.Struct, frozen=True, kw_only=True):
    """In how many samples the concept was recognised, also as a sentence; empty without a concept."""

    sentence: str
    before: int | None = None
    after: int | None = None


async def draw(folder: Path, environ: Mapping[str, str], *, count: int, seed: int) -> DrawnConcept:
    """Draw a creature in `count` scenes, as images with captions in the folder."""
    arguments = (str(folder), "--count", str(count), "--seed", str(seed), "--trigger", "momo")
    return await _run(environ, DrawnConcept, "demo_world.pictures", *arguments)


async def write_contact_sheet(file: Path, sheet: SheetInput, environ: Mapping[str, str]) -> SheetScore:
    """Write the contact sheet as a PNG and score it."""
    return await _run(environ, SheetScore, "demo_world.contact_sheet", str(file), stdin=msgspec.json.encode(sheet))


async def _run(environ: Mapping[str, str], output_type: type[T], module: str, *arguments: str, stdin: bytes = b"") -> T:
    """The program's JSON output; LoratoryError with the last line of its stderr if it fails."""
    try:
        output = await run_python(
            "-m", module, *arguments, timeout=PROGRAM_TIMEOUT_SECONDS, environ=environ, stdin=stdin
        )
        return msgspec.json.decode(output, type=output_type)
    except TimeoutError as error:
        raise LoratoryError(f"{module} has not ended after {PROGRAM_TIMEOUT_SECONDS:g} s") from error
    except LoratoryError as error:
        raise LoratoryError(f"{module} failed: {error}") from error
    except msgspec.DecodeError as error:
        raise LoratoryError(f"{module} printed unexpected output: {error}") from error
