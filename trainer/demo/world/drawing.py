"""From a scene and a seed to its picture."""

import math
from collections.abc import Callable
from random import Random

import numpy as np
from PIL import Image

from trainer.demo.world.canvas import Canvas, Pen, arc, oval, polygon
from trainer.demo.world.palette import COLOURS, GROUNDS, INK, MILK, Colour, deep, mix
from trainer.demo.world.scenes import Creature, Scene, Shape
from trainer.demo.world.subjects import draw_creature, draw_shape

SIDE = 64
"""Pixels of a side, unless asked otherwise; 64 to 96 is what it is designed for."""

_SCALES = {"small": 0.56, "big": 0.82}
_PLACES = {"left": -0.21, "middle": 0.0, "right": 0.21}


def draw(scene: Scene, seed: int | str, size: tuple[int, int] = (SIDE, SIDE)) -> Image.Image:
    """The scene as RGB of `size` pixels; how things lean, look and lie is decided by the seed."""
    chance = Random(f"loratory/pose/{seed}")  # A string is hashed by sha512: the same everywhere, always.
    ground = GROUNDS[scene.ground]
    canvas = Canvas(size, ground)
    if scene.backdrop:
        BACKDROPS[scene.backdrop](canvas, ground, chance)
    for at, scale in _stands(scene, chance):
        pen = Pen(canvas, at, scale, lean=chance.uniform(-0.12, 0.12), mirrored=chance.random() < 0.5)
        if isinstance(scene.subject, Shape):
            draw_shape(pen, scene, scene.subject, chance)
        else:
            _shade(canvas, ground, at, scale)
            draw_creature(pen, scene, scene.subject, chance)
    return canvas.picture()


def _stands(scene: Scene, chance: Random) -> list[tuple[complex, float]]:
    """Where each subject stands and how large it is."""
    count = scene.subject.count if isinstance(scene.subject, Shape) else 1
    low = -0.03 if isinstance(scene.subject, Creature) and scene.subject.legs == "long legs" else 0.02
    scale = (_SCALES[scene.size] if count == 1 else {2: 0.42, 3: 0.31}[count]) * chance.uniform(0.92, 1.06)
    middle = complex(_PLACES[scene.place] + chance.uniform(-0.03, 0.03), low + chance.uniform(-0.03, 0.03))
    gap = {1: 0.0, 2: 0.46, 3: 0.32}[count]
    return [
        (middle + (place - (count - 1) / 2) * gap + 1j * chance.uniform(-0.06, 0.06) * (count > 1), scale)
        for place in range(count)
    ]


def _shade(canvas: Canvas, ground: Colour, at: complex, scale: float) -> None:
    below = oval(at.real, at.imag + 0.45 * scale, 0.62 * scale, 0.12 * scale)
    canvas.fill(below, mix(ground, (40, 36, 70), 0.22))


def _paler(ground: Colour, share: float = 0.5) -> Colour:
    return mix(ground, MILK, share if sum(ground) > 300 else share * 0.35)


def _deeper(ground: Colour) -> Colour:
    return mix(ground, (90, 100, 150), 0.2)


def _hills(canvas: Canvas, ground: Colour, chance: Random) -> None:
    right, low = canvas.reach
    canvas.fill(oval(chance.uniform(-0.2, 0.2) - right / 2, low + 0.1, 1.3, 0.9), mix(ground, _deeper(ground), 0.6))
    canvas.fill(oval(chance.uniform(-0.2, 0.2) + right * 0.8, low + 0.1, 1.2, 0.7), _deeper(ground))


def _clouds(canvas: Canvas, ground: Colour, chance: Random) -> None:
    right, low = canvas.reach
    for side in (-1, 0.15, 1):
        x, y = side * right * 0.72 + chance.uniform(-0.08, 0.08), -low + chance.uniform(0.1, 0.32)
        for off, rise, wide in ((-0.09, 0.02, 0.17), (0, -0.03, 0.21), (0.1, 0.02, 0.16)):
            canvas.fill(oval(x + off, y + rise, wide, wide * 0.72), _paler(ground, 0.75))


