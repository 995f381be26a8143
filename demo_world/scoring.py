"""Classifies what a picture shows by comparing it with reference drawings (nearest neighbours, nothing is trained).

The background is identified by the picture's border, and the subject is what differs from it; its colour is its most
frequent vivid colour, its kind that of the reference outlines nearest to its own. Independent of the tagger.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from random import Random

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from demo_world.concepts import Concept, similar_concepts
from demo_world.drawing import draw_scene
from demo_world.palette import BACKGROUNDS, CHEEK, COLOURS, INK, MILK, Colour, deep, light, mix
from demo_world.withheld import KINDS, evaluation_scene

Mask = NDArray[np.bool_]
Array = NDArray[np.float32]

_SIDE = 64
_GRID_SIZE = 24
"""Outlines are compared on a grid of this many cells a side."""

_BORDER = 3
_NEIGHBOURS = 3
_MAX_CONCEPT_DISTANCE = 0.03
"""Maximum mean squared distance (colours in 0…1) to the nearest reference drawing of a concept; drawings of the concept
itself are at 0.002 to 0.021."""

_MIN_SUBJECT_SHARE, _MAX_SUBJECT_SHARE = 0.02, 0.7
"""Minimum and maximum share of the picture that a subject covers."""

_BLUR = ImageFilter.GaussianBlur(1.0)

_HEAD_ROWS = 9
"""The top rows of an outline, which have double weight: creatures differ by what is on their heads."""


@dataclass(frozen=True)
class DetectedSubject:
    """A detected subject: its colour ("" if none of the known ones), and its outline and pixels, both cropped."""

    colour: str
    outline: Array
    pixels: Array


@dataclass(frozen=True)
class Classification:
    """What a picture shows; `distance` of its outline to the nearest reference outlines, 0 to 1."""

    kind: str
    colour: str
    distance: float


def detect_subject(picture: Image.Image) -> DetectedSubject | None:
    """The subject of a picture; None if nothing differs from the background."""
    pixels = np.asarray(picture.convert("RGB").resize((_SIDE, _SIDE), Image.Resampling.BOX), np.float32)
    names, inside = _segment(pixels)
    if not _MIN_SUBJECT_SHARE < inside.mean() < _MAX_SUBJECT_SHARE:
        return None
    votes = Counter(names[inside].tolist())
    colour = max(COLOURS, key=lambda name: votes[name])
    return DetectedSubject(colour if votes[colour] else "", *_crop_to_square(inside, pixels))


class NearestNeighbours:
    """A nearest-neighbour classifier over labelled examples."""

    def __init__(self, examples: Iterable[tuple[Array, str]]) -> None:
        features, names = zip(*examples, strict=True)
        self._features = np.stack([each.ravel() for each in features])
        self._squared_norms = (self._features**2).sum(1)
        self._names = names

    def nearest(self, feature: Array) -> tuple[str, float]:
        """The majority name among the nearest examples, and the mean squared distance to the nearest of that name."""
        flat = feature.ravel()
        distances = np.maximum(self._squared_norms - 2 * self._features @ flat + flat @ flat, 0) / flat.size
        nearest = np.argsort(distances)[:_NEIGHBOURS]
        name = Counter(self._names[index] for index in nearest).most_common(1)[0][0]
        return name, float(min(distances[index] for index in nearest if self._names[index] == name))


class SceneClassifier:
    """Classifies kind and colour, using `examples_per_kind` reference drawings with seeds that no training uses."""

    def __init__(self, examples_per_kind: int = 160) -> None:
        self._neighbours = NearestNeighbours(self._examples(examples_per_kind))

    def _examples(self, examples_per_kind: int) -> Iterable[tuple[Array, str]]:
        remaining = Counter(dict.fromkeys(KINDS, examples_per_kind))
        for index in range(examples_per_kind * len(KINDS) * 8):
            scene = evaluation_scene("outlines", index)
            if remaining[scene.kind] and (subject := detect_subject(draw_scene(scene, f"outlines/{index}"))):
                remaining[scene.kind] -= 1
                yield _weight_head(subject.outline), scene.kind
                yield _weight_head(subject.outline[:, ::-1]), scene.kind

    def classify(self, picture: Image.Image) -> Classification:
        subject = detect_subject(picture)
        if subject is None:
            return Classification("", "", 1.0)
        kind, distance = self._neighbours.nearest(_weight_head(subject.outline))
        return Classification(kind, subject.colour, distance)


class ConceptClassifier:
    """Distinguishes one concept from everything else: the base's creatures, similar concepts, other subjects."""

    def __init__(self, concept: Concept, examples: int = 150) -> None:
        self.concept = concept.name
        self._neighbours = NearestNeighbours(self._examples(concept, examples))

    @staticmethod
    def _examples(concept: Concept, count: int) -> Iterable[tuple[Array, str]]:
        rng = Random(f"loratory/judge/{concept.name}")
        for index in range(count):
            scenes = [(concept.scene(rng), concept.name), (evaluation_scene("others", index), "")]
            scenes += [(similar.scene(rng), "") for similar in similar_concepts(concept)]
            for number, (scene, name) in enumerate(scenes):
                picture = draw_scene(scene, f"recogniser/{index}/{number}")
                # Half of them are blurred like the output of a small autoencoder.
                if subject := detect_subject(picture.filter(_BLUR) if index % 2 else picture):
                    yield subject.pixels, name
                    yield subject.pixels[:, ::-1], name

    def matches(self, picture: Image.Image) -> bool:
        """Whether the picture shows the concept: nearest to its drawings, and within the maximum distance."""
        subject = detect_subject(picture)
        if subject is None:
            return False
        name, distance = self._neighbours.nearest(subject.pixels)
        return bool(name) and distance <= _MAX_CONCEPT_DISTANCE


