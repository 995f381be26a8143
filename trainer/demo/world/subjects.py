"""How shapes and creatures look: in units of their own, about 1 high, around the origin."""

import math
from collections.abc import Callable
from random import Random

import numpy as np

from trainer.demo.world.canvas import Outline, Pen, arc, oval, polygon
from trainer.demo.world.palette import CHEEK, COLOURS, INK, MILK, Colour, deep, light, mix
from trainer.demo.world.scenes import Creature, Scene, Shape


def _heart() -> Outline:
    turn = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    across = 16 * np.sin(turn) ** 3
    down = -13 * np.cos(turn) + 5 * np.cos(2 * turn) + 2 * np.cos(3 * turn) + np.cos(4 * turn)
    return np.asarray((across + 1j * (down - 2.5)) / 33)


def _star() -> Outline:
    tips = [(0.54 if point % 2 == 0 else 0.27, math.pi * (point / 5 - 0.5)) for point in range(10)]
    return polygon(*((far * math.cos(turn), 0.04 + far * math.sin(turn)) for far, turn in tips), soft=2)


def _flower() -> Outline:
    turn = np.linspace(0, 2 * np.pi, 72, endpoint=False)
    return np.asarray((0.31 + 0.18 * np.abs(np.cos(3 * turn))) * np.exp(1j * (turn - np.pi / 2)))


def _moon() -> Outline:
    outer = 0.48 * np.exp(1j * np.radians(np.linspace(-62, -298, 40))) + 0.06
    inner = 0.40 * np.exp(1j * np.radians(np.linspace(-285, -75, 30))) + 0.26
    return np.asarray(np.concatenate([outer, inner]))


def _drop() -> Outline:
    below = 0.35 * np.exp(1j * np.radians(np.linspace(-25, 205, 30))) + 0.14j
    return np.asarray(np.concatenate([below, [-0.07 - 0.38j, -0.52j, 0.07 - 0.38j]]))


SHAPES: dict[str, Outline] = {
    "circle": oval(0, 0, 0.9, 0.9),
    "square": oval(0, 0, 0.82, 0.82, corners=7),
    "triangle": polygon((0, -0.54), (0.54, 0.42), (-0.54, 0.42)),
    "star": _star(),
    "heart": _heart(),
    "moon": _moon(),
    "flower": _flower(),
    "drop": _drop(),
}
_FACE_AT = {"triangle": 0.1, "drop": 0.14, "heart": -0.06, "moon": 0.05}
BODIES: dict[str, Outline] = {
    "round": oval(0, 0.08, 0.6, 0.56),
    "square": oval(0, 0.08, 0.56, 0.52, corners=5),
    "tall": oval(0, 0.04, 0.46, 0.66, corners=2.4),
}
_TOP = {"round": 0.0, "square": 0.02, "tall": -0.08}
"""How much lower (or higher) than a round one's the head of a body is."""


def draw_shape(pen: Pen, scene: Scene, shape: Shape, chance: Random) -> None:
    colour, outline = COLOURS[scene.colour], SHAPES[shape.shape]
    pen.edged(outline, colour, deep(colour))
    _textured(pen, outline, scene.texture, deep(colour), chance)
    if not scene.texture:
        pen.fill_inside(outline, [oval(-0.2, -0.22, 0.16, 0.1), oval(-0.08, -0.27, 0.05, 0.05)], light(colour))
    if shape.shape == "flower" and not scene.face:
        pen.fill(oval(0, 0, 0.24, 0.24), light(colour))
    if scene.face:
        _face(pen, scene.face, complex(-0.1 if shape.shape == "moon" else 0, _FACE_AT.get(shape.shape, 0)), chance)


def draw_creature(pen: Pen, scene: Scene, creature: Creature, chance: Random) -> None:
    colour = COLOURS[scene.colour]
    accent = COLOURS[creature.accent] if creature.accent else deep(colour)
    body, top = BODIES[creature.body], _TOP[creature.body] * 1j
    if creature.tail:
        TAILS[creature.tail](pen, colour, accent)
    LEGS[creature.legs](pen, colour, accent)
    EARS[creature.ears](pen, top, colour, accent)
    for side in (-1, 1):
        pen.edged(oval(0.27 * side, 0.14, 0.13, 0.17), colour, deep(colour))
    pen.edged(body, colour, deep(colour))
    _textured(pen, body, scene.texture, accent, chance)
    belly = COLOURS[creature.accent] if creature.accent else light(colour)
    if not scene.texture:
        pen.fill_inside(body, [oval(0, 0.28, 0.3, 0.26)], belly)
    _face(pen, scene.face, 0.02j + top * 0.7, chance)


