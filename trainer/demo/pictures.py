"""Pictures the project draws itself: small creatures of coloured shapes, each with its exact tags. Needs no torch.

`python -m trainer.demo.pictures FOLDER --count 12 --seed 0 [--trigger WORD]` writes `000.png` and `000.txt`, …
"""

import argparse
import random
from collections.abc import Callable
from pathlib import Path

from PIL import Image, ImageDraw

Colour = tuple[int, int, int]

COLOURS: dict[str, Colour] = {
    "red": (214, 64, 58),
    "orange": (236, 140, 52),
    "yellow": (242, 203, 68),
    "green": (88, 168, 92),
    "blue": (70, 120, 204),
    "purple": (140, 90, 188),
    "pink": (238, 144, 178),
    "white": (246, 244, 238),
}
SIZES = ((96, 96), (128, 96), (96, 128))
"""Pixels; three aspects, so that buckets have something to do."""

_FINE = 4
"""Drawn so many times larger and scaled down: smooth edges without a drawing library."""

_INK = (44, 38, 52)
_CHEEK = (240, 150, 150)


class Canvas:
    """Draws in shares of the picture's shorter side, around its middle: x and y in about -0.5…0.5."""

    def __init__(self, size: tuple[int, int], ground: Colour) -> None:
        self.image = Image.new("RGB", (size[0] * _FINE, size[1] * _FINE), ground)
        self._draw = ImageDraw.Draw(self.image)
        self._side = min(self.image.size)

    def _at(self, x: float, y: float) -> tuple[float, float]:
        return self.image.width / 2 + x * self._side, self.image.height / 2 + y * self._side

    def oval(self, x: float, y: float, wide: float, high: float, colour: Colour) -> None:
        self._draw.ellipse([*self._at(x - wide / 2, y - high / 2), *self._at(x + wide / 2, y + high / 2)], fill=colour)

    def box(self, x: float, y: float, wide: float, high: float, colour: Colour) -> None:
        corners = [*self._at(x - wide / 2, y - high / 2), *self._at(x + wide / 2, y + high / 2)]
        self._draw.rounded_rectangle(corners, radius=0.06 * self._side, fill=colour)

    def shape(self, points: list[tuple[float, float]], colour: Colour) -> None:
        self._draw.polygon([self._at(x, y) for x, y in points], fill=colour)

    def curve(self, x: float, y: float, wide: float, high: float, turn: tuple[int, int]) -> None:
        corners = [*self._at(x - wide / 2, y - high / 2), *self._at(x + wide / 2, y + high / 2)]
        self._draw.arc(corners, *turn, fill=_INK, width=round(0.022 * self._side))