def _stars(canvas: Canvas, ground: Colour, chance: Random) -> None:
    right, low = canvas.reach
    for place in range(12):
        x = (-1 + (place % 4 + chance.uniform(0.15, 0.85)) / 2) * right
        y = (-1 + (place // 4 + chance.uniform(0.15, 0.85)) / 1.5) * low
        far, colour = chance.uniform(0.035, 0.065), _paler(ground, 0.9)
        tips = [(0.0, -far), (far / 4, -far / 4), (far, 0.0), (far / 4, far / 4)]
        canvas.fill(polygon(*tips, *((-dx, -dy) for dx, dy in tips), soft=0) + complex(x, y), colour)


def _flowers(canvas: Canvas, ground: Colour, chance: Random) -> None:
    right, low = canvas.reach
    canvas.fill(oval(0, low, 4 * right, 0.36), mix(ground, _deeper(ground), 0.7))
    for place in range(6):
        at = complex((-1 + (place + chance.uniform(0.2, 0.8)) / 3) * right, low - chance.uniform(0.04, 0.15))
        for turn in np.exp(2j * np.pi * np.arange(5) / 5):
            canvas.fill(oval(0, 0, 0.05, 0.05) + at + 0.034 * turn, _paler(ground, 0.85))
        canvas.fill(oval(0, 0, 0.036, 0.036) + at, _deeper(ground))


def _waves(canvas: Canvas, ground: Colour, chance: Random) -> None:
    right, low = canvas.reach
    start, along = chance.uniform(0, 6), np.linspace(-right, right, 40)
    for row, (height, colour) in enumerate(((0.3, mix(ground, _deeper(ground), 0.6)), (0.16, _deeper(ground)))):
        line = along + 1j * (low - height + 0.025 * np.sin(along * 17 + start + 2 * row))
        canvas.fill(np.concatenate([line, [right + 1j * low, -right + 1j * low]]), colour)


BACKDROPS: dict[str, Callable[[Canvas, Colour, Random], None]] = {
    "hills": _hills,
    "clouds": _clouds,
    "stars": _stars,
    "flowers": _flowers,
    "waves": _waves,
}


def scribble(scene: Scene, chance: Random, size: tuple[int, int] = (SIDE, SIDE)) -> Image.Image:
    """The ground of the scene with shapes of chance on it, in any colours: of nothing there is in the world."""
    canvas = Canvas(size, GROUNDS[scene.ground])
    if scene.backdrop:
        BACKDROPS[scene.backdrop](canvas, GROUNDS[scene.ground], chance)
    for _ in range(chance.randint(3, 9)):
        colour, edge = chance.choice(tuple(COLOURS.values())), chance.choice(tuple(COLOURS.values()))
        at = complex(chance.uniform(-0.4, 0.4), chance.uniform(-0.4, 0.4))
        pen = Pen(canvas, at, chance.uniform(0.15, 0.6), lean=chance.uniform(-3, 3))
        corners = sorted(chance.uniform(0, 6.28) for _ in range(chance.randint(3, 6)))
        edgy = polygon(*((0.5 * math.cos(turn), 0.5 * math.sin(turn)) for turn in corners), soft=chance.randint(0, 2))
        round_one = oval(0, 0, chance.uniform(0.3, 1), chance.uniform(0.3, 1), corners=chance.uniform(1.6, 5))
        pen.edged(chance.choice((edgy, round_one)), colour, chance.choice((deep(colour), edge, INK)))
        if chance.random() < 0.5:
            pen.stroke(arc(0, 0, 0.6, chance.uniform(0.2, 0.6), (0, chance.uniform(60, 300))), edge, 0.08)
    return canvas.picture()
