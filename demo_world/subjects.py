"""Draws shapes and creatures, in coordinates of their own: about 1 high, centred on the origin."""

import math
from collections.abc import Callable
from random import Random

import numpy as np

from demo_world.canvas import Outline, Pen, arc, oval, polygon
from demo_world.palette import CHEEK, COLOURS, INK, MILK, Colour, deep, light, mix
from demo_world.scenes import Creature, Scene, Shape


def _heart_outline() -> Outline:
    angles = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    across = 16 * np.sin(angles) ** 3
    down = -13 * np.cos(angles) + 5 * np.cos(2 * angles) + 2 * np.cos(3 * angles) + np.cos(4 * angles)
    return np.asarray((across + 1j * (down - 2.5)) / 33)


def _star_outline() -> Outline:
    points = [(0.54 if point % 2 == 0 else 0.27, math.pi * (point / 5 - 0.5)) for point in range(10)]
    return polygon(
        *((radius * math.cos(angle), 0.04 + radius * math.sin(angle)) for radius, angle in points), smoothing=2
    )


def _flower_outline() -> Outline:
    angles = np.linspace(0, 2 * np.pi, 72, endpoint=False)
    return np.asarray((0.31 + 0.18 * np.abs(np.cos(3 * angles))) * np.exp(1j * (angles - np.pi / 2)))


def _moon_outline() -> Outline:
    outer = 0.48 * np.exp(1j * np.radians(np.linspace(-62, -298, 40))) + 0.06
    inner = 0.40 * np.exp(1j * np.radians(np.linspace(-285, -75, 30))) + 0.26
    return np.asarray(np.concatenate([outer, inner]))


def _drop_outline() -> Outline:
    below = 0.35 * np.exp(1j * np.radians(np.linspace(-25, 205, 30))) + 0.14j
    return np.asarray(np.concatenate([below, [-0.07 - 0.38j, -0.52j, 0.07 - 0.38j]]))


SHAPE_OUTLINES: dict[str, Outline] = {
    "circle": oval(0, 0, 0.9, 0.9),
    "square": oval(0, 0, 0.82, 0.82, exponent=7),
    "triangle": polygon((0, -0.54), (0.54, 0.42), (-0.54, 0.42)),
    "star": _star_outline(),
    "heart": _heart_outline(),
    "moon": _moon_outline(),
    "flower": _flower_outline(),
    "drop": _drop_outline(),
}
_FACE_OFFSETS = {"triangle": 0.1, "drop": 0.14, "heart": -0.06, "moon": 0.05}
BODY_OUTLINES: dict[str, Outline] = {
    "round": oval(0, 0.08, 0.6, 0.56),
    "square": oval(0, 0.08, 0.56, 0.52, exponent=5),
    "tall": oval(0, 0.04, 0.46, 0.66, exponent=2.4),
}
_HEAD_OFFSETS = {"round": 0.0, "square": 0.02, "tall": -0.08}
"""Vertical offset of the head relative to that of a round body; positive is lower."""


def draw_shape(pen: Pen, scene: Scene, shape: Shape, rng: Random) -> None:
    colour, outline = COLOURS[scene.colour], SHAPE_OUTLINES[shape.shape]
    pen.fill_and_stroke(outline, colour, deep(colour))
    _draw_texture(pen, outline, scene.texture, deep(colour), rng)
    if not scene.texture:
        pen.fill_inside(outline, [oval(-0.2, -0.22, 0.16, 0.1), oval(-0.08, -0.27, 0.05, 0.05)], light(colour))
    if shape.shape == "flower" and not scene.face:
        pen.fill(oval(0, 0, 0.24, 0.24), light(colour))
    if scene.face:
        _draw_face(
            pen, scene.face, complex(-0.1 if shape.shape == "moon" else 0, _FACE_OFFSETS.get(shape.shape, 0)), rng
        )


def draw_creature(pen: Pen, scene: Scene, creature: Creature, rng: Random) -> None:
    colour = COLOURS[scene.colour]
    accent = COLOURS[creature.accent] if creature.accent else deep(colour)
    body, head_offset = BODY_OUTLINES[creature.body], _HEAD_OFFSETS[creature.body] * 1j
    if creature.tail:
        TAIL_PAINTERS[creature.tail](pen, colour, accent)
    LEG_PAINTERS[creature.legs](pen, colour, accent)
    EAR_PAINTERS[creature.ears](pen, head_offset, colour, accent)
    for side in (-1, 1):
        pen.fill_and_stroke(oval(0.27 * side, 0.14, 0.13, 0.17), colour, deep(colour))
    pen.fill_and_stroke(body, colour, deep(colour))
    _draw_texture(pen, body, scene.texture, accent, rng)
    belly = COLOURS[creature.accent] if creature.accent else light(colour)
    if not scene.texture:
        pen.fill_inside(body, [oval(0, 0.28, 0.3, 0.26)], belly)
    _draw_face(pen, scene.face, 0.02j + head_offset * 0.7, rng)


