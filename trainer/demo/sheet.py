"""What a LoRA has learnt, at one look: what it was shown, what the base drew without it, what it draws with it.

`python -m trainer.demo.sheet FILE` reads from its input which pictures to lay (`Asked`, as JSON), writes the sheet as a
PNG and says as one line of JSON what was found: `{"sentence": …, "before": …, "after": …}`. Of a concept of the demo
world it counts the pictures that show it; of anything else nothing is said. Needs no torch.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
from PIL import Image, ImageDraw, ImageFont, ImageOps

from trainer.demo.world.concepts import CONCEPTS
from trainer.demo.world.scoring import Recogniser

_TILE = 192
"""Pixels of a picture's side on the sheet: three for one of the demo world's."""
_GAP, _MARGIN, _CAPTION, _ROUND = 16, 48, 40, 10
_LEAST = 3
"""Columns that a caption needs room for."""
_PAPER, _INK, _PALE = "#faf8f4", "#2b2830", "#8d8791"
_FINE = 4
"""Corners are cut out of a mask so many times as large, or they would show steps."""


_MOST = 1 << 20
"""Bytes of what is asked."""


class Asked(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Pictures as files: some of the data set (which has `of`), those of the base, those of the LoRA in the same order.

    `prompts` in that order too. `concept`: one of the demo world's, to be recognised; "" = nothing is judged.
    `seconds` the training took.
    """

    shown: list[str]
    of: int
    before: list[str]
    after: list[str]
    prompts: list[str] = []
    concept: str = ""
    seconds: float | None = None

    def __post_init__(self) -> None:
        if not self.shown or not self.after or len(self.before) != len(self.after):
            raise ValueError("there must be pictures, and as many before as after")
        if self.concept and self.concept not in CONCEPTS:
            raise ValueError(f"there is no concept {self.concept!r}; there are: {', '.join(CONCEPTS)}")


@dataclass(frozen=True)
class Row:
    """Pictures under their caption; `found` stands at its right end."""

    title: str
    about: str
    pictures: Sequence[Image.Image]
    found: str = ""


@dataclass(frozen=True)
class Found:
    """How many of the `asked` pictures show the concept."""

    concept: str
    asked: int
    before: int
    after: int

    def sentence(self, seconds: float | None) -> str:
        took = f", after {seconds:.0f} s of training" if seconds else ""
        share = f"in {self.before} of {self.asked} pictures before, in {self.after} of {self.asked} with the LoRA"
        return f"{self.concept} was recognised {share}{took}"


def judged(concept: str, before: Sequence[Image.Image], after: Sequence[Image.Image]) -> Found:
    """By a judge that has seen neither the base nor the LoRA; as many pictures before as after."""
    judge = Recogniser(CONCEPTS[concept])
    counts = [sum(judge.knows(picture) for picture in pictures) for pictures in (before, after)]
    return Found(concept, len(after), *counts)


def sheet(rows: Sequence[Row], *, title: str = "", prompts: Sequence[str] = ()) -> Image.Image:
    """The rows one below the other, at the bottom of each column what was asked for it."""
    columns = max(_LEAST, *(len(row.pictures) for row in rows))
    across = columns * _TILE + (columns - 1) * _GAP
    asked = [_wrapped(prompt, _font(13), _TILE) for prompt in prompts[:columns]]
    top = _MARGIN + (48 if title else 0)
    high = top + len(rows) * (_CAPTION + _TILE + _GAP) + 19 * max(map(len, asked), default=0) + _MARGIN - _GAP
    whole = Image.new("RGB", (across + 2 * _MARGIN, high), _PAPER)
    pen = ImageDraw.Draw(whole)
    pen.text((_MARGIN, _MARGIN - 8), title, _INK, _fitting(title, across), "lt")
    for row in rows:
        _lay(whole, pen, row, top, across)
        top += _CAPTION + _TILE + _GAP
    for place, lines in enumerate(asked):
        for number, line in enumerate(lines):
            at = _MARGIN + place * (_TILE + _GAP), top - _GAP + 10 + 19 * number
            pen.text(at, line, _PALE, _font(13), "lt")
    return whole


