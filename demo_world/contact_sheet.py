"""Contact sheet of a LoRA: training images, samples of the base model, and samples with the LoRA.

`python -m demo_world.contact_sheet FILE` reads a `SheetRequest` as JSON from stdin, writes the sheet as a PNG and
prints one line of JSON: `{"sentence": …, "before": …, "after": …}`. For a concept of the demo world it counts the
samples that show it; otherwise `sentence` is empty and the counts are missing. Needs no torch.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
from PIL import Image, ImageDraw, ImageFont, ImageOps

from contracts.pixels import on_white, to_upright_srgb
from demo_world.concepts import CONCEPTS
from demo_world.scoring import ConceptClassifier

_TILE = 192
"""Side of a picture on the sheet in pixels: three times the demo world's."""
_GAP, _MARGIN, _HEADING_HEIGHT, _CORNER_RADIUS = 16, 48, 40, 10
_LINE_HEIGHT = 19
_MIN_COLUMNS = 3
"""Minimum width of the sheet in columns, so that headings fit."""
_PAPER, _INK, _PALE = "#faf8f4", "#2b2830", "#8d8791"
_SUPERSAMPLING = 4
"""The mask of rounded corners is drawn this many times larger, for anti-aliasing."""
_MAX_REQUEST_BYTES = 1 << 20


class SheetRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Paths of the pictures: some of the data set's (`dataset_size` in all), base samples, LoRA samples in equal order.

    `prompts`: in the order of the samples. `concept`: a concept of the demo world to recognise; "" = no scoring.
    `seconds`: duration of the training.
    """

    training_images: list[str]
    dataset_size: int
    before: list[str]
    after: list[str]
    prompts: list[str] = []
    concept: str = ""
    seconds: float | None = None

    def __post_init__(self) -> None:
        if not self.training_images or not self.after or len(self.before) != len(self.after):
            raise ValueError("there must be pictures, and as many before as after")
        if self.concept and self.concept not in CONCEPTS:
            raise ValueError(f"there is no concept {self.concept!r}; available: {', '.join(CONCEPTS)}")


@dataclass(frozen=True)
class PictureRow:
    """A row of pictures with its heading: title and subtitle on the left, `score` on the right."""

    title: str
    subtitle: str
    pictures: Sequence[Image.Image]
    score: str = ""


@dataclass(frozen=True)
class RecognitionCounts:
    """How many of the `samples` pictures show the concept, before and after training."""

    concept: str
    samples: int
    before: int
    after: int

    def sentence(self, seconds: float | None) -> str:
        duration = f", after {seconds:.0f} s of training" if seconds else ""
        counts = f"in {self.before} of {self.samples} pictures before, in {self.after} of {self.samples} with the LoRA"
        return f"{self.concept} was recognised {counts}{duration}"


def count_recognised(
    classifier: ConceptClassifier, before: Sequence[Image.Image], after: Sequence[Image.Image]
) -> RecognitionCounts:
    """Count the pictures that show the classifier's concept; `before` and `after` have the same length."""
    counts = [sum(classifier.matches(picture) for picture in pictures) for pictures in (before, after)]
    return RecognitionCounts(classifier.concept, len(after), *counts)


def draw_contact_sheet(rows: Sequence[PictureRow], *, title: str = "", prompts: Sequence[str] = ()) -> Image.Image:
    """Draw the rows below each other, and below each column its prompt."""
    columns = max(_MIN_COLUMNS, *(len(row.pictures) for row in rows))
    width = columns * _TILE + (columns - 1) * _GAP
    prompt_lines = [_wrap(f"Prompt: {prompt}", _font(13), _TILE) for prompt in prompts[:columns]]
    top = _MARGIN + (48 if title else 0)
    prompts_height = _LINE_HEIGHT * max(map(len, prompt_lines), default=0)
    height = top + len(rows) * (_HEADING_HEIGHT + _TILE + _GAP) + prompts_height + _MARGIN - _GAP
    sheet = Image.new("RGB", (width + 2 * _MARGIN, height), _PAPER)
    pen = ImageDraw.Draw(sheet)
    pen.text((_MARGIN, _MARGIN - 8), title, _INK, _fitting_font(title, width), "lt")
    for row in rows:
        _draw_row(sheet, pen, row, top, width)
        top += _HEADING_HEIGHT + _TILE + _GAP
    for column, lines in enumerate(prompt_lines):
        for number, line in enumerate(lines):
            position = _MARGIN + column * (_TILE + _GAP), top - _GAP + 10 + _LINE_HEIGHT * number
            pen.text(position, line, _PALE, _font(13), "lt")
    return sheet