def _draw_texture(pen: Pen, outline: Outline, texture: str, colour: Colour, rng: Random) -> None:
    if texture == "striped":
        bands = [
            polygon((-1, y), (1, y - 0.12), (1, y - 0.04), (-1, y + 0.08), smoothing=0) for y in _row_positions(rng)
        ]
        pen.fill_inside(outline, bands, colour)
    elif texture == "spotted":
        spots = [
            oval(x + 0.11 * (row % 2), y, 0.1, 0.1) for row, y in enumerate(_row_positions(rng)) for x in _SPOT_COLUMNS
        ]
        pen.fill_inside(outline, spots, colour)


_SPOT_COLUMNS = (-0.53, -0.31, -0.09, 0.13, 0.35)


def _row_positions(rng: Random) -> list[float]:
    start = rng.uniform(-0.04, 0.04)
    return [start + 0.2 * row for row in (-2.5, -1.5, -0.5, 0.5, 1.5, 2.5)]


def _draw_face(pen: Pen, face: str, centre: complex, rng: Random) -> None:
    gaze = 0.018 * complex(rng.uniform(-1, 1), rng.uniform(-0.6, 0.6))
    for side in (-0.13, 0.13):
        if face == "sleeping":
            pen.stroke(arc(0, 0, 0.15, 0.1, (10, 170)) + centre + side, INK, 0.032)
            continue
        pen.fill(oval(0, 0, 0.17, 0.2) + centre + side, MILK)
        pen.fill(oval(0, 0.01, 0.115, 0.145) + centre + side + gaze, INK)
        pen.fill(oval(-0.02, -0.025, 0.045, 0.05) + centre + side + gaze, MILK)
    for side in (-0.23, 0.23):
        pen.fill(oval(0, 0.12, 0.09, 0.06) + centre + side, CHEEK)
    if face == "smiling":
        pen.stroke(arc(0, 0.1, 0.13, 0.1, (15, 165)) + centre, INK, 0.03)
    elif face == "surprised":
        pen.fill(oval(0, 0.16, 0.085, 0.11) + centre, INK)
    else:
        pen.fill(oval(0, 0.14, 0.05, 0.035) + centre, INK)


def _draw_short_legs(pen: Pen, colour: Colour, accent: Colour) -> None:
    for side in (-1, 1):
        pen.fill_and_stroke(oval(0.15 * side, 0.37, 0.2, 0.13), accent, deep(colour))


def _draw_long_legs(pen: Pen, colour: Colour, accent: Colour) -> None:
    for side in (-1, 1):
        pen.stroke(np.array([0.12 * side + 0.3j, 0.13 * side + 0.47j]), deep(colour), 0.09)
        pen.fill_and_stroke(oval(0.16 * side, 0.5, 0.18, 0.09), accent, deep(colour))


def _draw_curly_tail(pen: Pen, colour: Colour, _accent: Colour) -> None:
    angles = np.linspace(0, 2.6 * np.pi, 26)
    spiral = (0.19 - 0.052 * angles / np.pi) * np.exp(1j * (np.pi / 2 + 0.3 - angles)) + 0.4 + 0.03j
    pen.stroke(np.concatenate([[0.2 + 0.24j], spiral]), deep(colour), 0.07)


def _draw_fluffy_tail(pen: Pen, colour: Colour, accent: Colour) -> None:
    tuft = light(colour) if accent == deep(colour) else accent
    angles = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    pen.fill_and_stroke(
        (0.13 + 0.035 * np.abs(np.cos(3 * angles))) * np.exp(1j * angles) + 0.38 + 0.16j, tuft, deep(colour)
    )


def _draw_long_ears(pen: Pen, head_offset: complex, colour: Colour, accent: Colour) -> None:
    for side in (-1, 1):
        ear = oval(0, 0, 0.15, 0.4) * np.exp(0.16j * side) + 0.14 * side - 0.33j + head_offset
        pen.fill_and_stroke(ear, colour, deep(colour))
        pen.fill((ear - ear.mean()) * 0.55 + ear.mean(), _inner_ear_colour(colour, accent))


def _draw_pointy_ears(pen: Pen, head_offset: complex, colour: Colour, accent: Colour) -> None:
    for side in (-1, 1):
        ear = polygon((0.04 * side, -0.16), (0.29 * side, -0.06), (0.25 * side, -0.42)) + head_offset
        pen.fill_and_stroke(ear, colour, deep(colour))
        pen.fill((ear - ear.mean()) * 0.5 + ear.mean(), _inner_ear_colour(colour, accent))


def _draw_round_ears(pen: Pen, head_offset: complex, colour: Colour, accent: Colour) -> None:
    for side in (-1, 1):
        ear = oval(0.21 * side, -0.22, 0.22, 0.22) + head_offset
        pen.fill_and_stroke(ear, colour, deep(colour))
        pen.fill(oval(0.21 * side, -0.22, 0.11, 0.11) + head_offset, _inner_ear_colour(colour, accent))


