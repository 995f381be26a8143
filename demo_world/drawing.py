"""Draws the picture of a scene from a seed."""

import math
from collections.abc import Callable
from random import Random

import numpy as np
from PIL import Image

from demo_world.canvas import Canvas, Pen, arc, oval, polygon
from demo_world.palette import BACKGROUNDS, COLOURS, INK, MILK, Colour, deep, mix
from demo_world.scenes import Creature, Scene, Shape
from demo_world.subjects import draw_creature, draw_shape

SIDE = 64
"""Default side of a picture in pixels; designed for 64 to 96."""

_SCALES = {"small": 0.56, "big": 0.82}
_POSITIONS = {"left": -0.21, "middle": 0.0, "right": 0.21}


def draw_scene(scene: Scene, seed: int | str, size: tuple[int, int] = (SIDE, SIDE)) -> Image.Image:
    """Draw the scene in RGB at `size` pixels; the seed determines rotation, gaze and exact position."""
    rng = Random(f"loratory/pose/{seed}")  # a string seed is hashed with sha512: the same on every machine
    background = BACKGROUNDS[scene.background]
    canvas = Canvas(size, background)
    if scene.backdrop:
        BACKDROP_PAINTERS[scene.backdrop](canvas, background, rng)
    for centre, scale in _place_subjects(scene, rng):
        pen = Pen(canvas, centre, scale, rotation=rng.uniform(-0.12, 0.12), mirrored=rng.random() < 0.5)
        if isinstance(scene.subject, Shape):
            draw_shape(pen, scene, scene.subject, rng)
        else:
            _draw_shadow(canvas, background, centre, scale)
            draw_creature(pen, scene, scene.subject, rng)
    return canvas.picture()


def _place_subjects(scene: Scene, rng: Random) -> list[tuple[complex, float]]:
    """Position and scale of each copy of the subject."""
    count = scene.subject.count if isinstance(scene.subject, Shape) else 1
    offset = -0.03 if isinstance(scene.subject, Creature) and scene.subject.legs == "long legs" else 0.02
    scale = (_SCALES[scene.size] if count == 1 else {2: 0.42, 3: 0.31}[count]) * rng.uniform(0.92, 1.06)
    middle = complex(_POSITIONS[scene.position] + rng.uniform(-0.03, 0.03), offset + rng.uniform(-0.03, 0.03))
    gap = {1: 0.0, 2: 0.46, 3: 0.32}[count]
    return [
        (middle + (index - (count - 1) / 2) * gap + 1j * rng.uniform(-0.06, 0.06) * (count > 1), scale)
        for index in range(count)
    ]


def _draw_shadow(canvas: Canvas, background: Colour, centre: complex, scale: float) -> None:
    shadow = oval(centre.real, centre.imag + 0.45 * scale, 0.62 * scale, 0.12 * scale)
    canvas.fill(shadow, mix(background, (40, 36, 70), 0.22))


def _pale_shade(background: Colour, share: float = 0.5) -> Colour:
    return mix(background, MILK, share if sum(background) > 300 else share * 0.35)


def _dark_shade(background: Colour) -> Colour:
    return mix(background, (90, 100, 150), 0.2)


def _draw_hills(canvas: Canvas, background: Colour, rng: Random) -> None:
    right, bottom = canvas.extent
    canvas.fill(
        oval(rng.uniform(-0.2, 0.2) - right / 2, bottom + 0.1, 1.3, 0.9), mix(background, _dark_shade(background), 0.6)
    )
    canvas.fill(oval(rng.uniform(-0.2, 0.2) + right * 0.8, bottom + 0.1, 1.2, 0.7), _dark_shade(background))


def _draw_clouds(canvas: Canvas, background: Colour, rng: Random) -> None:
    right, bottom = canvas.extent
    for side in (-1, 0.15, 1):
        x, y = side * right * 0.72 + rng.uniform(-0.08, 0.08), -bottom + rng.uniform(0.1, 0.32)
        for offset, lift, width in ((-0.09, 0.02, 0.17), (0, -0.03, 0.21), (0.1, 0.02, 0.16)):
            canvas.fill(oval(x + offset, y + lift, width, width * 0.72), _pale_shade(background, 0.75))