def _draw_row(sheet: Image.Image, pen: ImageDraw.ImageDraw, row: PictureRow, top: int, width: int) -> None:
    baseline = top + _HEADING_HEIGHT - 14
    pen.text((_MARGIN, baseline), row.title, _INK, _font(17), "ls")
    pen.text((_MARGIN + 12 + pen.textlength(row.title, _font(17)), baseline), row.subtitle, _PALE, _font(15), "ls")
    pen.text((_MARGIN + width, baseline), row.score, _INK, _font(17), "rs")
    for column, picture in enumerate(row.pictures):
        tile = _to_tile(picture)
        sheet.paste(tile, (_MARGIN + column * (_TILE + _GAP), top + _HEADING_HEIGHT), _rounded_mask())


def _to_tile(picture: Image.Image) -> Image.Image:
    """Enlarge a small picture by an integer factor; scale a large one down and crop it to a square."""
    factor = _TILE // max(picture.size)
    if not factor:
        return ImageOps.fit(picture, (_TILE, _TILE), Image.Resampling.LANCZOS)
    enlarged = picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
    return ImageOps.pad(enlarged, (_TILE, _TILE), color="white") if enlarged.size != (_TILE, _TILE) else enlarged


def _rounded_mask() -> Image.Image:
    side = _TILE * _SUPERSAMPLING
    mask = Image.new("L", (side, side))
    ImageDraw.Draw(mask).rounded_rectangle((0, 0, side - 1, side - 1), _CORNER_RADIUS * _SUPERSAMPLING, fill=255)
    return mask.reduce(_SUPERSAMPLING)


def _font(size: int) -> ImageFont.FreeTypeFont:
    """Pillow's built-in font."""
    font = ImageFont.load_default(size)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise TypeError("this Pillow was built without FreeType")
    return font


def _fitting_font(title: str, width: int) -> ImageFont.FreeTypeFont:
    """The largest font in which the title fits on one line."""
    return next((font for size in range(24, 9, -1) if (font := _font(size)).getlength(title) <= width), _font(9))


def _wrap(text: str, font: ImageFont.FreeTypeFont, width: int) -> list[str]:
    """Wrap the text to at most two lines; the rest is cut off."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= width or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines if len(lines) < 3 else [lines[0], f"{lines[1].rstrip(',')} …"]


def _build_rows(
    request: SheetRequest, before: list[Image.Image], after: list[Image.Image], counts: RecognitionCounts | None
) -> list[PictureRow]:
    training_images = [_open_picture(path) for path in request.training_images]
    shown, total = len(training_images), request.dataset_size
    subtitle = ", ".join(each for each in (request.concept, f"{shown} of {total}" if total > shown else "") if each)
    before_score = f"{counts.before} of {counts.samples}" if counts else ""
    after_score = f"{counts.after} of {counts.samples}" if counts else ""
    return [
        PictureRow("Training images", subtitle, training_images),
        PictureRow("Base model", "", before, before_score),
        PictureRow("With the LoRA", "same prompts and seeds", after, after_score),
    ]


def _open_picture(path: str) -> Image.Image:
    with Image.open(path) as picture:
        return on_white(to_upright_srgb(picture)[0])


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m demo_world.contact_sheet", description=__doc__)
    parser.add_argument("file", type=Path)
    file = parser.parse_args().file
    request = msgspec.json.decode(sys.stdin.buffer.read(_MAX_REQUEST_BYTES), type=SheetRequest)
    before, after = ([_open_picture(path) for path in paths] for paths in (request.before, request.after))
    counts = count_recognised(ConceptClassifier(CONCEPTS[request.concept]), before, after) if request.concept else None
    sentence = counts.sentence(request.seconds) if counts else ""
    rows = _build_rows(request, before, after, counts)
    draw_contact_sheet(rows, title=sentence, prompts=request.prompts).save(file)
    numbers = {"before": counts.before, "after": counts.after} if counts else {}
    print(json.dumps({"sentence": sentence, **numbers}))  # noqa: T201 - read by the calling process


if __name__ == "__main__":
    main()