def _textured(pen: Pen, outline: Outline, texture: str, colour: Colour, chance: Random) -> None:
    if texture == "striped":
        bands = [polygon((-1, y), (1, y - 0.12), (1, y - 0.04), (-1, y + 0.08), soft=0) for y in _rows(chance)]
        pen.fill_inside(outline, bands, colour)
    elif texture == "spotted":
        spots = [oval(x + 0.11 * (row % 2), y, 0.1, 0.1) for row, y in enumerate(_rows(chance)) for x in _COLUMNS]
        pen.fill_inside(outline, spots, colour)


_COLUMNS = (-0.53, -0.31, -0.09, 0.13, 0.35)


def _rows(chance: Random) -> list[float]:
    start = chance.uniform(-0.04, 0.04)
    return [start + 0.2 * row for row in (-2.5, -1.5, -0.5, 0.5, 1.5, 2.5)]


def _face(pen: Pen, face: str, at: complex, chance: Random) -> None:
    look = 0.018 * complex(chance.uniform(-1, 1), chance.uniform(-0.6, 0.6))
    for side in (-0.13, 0.13):
        if face == "sleeping":
            pen.stroke(arc(0, 0, 0.15, 0.1, (10, 170)) + at + side, INK, 0.032)
            continue
        pen.fill(oval(0, 0, 0.17, 0.2) + at + side, MILK)
        pen.fill(oval(0, 0.01, 0.115, 0.145) + at + side + look, INK)
        pen.fill(oval(-0.02, -0.025, 0.045, 0.05) + at + side + look, MILK)
    for side in (-0.23, 0.23):
        pen.fill(oval(0, 0.12, 0.09, 0.06) + at + side, CHEEK)
    if face == "smiling":
        pen.stroke(arc(0, 0.1, 0.13, 0.1, (15, 165)) + at, INK, 0.03)
    elif face == "surprised":
        pen.fill(oval(0, 0.16, 0.085, 0.11) + at, INK)
    else:
        pen.fill(oval(0, 0.14, 0.05, 0.035) + at, INK)


def _short(pen: Pen, colour: Colour, accent: Colour) -> None:
    for side in (-1, 1):
        pen.edged(oval(0.15 * side, 0.37, 0.2, 0.13), accent, deep(colour))


def _long(pen: Pen, colour: Colour, accent: Colour) -> None:
    for side in (-1, 1):
        pen.stroke(np.array([0.12 * side + 0.3j, 0.13 * side + 0.47j]), deep(colour), 0.09)
        pen.edged(oval(0.16 * side, 0.5, 0.18, 0.09), accent, deep(colour))


def _curly(pen: Pen, colour: Colour, _accent: Colour) -> None:
    turn = np.linspace(0, 2.6 * np.pi, 26)
    spiral = (0.19 - 0.052 * turn / np.pi) * np.exp(1j * (np.pi / 2 + 0.3 - turn)) + 0.4 + 0.03j
    pen.stroke(np.concatenate([[0.2 + 0.24j], spiral]), deep(colour), 0.07)


def _fluffy(pen: Pen, colour: Colour, accent: Colour) -> None:
    tuft = light(colour) if accent == deep(colour) else accent
    turn = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    pen.edged((0.13 + 0.035 * np.abs(np.cos(3 * turn))) * np.exp(1j * turn) + 0.38 + 0.16j, tuft, deep(colour))


def _long_ears(pen: Pen, top: complex, colour: Colour, accent: Colour) -> None:
    for side in (-1, 1):
        ear = oval(0, 0, 0.15, 0.4) * np.exp(0.16j * side) + 0.14 * side - 0.33j + top
        pen.edged(ear, colour, deep(colour))
        pen.fill((ear - ear.mean()) * 0.55 + ear.mean(), _inner(colour, accent))


def _pointy_ears(pen: Pen, top: complex, colour: Colour, accent: Colour) -> None:
    for side in (-1, 1):
        ear = polygon((0.04 * side, -0.16), (0.29 * side, -0.06), (0.25 * side, -0.42)) + top
        pen.edged(ear, colour, deep(colour))
        pen.fill((ear - ear.mean()) * 0.5 + ear.mean(), _inner(colour, accent))


