"""Drawing with soft edges. Outlines are arrays of complex numbers: moving, turning and scaling them is arithmetic."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageDraw

from trainer.demo.world.palette import Colour

Outline = NDArray[np.complex128]
"""A closed line; x is the real part and points right, y the imaginary one and points down."""

_FINE = 4
"""Drawn so many times larger and averaged: smooth edges without a drawing library."""


def oval(x: float, y: float, wide: float, high: float, corners: float = 2.0) -> Outline:
    """An ellipse around (x, y); with more `corners` a box with round ones (Lamé's curve)."""
    turn = np.exp(2j * np.pi * np.arange(36) / 36)
    across, down = (np.sign(side) * np.abs(side) ** (2 / corners) for side in (turn.real, turn.imag))
    return np.asarray(x + 1j * y + across * wide / 2 + 1j * down * high / 2)


def polygon(*points: tuple[float, float], soft: int = 2) -> Outline:
    """Straight lines between the points, corners cut off `soft` times (Chaikin 1974)."""
    outline = np.array([complex(x, y) for x, y in points])
    for _ in range(soft):
        onward = np.roll(outline, -1)
        outline = np.stack([0.78 * outline + 0.22 * onward, 0.22 * outline + 0.78 * onward], axis=1).reshape(-1)
    return outline


def arc(x: float, y: float, wide: float, high: float, degrees: tuple[float, float]) -> Outline:
    """A part of an ellipse, open: from one angle to another, clockwise from the right."""
    turn = np.exp(1j * np.radians(np.linspace(*degrees, 14)))
    return np.asarray(x + 1j * y + turn.real * wide / 2 + 1j * turn.imag * high / 2)


class Canvas:
    """A picture. Places on it are in shares of its shorter side around its middle: about -0.5 to 0.5."""

    def __init__(self, size: tuple[int, int], ground: Colour) -> None:
        self._image = Image.new("RGB", (size[0] * _FINE, size[1] * _FINE), ground)
        self._draw = ImageDraw.Draw(self._image)
        self._side = min(self._image.size)

    @property
    def reach(self) -> tuple[float, float]:
        """How far the picture goes to the right and down of its middle."""
        return self._image.width / 2 / self._side, self._image.height / 2 / self._side

    def fill(self, outline: Outline, colour: Colour) -> None:
        self._draw.polygon(self._dots(outline), fill=colour)

    def stroke(self, line: Outline, colour: Colour, width: float, *, closed: bool = False) -> None:
        dots = self._dots(line)
        thick = max(1, round(width * self._side))
        self._draw.line([*dots, *dots[:2]] if closed else dots, fill=colour, width=thick, joint="curve")
        if not closed:
            for x, y in (dots[0], dots[-1]):
                self._draw.ellipse([x - thick / 2, y - thick / 2, x + thick / 2, y + thick / 2], fill=colour)

    def fill_inside(self, outline: Outline, marks: list[Outline], colour: Colour) -> None:
        """The marks as far as they lie inside the outline."""
        inside, marked = (Image.new("L", self._image.size) for _ in range(2))
        ImageDraw.Draw(inside).polygon(self._dots(outline), fill=255)
        pen = ImageDraw.Draw(marked)
        for mark in marks:
            pen.polygon(self._dots(mark), fill=255)
        self._image.paste(colour, mask=ImageChops.multiply(inside, marked))

    def picture(self) -> Image.Image:
        return self._image.reduce(_FINE)

    def _dots(self, outline: Outline) -> list[tuple[float, float]]:
        placed = outline * self._side + complex(self._image.width, self._image.height) / 2
        return list(zip(placed.real.tolist(), placed.imag.tolist(), strict=True))


@dataclass(frozen=True)
class Pen:
    """Draws on a canvas at a place of its own: moved, scaled, leaning (radians) and perhaps mirrored."""

    canvas: Canvas
    at: complex
    scale: float
    lean: float = 0.0
    mirrored: bool = False

    def fill(self, outline: Outline, colour: Colour) -> None:
        self.canvas.fill(self._put(outline), colour)

    def edged(self, outline: Outline, colour: Colour, edge: Colour) -> None:
        """Filled, with a line around it."""
        self.fill(outline, colour)
        self.canvas.stroke(self._put(outline), edge, 0.028 * self.scale, closed=True)

    def fill_inside(self, outline: Outline, marks: list[Outline], colour: Colour) -> None:
        self.canvas.fill_inside(self._put(outline), [self._put(mark) for mark in marks], colour)

    def stroke(self, line: Outline, colour: Colour, width: float) -> None:
        self.canvas.stroke(self._put(line), colour, width * self.scale)

    def _put(self, outline: Outline) -> Outline:
        mine = -outline.conj() if self.mirrored else outline
        return np.asarray(self.at + mine * self.scale * complex(math.cos(self.lean), math.sin(self.lean)))