def _draw_stars(canvas: Canvas, background: Colour, rng: Random) -> None:
    right, bottom = canvas.extent
    for index in range(12):
        x = (-1 + (index % 4 + rng.uniform(0.15, 0.85)) / 2) * right
        y = (-1 + (index // 4 + rng.uniform(0.15, 0.85)) / 1.5) * bottom
        radius, colour = rng.uniform(0.035, 0.065), _pale_shade(background, 0.9)
        points = [(0.0, -radius), (radius / 4, -radius / 4), (radius, 0.0), (radius / 4, radius / 4)]
        canvas.fill(polygon(*points, *((-dx, -dy) for dx, dy in points), smoothing=0) + complex(x, y), colour)


def _draw_flowers(canvas: Canvas, background: Colour, rng: Random) -> None:
    right, bottom = canvas.extent
    canvas.fill(oval(0, bottom, 4 * right, 0.36), mix(background, _dark_shade(background), 0.7))
    for index in range(6):
        centre = complex((-1 + (index + rng.uniform(0.2, 0.8)) / 3) * right, bottom - rng.uniform(0.04, 0.15))
        for petal in np.exp(2j * np.pi * np.arange(5) / 5):
            canvas.fill(oval(0, 0, 0.05, 0.05) + centre + 0.034 * petal, _pale_shade(background, 0.85))
        canvas.fill(oval(0, 0, 0.036, 0.036) + centre, _dark_shade(background))


def _draw_waves(canvas: Canvas, background: Colour, rng: Random) -> None:
    right, bottom = canvas.extent
    phase, xs = rng.uniform(0, 6), np.linspace(-right, right, 40)
    for wave, (height, colour) in enumerate(
        ((0.3, mix(background, _dark_shade(background), 0.6)), (0.16, _dark_shade(background)))
    ):
        line = xs + 1j * (bottom - height + 0.025 * np.sin(xs * 17 + phase + 2 * wave))
        canvas.fill(np.concatenate([line, [right + 1j * bottom, -right + 1j * bottom]]), colour)


BACKDROP_PAINTERS: dict[str, Callable[[Canvas, Colour, Random], None]] = {
    "hills": _draw_hills,
    "clouds": _draw_clouds,
    "stars": _draw_stars,
    "flowers": _draw_flowers,
    "waves": _draw_waves,
}


def draw_scribble(scene: Scene, rng: Random, size: tuple[int, int] = (SIDE, SIDE)) -> Image.Image:
    """The background of the scene with random shapes in any colours, unlike anything in the demo world."""
    canvas = Canvas(size, BACKGROUNDS[scene.background])
    if scene.backdrop:
        BACKDROP_PAINTERS[scene.backdrop](canvas, BACKGROUNDS[scene.background], rng)
    for _ in range(rng.randint(3, 9)):
        colour, edge = rng.choice(tuple(COLOURS.values())), rng.choice(tuple(COLOURS.values()))
        centre = complex(rng.uniform(-0.4, 0.4), rng.uniform(-0.4, 0.4))
        pen = Pen(canvas, centre, rng.uniform(0.15, 0.6), rotation=rng.uniform(-3, 3))
        angles = sorted(rng.uniform(0, 6.28) for _ in range(rng.randint(3, 6)))
        pointed = polygon(
            *((0.5 * math.cos(angle), 0.5 * math.sin(angle)) for angle in angles), smoothing=rng.randint(0, 2)
        )
        rounded = oval(0, 0, rng.uniform(0.3, 1), rng.uniform(0.3, 1), exponent=rng.uniform(1.6, 5))
        pen.fill_and_stroke(rng.choice((pointed, rounded)), colour, rng.choice((deep(colour), edge, INK)))
        if rng.random() < 0.5:
            pen.stroke(arc(0, 0, 0.6, rng.uniform(0.2, 0.6), (0, rng.uniform(60, 300))), edge, 0.08)
    return canvas.picture()