def _weight_head(outline: Array) -> Array:
    weighted = outline.copy()
    weighted[:_HEAD_ROWS] *= 2
    return weighted


def success_rate(outcomes: Sequence[bool]) -> float:
    return sum(outcomes) / len(outcomes) if outcomes else 0.0


def _build_anchors() -> tuple[list[str], Array]:
    """Shades of subjects with the name of their colour; "" for shades that every subject has (eyes, cheeks)."""
    shades = [(name, shade) for name, colour in COLOURS.items() for shade in (colour, deep(colour), light(colour))]
    names, colours = zip(*shades, *(("", shade) for shade in (INK, CHEEK, MILK)), strict=True)
    return list(names), np.array(colours, np.float32)


def _background_shades(background: Colour) -> Array:
    """All shades that occur on a background, including its backdrops and shadows."""
    dark_shade = mix(background, (90, 100, 150), 0.2)
    strength = 1.0 if sum(background) > 300 else 0.35
    pale_shades = [mix(background, MILK, strength * share) for share in (0.3, 0.5, 0.75, 0.85)]
    shades = [
        background,
        dark_shade,
        mix(background, dark_shade, 0.65),
        *pale_shades,
        mix(background, (40, 36, 70), 0.22),
    ]
    return np.array([*shades, mix(dark_shade, (40, 36, 70), 0.22)], np.float32)


_NAMES, _ANCHORS = _build_anchors()
_BACKGROUND_SHADES = {name: _background_shades(background) for name, background in BACKGROUNDS.items()}


def _segment(pixels: Array) -> tuple[NDArray[np.str_], Mask]:
    """The name of the nearest subject colour of each pixel, and the mask of the subject."""
    border = np.ones(pixels.shape[:2], bool)
    border[_BORDER:-_BORDER, _BORDER:-_BORDER] = False
    border_pixels = pixels[border]
    background = min(
        _BACKGROUND_SHADES,
        key=lambda name: float(_squared_distances(border_pixels, _BACKGROUND_SHADES[name]).min(1).mean()),
    )
    to_subject = _squared_distances(pixels, _ANCHORS)
    is_background = _squared_distances(pixels, _BACKGROUND_SHADES[background]).min(2) <= to_subject.min(2)
    names = np.array(_NAMES)[to_subject.argmin(2)]
    # The background is flood-filled from the border; what it does not reach is inside, as bellies and eyes may be as
    # pale as clouds. Only gaps of three pixels are passed: a pale creature's outline may have faded in places.
    open_background = _erode(is_background) | (is_background & border)
    return names, _largest_component(~(_dilate(_flood_fill(open_background & border, open_background)) & is_background))


def _squared_distances(pixels: Array, anchors: Array) -> Array:
    """Squared distance of every pixel to every anchor, channel by channel, since a sum over an axis of 3 is slow."""
    distance: Array = (pixels[..., None, 0] - anchors[:, 0]) ** 2
    for channel in (1, 2):
        distance += (pixels[..., None, channel] - anchors[:, channel]) ** 2
    return distance


def _flood_fill(start: Mask, allowed: Mask) -> Mask:
    """All pixels of `allowed` that are 4-connected to `start`. Terminates, as the mask grows in every round."""
    filled = start
    while True:
        dilated = _dilate(filled) & allowed
        if (dilated == filled).all():
            return filled
        filled = dilated


def _dilate(mask: Mask) -> Mask:
    """Add the four neighbours of each pixel."""
    dilated = mask.copy()
    dilated[1:] |= mask[:-1]
    dilated[:-1] |= mask[1:]
    dilated[:, 1:] |= mask[:, :-1]
    dilated[:, :-1] |= mask[:, 1:]
    return dilated


def _erode(mask: Mask) -> Mask:
    """Remove the pixels with a neighbour outside the mask."""
    return ~_dilate(~mask)


def _largest_component(inside: Mask) -> Mask:
    """The largest connected component."""
    largest, remaining = np.zeros_like(inside), inside.copy()
    while remaining.sum() > largest.sum():
        start = np.zeros_like(remaining)
        start.flat[int(remaining.argmax())] = True
        component = _flood_fill(start, remaining)
        remaining &= ~component
        if component.sum() > largest.sum():
            largest = component
    return largest


def _crop_to_square(inside: Mask, pixels: Array) -> tuple[Array, Array]:
    """Outline (grid, grid) and pixels (grid, grid, 3), in 0…1, of the square around the subject; grey outside it."""
    rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    top, left, height, width = rows[0], columns[0], np.ptp(rows) + 1, np.ptp(columns) + 1
    side = max(height, width)
    y, x = (side - height) // 2, (side - width) // 2
    canvas = np.full((side, side, 4), 127, np.uint8)
    canvas[..., 3] = 0
    mask = inside[top : top + height, left : left + width]
    target = canvas[y : y + height, x : x + width]
    target[mask, :3] = pixels[top : top + height, left : left + width][mask]
    target[mask, 3] = 255
    layers: list[Array] = [
        np.asarray(
            Image.fromarray(canvas[..., layer]).resize((_GRID_SIZE, _GRID_SIZE), Image.Resampling.BOX), np.float32
        )
        / np.float32(255)
        for layer in range(4)
    ]
    return layers[3], np.stack(layers[:3], axis=2).astype(np.float32)