def _lay(whole: Image.Image, pen: ImageDraw.ImageDraw, row: Row, top: int, across: int) -> None:
    line = top + _CAPTION - 14
    pen.text((_MARGIN, line), row.title, _INK, _font(17), "ls")
    pen.text((_MARGIN + 12 + pen.textlength(row.title, _font(17)), line), row.about, _PALE, _font(15), "ls")
    pen.text((_MARGIN + across, line), row.found, _INK, _font(17), "rs")
    for place, picture in enumerate(row.pictures):
        tile = _tile(picture)
        whole.paste(tile, (_MARGIN + place * (_TILE + _GAP), top + _CAPTION), _corners())


def _tile(picture: Image.Image) -> Image.Image:
    """A small picture enlarged pixel by pixel, a large one scaled down and cut to a square."""
    times = _TILE // max(picture.size)
    if not times:
        return ImageOps.fit(picture, (_TILE, _TILE), Image.Resampling.LANCZOS)
    enlarged = picture.resize((picture.width * times, picture.height * times), Image.Resampling.NEAREST)
    return ImageOps.pad(enlarged, (_TILE, _TILE), color="white") if enlarged.size != (_TILE, _TILE) else enlarged


def _corners() -> Image.Image:
    mask = Image.new("L", (_TILE * _FINE, _TILE * _FINE))
    ImageDraw.Draw(mask).rounded_rectangle((0, 0, _TILE * _FINE - 1, _TILE * _FINE - 1), _ROUND * _FINE, fill=255)
    return mask.reduce(_FINE)


def _font(size: int) -> ImageFont.FreeTypeFont:
    """The one that comes with Pillow."""
    font = ImageFont.load_default(size)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise TypeError("this Pillow was built without FreeType")
    return font


def _fitting(title: str, wide: int) -> ImageFont.FreeTypeFont:
    """As large as one line of it may be."""
    return next((font for size in range(24, 9, -1) if (font := _font(size)).getlength(title) <= wide), _font(9))


def _wrapped(text: str, font: ImageFont.FreeTypeFont, wide: int) -> list[str]:
    """Two lines of words at most, the rest cut off."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= wide or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines if len(lines) < 3 else [lines[0], f"{lines[1].rstrip(',')} …"]


def _rows(asked: Asked, before: list[Image.Image], after: list[Image.Image], found: Found | None) -> list[Row]:
    shown = [_opened(path) for path in asked.shown]
    number = f"{len(shown)} of the {asked.of} pictures" if asked.of > len(shown) else f"the {len(shown)} pictures"
    without, with_it = (f"{found.before} of {found.asked}", f"{found.after} of {found.asked}") if found else ("", "")
    return [
        Row(asked.concept or "shown", f"{number} the LoRA has learnt from", shown),
        Row("before", "what the base draws", before, without),
        Row("after", "the same words and seeds, with the LoRA", after, with_it),
    ]


def _opened(path: str) -> Image.Image:
    with Image.open(path) as picture:
        return picture.convert("RGB")


def main() -> None:
    said = argparse.ArgumentParser(prog="python -m trainer.demo.sheet", description=__doc__)
    said.add_argument("file", type=Path)
    file = said.parse_args().file
    asked = msgspec.json.decode(sys.stdin.buffer.read(_MOST), type=Asked)
    before, after = ([_opened(path) for path in paths] for paths in (asked.before, asked.after))
    found = judged(asked.concept, before, after) if asked.concept else None
    sentence = found.sentence(asked.seconds) if found else ""
    sheet(_rows(asked, before, after, found), title=sentence, prompts=asked.prompts).save(file)
    counts = {"before": found.before, "after": found.after} if found else {}
    print(json.dumps({"sentence": sentence, **counts}))  # noqa: T201 - for who started it


if __name__ == "__main__":
    main()
