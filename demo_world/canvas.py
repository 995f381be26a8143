"""Anti-aliased drawing. Outlines are arrays of complex numbers, so moving, rotating and scaling them is arithmetic."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageDraw

from demo_world.palette import Colour

Outline = NDArray[np.complex128]
"""A closed line; x is the real part and points right, y the imaginary part and points down."""

_SUPERSAMPLING = 4
"""Pictures are drawn this many times larger and averaged down: smooth edges without a drawing library."""


def oval(x: float, y: float, width: float, height: float, exponent: float = 2.0) -> Outline:
    """An ellipse around (x, y); a larger `exponent` makes it a rounded box (superellipse, Lamé's curve)."""
    unit_circle = np.exp(2j * np.pi * np.arange(36) / 36)
    across, down = (np.copysign(np.abs(v) ** (2 / exponent), v) for v in (unit_circle.real, unit_circle.imag))
    return np.asarray(x + 1j * y + across * width / 2 + 1j * down * height / 2)


def polygon(*points: tuple[float, float], smoothing: int = 2) -> Outline:
    """Straight lines between the points, with corners cut `smoothing` times (Chaikin 1974)."""
    outline = np.array([complex(x, y) for x, y in points])
    for _ in range(smoothing):
        following = np.roll(outline, -1)
        outline = np.stack([0.78 * outline + 0.22 * following, 0.22 * outline + 0.78 * following], axis=1).reshape(-1)
    return outline


def arc(x: float, y: float, width: float, height: float, degrees: tuple[float, float]) -> Outline:
    """A part of an ellipse, open: from one angle to another, clockwise from the right."""
    unit_arc = np.exp(1j * np.radians(np.linspace(*degrees, 14)))
    return np.asarray(x + 1j * y + unit_arc.real * width / 2 + 1j * unit_arc.imag * height / 2)


class Canvas:
    """A picture. Coordinates are fractions of its shorter side, measured from its centre: about -0.5 to 0.5."""

    def __init__(self, size: tuple[int, int], background: Colour) -> None:
        self._image = Image.new("RGB", (size[0] * _SUPERSAMPLING, size[1] * _SUPERSAMPLING), background)
        self._draw = ImageDraw.Draw(self._image)
        self._side = min(self._image.size)

    @property
    def extent(self) -> tuple[float, float]:
        """Coordinates of the right and the bottom edge."""
        return self._image.width / 2 / self._side, self._image.height / 2 / self._side

    def fill(self, outline: Outline, colour: Colour) -> None:
        self._draw.polygon(self._to_pixels(outline), fill=colour)

    def stroke(self, line: Outline, colour: Colour, width: float, *, closed: bool = False) -> None:
        points = self._to_pixels(line)
        thickness = max(1, round(width * self._side))
        self._draw.line([*points, *points[:2]] if closed else points, fill=colour, width=thickness, joint="curve")
        if not closed:
            for x, y in (points[0], points[-1]):
                box = [x - thickness / 2, y - thickness / 2, x + thickness / 2, y + thickness / 2]
                self._draw.ellipse(box, fill=colour)

    def fill_inside(self, outline: Outline, marks: list[Outline], colour: Colour) -> None:
        """Fill the marks, clipped to the outline."""
        inside, marked = (Image.new("L", self._image.size) for _ in range(2))
        ImageDraw.Draw(inside).polygon(self._to_pixels(outline), fill=255)
        pen = ImageDraw.Draw(marked)
        for mark in marks:
            pen.polygon(self._to_pixels(mark), fill=255)
        self._image.paste(colour, mask=ImageChops.multiply(inside, marked))

    def picture(self) -> Image.Image:
        return self._image.reduce(_SUPERSAMPLING)

    def _to_pixels(self, outline: Outline) -> list[tuple[float, float]]:
        pixels = outline * self._side + complex(self._image.width, self._image.height) / 2
        return list(zip(pixels.real.tolist(), pixels.imag.tolist(), strict=True))


@dataclass(frozen=True)
class Pen:
    """Draws on a canvas in its own coordinates: moved, scaled, rotated (radians) and optionally mirrored."""

    canvas: Canvas
    origin: complex
    scale: float
    rotation: float = 0.0
    mirrored: bool = False

    def fill(self, outline: Outline, colour: Colour) -> None:
        self.canvas.fill(self._transform(outline), colour)

    def fill_and_stroke(self, outline: Outline, colour: Colour, edge: Colour) -> None:
        """Fill the outline and draw a line around it."""
        self.fill(outline, colour)
        self.canvas.stroke(self._transform(outline), edge, 0.028 * self.scale, closed=True)

    def fill_inside(self, outline: Outline, marks: list[Outline], colour: Colour) -> None:
        self.canvas.fill_inside(self._transform(outline), [self._transform(mark) for mark in marks], colour)

    def stroke(self, line: Outline, colour: Colour, width: float) -> None:
        self.canvas.stroke(self._transform(line), colour, width * self.scale)

    def _transform(self, outline: Outline) -> Outline:
        own = -outline.conj() if self.mirrored else outline
        return np.asarray(self.origin + own * self.scale * complex(math.cos(self.rotation), math.sin(self.rotation)))