def _round_ears(pen: Pen, top: complex, colour: Colour, accent: Colour) -> None:
    for side in (-1, 1):
        ear = oval(0.21 * side, -0.22, 0.22, 0.22) + top
        pen.edged(ear, colour, deep(colour))
        pen.fill(oval(0.21 * side, -0.22, 0.11, 0.11) + top, _inner(colour, accent))


def _inner(colour: Colour, accent: Colour) -> Colour:
    return mix(colour, CHEEK, 0.7) if accent == deep(colour) else accent


def _horns(pen: Pen, top: complex, colour: Colour, accent: Colour) -> None:
    for side in (-1, 1):
        points = [(0.09, -0.14), (0.22, -0.08), (0.36, -0.22), (0.3, -0.44), (0.23, -0.26)]
        horn = polygon(*((x * side, y) for x, y in points), soft=2) + top
        pen.edged(horn, light(accent) if accent == deep(colour) else accent, deep(colour))


def _antennae(pen: Pen, top: complex, colour: Colour, accent: Colour) -> None:
    for side in (-1, 1):
        pen.stroke(np.array([0.08 * side - 0.14j, 0.12 * side - 0.28j, 0.2 * side - 0.38j]) + top, INK, 0.035)
        pen.edged(oval(0.21 * side, -0.4, 0.13, 0.13) + top, accent, deep(colour))


def _sprout(pen: Pen, top: complex, _colour: Colour, _accent: Colour) -> None:
    green = COLOURS["green"]
    pen.stroke(np.array([-0.15j, -0.3j]) + top, deep(green), 0.04)
    for side in (-1, 1):
        pen.edged(oval(0, 0, 0.27, 0.15) * np.exp(-0.45j * side) + 0.14 * side - 0.36j + top, green, deep(green))


def _mushroom(pen: Pen, top: complex, _colour: Colour, accent: Colour) -> None:
    dome = np.concatenate([arc(0, -0.12, 0.76, 0.64, (180, 360)), arc(0, -0.12, 0.76, 0.14, (0, 180))]) + top
    pen.edged(dome, accent, deep(accent))
    dots = [oval(x, y, 0.12, 0.1) + top for x, y in ((-0.22, -0.2), (0.0, -0.33), (0.22, -0.2))]
    pen.fill_inside(dome, dots, MILK)


def _one_horn(pen: Pen, top: complex, _colour: Colour, accent: Colour) -> None:
    pen.edged(polygon((-0.1, -0.12), (0.1, -0.12), (0.02, -0.52), (-0.02, -0.52), soft=1) + top, accent, deep(accent))
    pen.stroke(np.array([-0.07 - 0.2j, 0.06 - 0.25j]) + top, deep(accent), 0.03)
    pen.stroke(np.array([-0.05 - 0.3j, 0.04 - 0.34j]) + top, deep(accent), 0.03)


def _crest(pen: Pen, top: complex, _colour: Colour, accent: Colour) -> None:
    for tilt in (-0.8, 0.8, -0.4, 0.4, 0.0):
        spike = polygon((-0.1, -0.2), (0.1, -0.2), (0, -0.46), soft=1) * np.exp(1j * tilt) + 0.02j
        pen.edged(spike + top, accent, deep(accent))


def _bow(pen: Pen, top: complex, colour: Colour, accent: Colour) -> None:
    _pointy_ears(pen, top, colour, colour)
    for side in (-1, 1):
        wing = polygon((0, -0.22), (0.22 * side, -0.36), (0.22 * side, -0.1), soft=2) + top
        pen.edged(wing, accent, deep(accent))
    pen.edged(oval(0, -0.23, 0.1, 0.1) + top, accent, deep(accent))


Part = Callable[[Pen, complex, Colour, Colour], None]
LEGS: dict[str, Callable[[Pen, Colour, Colour], None]] = {"short legs": _short, "long legs": _long}
TAILS: dict[str, Callable[[Pen, Colour, Colour], None]] = {"curly tail": _curly, "fluffy tail": _fluffy}
EARS: dict[str, Part] = {
    "long ears": _long_ears,
    "pointy ears": _pointy_ears,
    "round ears": _round_ears,
    "horns": _horns,
    "antennae": _antennae,
    "sprout": _sprout,
    "mushroom hat": _mushroom,
    "one horn": _one_horn,
    "crest": _crest,
    "bow": _bow,
}
"""The last five are worn by the concepts alone."""