def draw(seed: int, index: int) -> tuple[Image.Image, list[str]]:
    """Picture `index` of the series `seed`, and what is on it: creature, its colour, head, face, ground and company."""
    chance = random.Random(f"loratory/{seed}/{index}")  # A string is hashed by sha512: the same everywhere, always.
    body, ground = chance.sample(sorted(COLOURS), 2)
    form, head = chance.choice(sorted(FORMS)), chance.choice(sorted(HEADS))
    face, company = chance.choice(sorted(FACES)), chance.choice(sorted(COMPANY))
    canvas = Canvas(chance.choice(SIZES), _pale(COLOURS[ground]))
    COMPANY[company](canvas, chance)
    HEADS[head](canvas, COLOURS[body])
    FORMS[form](canvas, COLOURS[body])
    FACES[face](canvas)
    picture = canvas.image.resize([side // _FINE for side in canvas.image.size], Image.Resampling.LANCZOS)
    return picture, [f"{body} creature", form, head, face, f"{ground} background", company]


def _pale(colour: Colour) -> Colour:
    return tuple((channel + 2 * 255) // 3 for channel in colour)  # type: ignore[return-value] # three stay three


def _deep(colour: Colour) -> Colour:
    return tuple(channel * 3 // 4 for channel in colour)  # type: ignore[return-value] # three stay three


def _round(canvas: Canvas, colour: Colour) -> None:
    for side in (-1, 1):
        canvas.oval(0.12 * side, 0.34, 0.16, 0.1, _deep(colour))
    canvas.oval(0, 0.06, 0.56, 0.56, colour)


def _square(canvas: Canvas, colour: Colour) -> None:
    for side in (-1, 1):
        canvas.box(0.14 * side, 0.33, 0.12, 0.12, _deep(colour))
    canvas.box(0, 0.06, 0.52, 0.5, colour)


def _tall(canvas: Canvas, colour: Colour) -> None:
    canvas.shape([(-0.24, 0.38), (0.24, 0.38), (0, 0.1)], _deep(colour))
    canvas.oval(0, 0.05, 0.4, 0.64, colour)


def _ears(canvas: Canvas, colour: Colour) -> None:
    for side in (-1, 1):
        canvas.oval(0.14 * side, -0.26, 0.13, 0.34, colour)
        canvas.oval(0.14 * side, -0.25, 0.06, 0.22, _CHEEK)


def _horns(canvas: Canvas, colour: Colour) -> None:
    for side in (-1, 1):
        canvas.shape([(0.06 * side, -0.16), (0.22 * side, -0.12), (0.2 * side, -0.38)], _deep(colour))


def _antenna(canvas: Canvas, colour: Colour) -> None:
    canvas.box(0, -0.26, 0.025, 0.2, _INK)
    canvas.oval(0, -0.37, 0.11, 0.11, _deep(colour))


def _crown(canvas: Canvas, _colour: Colour) -> None:
    tips = [(-0.17, -0.14), (-0.19, -0.36), (-0.08, -0.26), (0, -0.39), (0.08, -0.26), (0.19, -0.36), (0.17, -0.14)]
    canvas.shape(tips, COLOURS["yellow"])


def _eyes(canvas: Canvas) -> None:
    for side in (-1, 1):
        canvas.oval(0.1 * side, 0, 0.12, 0.14, COLOURS["white"])
        canvas.oval(0.1 * side, 0.015, 0.06, 0.08, _INK)


def _smiling(canvas: Canvas) -> None:
    _eyes(canvas)
    for side in (-1, 1):
        canvas.oval(0.17 * side, 0.1, 0.08, 0.05, _CHEEK)
    canvas.curve(0, 0.1, 0.16, 0.12, (20, 160))


def _surprised(canvas: Canvas) -> None:
    _eyes(canvas)
    canvas.oval(0, 0.16, 0.07, 0.09, _INK)


def _sleeping(canvas: Canvas) -> None:
    for side in (-1, 1):
        canvas.curve(0.1 * side, 0, 0.12, 0.08, (20, 160))
    canvas.oval(0, 0.14, 0.05, 0.03, _INK)


def _stars(canvas: Canvas, chance: random.Random) -> None:
    for _ in range(9):
        x, y, far = chance.uniform(-0.6, 0.6), chance.uniform(-0.6, 0.2), chance.uniform(0.02, 0.05)
        near = far / 3
        points = [(x, y - far), (x + near, y - near), (x + far, y), (x + near, y + near)]
        canvas.shape([*points, (x, y + far), (x - near, y + near), (x - far, y), (x - near, y - near)], (255, 250, 220))


def _hills(canvas: Canvas, chance: random.Random) -> None:
    for x in (-0.5, 0.45):
        canvas.oval(x, 0.6, chance.uniform(0.9, 1.3), chance.uniform(0.5, 0.8), COLOURS["green"])


def _sun(canvas: Canvas, chance: random.Random) -> None:
    canvas.oval(chance.choice((-0.36, 0.36)), -0.34, 0.2, 0.2, COLOURS["yellow"])
    canvas.box(0, 0.6, 2, 0.42, (206, 186, 150))


def _flowers(canvas: Canvas, chance: random.Random) -> None:
    for x in (-0.42, -0.34, 0.36, 0.44):
        height = chance.uniform(0.16, 0.3)
        canvas.box(x, 0.5 - height / 2, 0.02, height, COLOURS["green"])
        canvas.oval(x, 0.5 - height, 0.1, 0.1, COLOURS[chance.choice(("pink", "red", "purple"))])
        canvas.oval(x, 0.5 - height, 0.04, 0.04, COLOURS["yellow"])


FORMS: dict[str, Callable[[Canvas, Colour], None]] = {"round": _round, "square": _square, "tall": _tall}
HEADS: dict[str, Callable[[Canvas, Colour], None]] = {
    "long ears": _ears,
    "horns": _horns,
    "antenna": _antenna,
    "crown": _crown,
}
FACES: dict[str, Callable[[Canvas], None]] = {"smiling": _smiling, "surprised": _surprised, "sleeping": _sleeping}
COMPANY: dict[str, Callable[[Canvas, random.Random], None]] = {
    "stars": _stars,
    "hills": _hills,
    "sun": _sun,
    "flowers": _flowers,
}


def write(folder: Path, *, count: int, seed: int, trigger: str = "") -> list[Path]:
    """Draw `count` pictures into the folder, each with its tags beside it (the trigger first); gives the pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for index in range(count):
        picture, tags = draw(seed, index)
        path = folder / f"{index:03}.png"
        picture.save(path)
        path.with_suffix(".txt").write_text(", ".join([trigger, *tags] if trigger else tags) + "\n", encoding="utf-8")
        written.append(path)
    return written


def main() -> None:
    asked = argparse.ArgumentParser(prog="python -m trainer.demo.pictures", description=__doc__)
    asked.add_argument("folder", type=Path)
    asked.add_argument("--count", type=int, default=12)
    asked.add_argument("--seed", type=int, default=0)
    asked.add_argument("--trigger", default="", help="a word that stands first in every caption")
    said = asked.parse_args()
    write(said.folder, count=said.count, seed=said.seed, trigger=said.trigger)


if __name__ == "__main__":
    main()