def _inner_ear_colour(colour: Colour, accent: Colour) -> Colour:
    return mix(colour, CHEEK, 0.7) if accent == deep(colour) else accent


def _draw_horns(pen: Pen, head_offset: complex, colour: Colour, accent: Colour) -> None:
    for side in (-1, 1):
        points = [(0.09, -0.14), (0.22, -0.08), (0.36, -0.22), (0.3, -0.44), (0.23, -0.26)]
        horn = polygon(*((x * side, y) for x, y in points), smoothing=2) + head_offset
        pen.fill_and_stroke(horn, light(accent) if accent == deep(colour) else accent, deep(colour))


def _draw_antennae(pen: Pen, head_offset: complex, colour: Colour, accent: Colour) -> None:
    for side in (-1, 1):
        pen.stroke(np.array([0.08 * side - 0.14j, 0.12 * side - 0.28j, 0.2 * side - 0.38j]) + head_offset, INK, 0.035)
        pen.fill_and_stroke(oval(0.21 * side, -0.4, 0.13, 0.13) + head_offset, accent, deep(colour))


def _draw_sprout(pen: Pen, head_offset: complex, _colour: Colour, _accent: Colour) -> None:
    green = COLOURS["green"]
    pen.stroke(np.array([-0.15j, -0.3j]) + head_offset, deep(green), 0.04)
    for side in (-1, 1):
        pen.fill_and_stroke(
            oval(0, 0, 0.27, 0.15) * np.exp(-0.45j * side) + 0.14 * side - 0.36j + head_offset, green, deep(green)
        )


def _draw_mushroom_hat(pen: Pen, head_offset: complex, _colour: Colour, accent: Colour) -> None:
    dome = np.concatenate([arc(0, -0.12, 0.76, 0.64, (180, 360)), arc(0, -0.12, 0.76, 0.14, (0, 180))]) + head_offset
    pen.fill_and_stroke(dome, accent, deep(accent))
    dots = [oval(x, y, 0.12, 0.1) + head_offset for x, y in ((-0.22, -0.2), (0.0, -0.33), (0.22, -0.2))]
    pen.fill_inside(dome, dots, MILK)


def _draw_one_horn(pen: Pen, head_offset: complex, _colour: Colour, accent: Colour) -> None:
    pen.fill_and_stroke(
        polygon((-0.1, -0.12), (0.1, -0.12), (0.02, -0.52), (-0.02, -0.52), smoothing=1) + head_offset,
        accent,
        deep(accent),
    )
    pen.stroke(np.array([-0.07 - 0.2j, 0.06 - 0.25j]) + head_offset, deep(accent), 0.03)
    pen.stroke(np.array([-0.05 - 0.3j, 0.04 - 0.34j]) + head_offset, deep(accent), 0.03)


def _draw_crest(pen: Pen, head_offset: complex, _colour: Colour, accent: Colour) -> None:
    for tilt in (-0.8, 0.8, -0.4, 0.4, 0.0):
        spike = polygon((-0.1, -0.2), (0.1, -0.2), (0, -0.46), smoothing=1) * np.exp(1j * tilt) + 0.02j
        pen.fill_and_stroke(spike + head_offset, accent, deep(accent))


def _draw_bow(pen: Pen, head_offset: complex, colour: Colour, accent: Colour) -> None:
    _draw_pointy_ears(pen, head_offset, colour, colour)
    for side in (-1, 1):
        wing = polygon((0, -0.22), (0.22 * side, -0.36), (0.22 * side, -0.1), smoothing=2) + head_offset
        pen.fill_and_stroke(wing, accent, deep(accent))
    pen.fill_and_stroke(oval(0, -0.23, 0.1, 0.1) + head_offset, accent, deep(accent))


HeadPainter = Callable[[Pen, complex, Colour, Colour], None]
LEG_PAINTERS: dict[str, Callable[[Pen, Colour, Colour], None]] = {
    "short legs": _draw_short_legs,
    "long legs": _draw_long_legs,
}
TAIL_PAINTERS: dict[str, Callable[[Pen, Colour, Colour], None]] = {
    "curly tail": _draw_curly_tail,
    "fluffy tail": _draw_fluffy_tail,
}
EAR_PAINTERS: dict[str, HeadPainter] = {
    "long ears": _draw_long_ears,
    "pointy ears": _draw_pointy_ears,
    "round ears": _draw_round_ears,
    "horns": _draw_horns,
    "antennae": _draw_antennae,
    "sprout": _draw_sprout,
    "mushroom hat": _draw_mushroom_hat,
    "one horn": _draw_one_horn,
    "crest": _draw_crest,
    "bow": _draw_bow,
}
"""The last five occur only on concepts, never in the base's training pictures."""
