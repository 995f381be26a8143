"""What a picture shows, told by comparing it with pictures drawn for the purpose. Nothing here is trained.

The ground is known by the picture's border, the subject is what stands out from it; its colour is the vivid colour most
of it has, its kind that of the drawn outlines nearest to its own. It shares nothing with the tagger.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from random import Random

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from trainer.demo.world.concepts import Concept, siblings
from trainer.demo.world.drawing import draw
from trainer.demo.world.palette import CHEEK, COLOURS, GROUNDS, INK, MILK, Colour, deep, light, mix
from trainer.demo.world.withheld import KINDS, judging_scene

Mask = NDArray[np.bool_]
Numbers = NDArray[np.float32]

_SIDE = 64
_GRID = 24
"""Cells of a side of an outline that is compared."""

_BORDER = 3
_NEAREST = 3
_FAR = 0.03
"""Mean square distance (of colours in 0…1) to the nearest drawing at which a concept is no longer taken for itself;
drawn ones lie at 0.002 to 0.021."""

_LEAST, _MOST = 0.02, 0.7
"""Shares of the picture that a subject has at least and at most."""

_SOFT = ImageFilter.GaussianBlur(1.0)

_HEAD = 9
"""Rows of an outline, from above, that count twice: creatures differ by what is on their heads."""


@dataclass(frozen=True)
class Seen:
    """What stands out: its colour ("" if none does), its outline, and its pixels in the outline's frame."""

    colour: str
    outline: Numbers
    pixels: Numbers


@dataclass(frozen=True)
class Answer:
    """What a picture shows; `far` is how little its outline is like the nearest ones drawn (0 to 1)."""

    kind: str
    colour: str
    far: float


def look(picture: Image.Image) -> Seen | None:
    """The subject of a picture; none, if nothing stands out from the ground."""
    pixels = np.asarray(picture.convert("RGB").resize((_SIDE, _SIDE), Image.Resampling.BOX), np.float32)
    names, inside = _subject(pixels)
    if not _LEAST < inside.mean() < _MOST:
        return None
    votes = Counter(names[inside].tolist())
    colour = max(COLOURS, key=lambda name: votes[name])
    return Seen(colour if votes[colour] else "", *_framed(inside, pixels))


class Memory:
    """Drawn examples with their names, and which of them something is nearest to."""

    def __init__(self, examples: Iterable[tuple[Numbers, str]]) -> None:
        features, names = zip(*examples, strict=True)
        self._features = np.stack([each.ravel() for each in features])
        self._squares = (self._features**2).sum(1)
        self._names = names

    def nearest(self, feature: Numbers) -> tuple[str, float]:
        """The name most of the nearest examples have, and the mean square distance to the nearest of that name."""
        flat = feature.ravel()
        far = np.maximum(self._squares - 2 * self._features @ flat + flat @ flat, 0) / flat.size
        near = np.argsort(far)[:_NEAREST]
        name = Counter(self._names[place] for place in near).most_common(1)[0][0]
        return name, float(min(far[place] for place in near if self._names[place] == name))


class Judge:
    """Tells kind and colour. Made from drawings of its own: `each` of every kind, of seeds no training has."""

    def __init__(self, each: int = 160) -> None:
        self._memory = Memory(self._examples(each))

    def _examples(self, each: int) -> Iterable[tuple[Numbers, str]]:
        wanted = Counter(dict.fromkeys(KINDS, each))
        for index in range(each * len(KINDS) * 8):
            scene = judging_scene("outlines", index)
            if wanted[scene.kind] and (seen := look(draw(scene, f"outlines/{index}"))):
                wanted[scene.kind] -= 1
                yield _headed(seen.outline), scene.kind
                yield _headed(seen.outline[:, ::-1]), scene.kind

    def judge(self, picture: Image.Image) -> Answer:
        seen = look(picture)
        if seen is None:
            return Answer("", "", 1.0)
        kind, far = self._memory.nearest(_headed(seen.outline))
        return Answer(kind, seen.colour, far)


class Recogniser:
    """Tells one concept from everything else: creatures of the base, near relations, other subjects."""

    def __init__(self, concept: Concept, each: int = 150) -> None:
        self._memory = Memory(self._examples(concept, each))

    @staticmethod
    def _examples(concept: Concept, each: int) -> Iterable[tuple[Numbers, str]]:
        chance = Random(f"loratory/judge/{concept.name}")
        for index in range(each):
            scenes = [(concept.scene(chance), concept.name), (judging_scene("others", index), "")]
            scenes += [(sibling.scene(chance), "") for sibling in siblings(concept)]
            for place, (scene, name) in enumerate(scenes):
                drawn = draw(scene, f"recogniser/{index}/{place}")
                # Half of them as soft as a small autoencoder draws, whoever is on them.
                if seen := look(drawn.filter(_SOFT) if index % 2 else drawn):
                    yield seen.pixels, name
                    yield seen.pixels[:, ::-1], name

    def knows(self, picture: Image.Image) -> bool:
        """Is it the concept: nearer to its drawings than to all others, and not far from them either?"""
        seen = look(picture)
        if seen is None:
            return False
        name, far = self._memory.nearest(seen.pixels)
        return bool(name) and far <= _FAR


def _headed(outline: Numbers) -> Numbers:
    weighted = outline.copy()
    weighted[:_HEAD] *= 2
    return weighted


def share(right: Sequence[bool]) -> float:
    return sum(right) / len(right) if right else 0.0


def _anchors() -> tuple[list[str], Numbers]:
    """Shades of subjects, by the name of their colour; "" for those that every subject has."""
    shades = [(name, shade) for name, colour in COLOURS.items() for shade in (colour, deep(colour), light(colour))]
    names, colours = zip(*shades, *(("", shade) for shade in (INK, CHEEK, MILK)), strict=True)
    return list(names), np.array(colours, np.float32)


def _shades(ground: Colour) -> Numbers:
    """All that a ground is made of, with its backdrops and shadows."""
    deeper = mix(ground, (90, 100, 150), 0.2)
    pale = 1.0 if sum(ground) > 300 else 0.35
    paler = [mix(ground, MILK, pale * much) for much in (0.3, 0.5, 0.75, 0.85)]
    shades = [ground, deeper, mix(ground, deeper, 0.65), *paler, mix(ground, (40, 36, 70), 0.22)]
    return np.array([*shades, mix(deeper, (40, 36, 70), 0.22)], np.float32)


_NAMES, _ANCHORS = _anchors()
_GROUND_SHADES = {name: _shades(ground) for name, ground in GROUNDS.items()}


def _subject(pixels: Numbers) -> tuple[NDArray[np.str_], Mask]:
    """The nearest colour's name of each pixel, and which pixels belong to the subject."""
    border = np.ones(pixels.shape[:2], bool)
    border[_BORDER:-_BORDER, _BORDER:-_BORDER] = False
    edge = pixels[border]
    ground = min(_GROUND_SHADES, key=lambda name: float(_far(edge, _GROUND_SHADES[name]).min(1).mean()))
    to_subject = _far(pixels, _ANCHORS)
    outside = _far(pixels, _GROUND_SHADES[ground]).min(2) <= to_subject.min(2)
    names = np.array(_NAMES)[to_subject.argmin(2)]
    # What the ground cannot reach from the border is inside: bellies and eyes may be as pale as clouds. It goes only
    # where three pixels are open: a pale creature whose outline has faded here and there must not run out.
    wide = _eroded(outside) | (outside & border)
    return names, _largest(~(_dilated(_reached(wide & border, wide)) & outside))


def _far(pixels: Numbers, anchors: Numbers) -> Numbers:
    """Square distance of every pixel to every anchor; one colour channel at a time, as sums over three are slow."""
    far: Numbers = (pixels[..., None, 0] - anchors[:, 0]) ** 2
    for channel in (1, 2):
        far += (pixels[..., None, channel] - anchors[:, channel]) ** 2
    return far


def _reached(start: Mask, open_to: Mask) -> Mask:
    """All that can be walked to from `start`, up, down and sideways. Ends, since each round reaches more."""
    reached = start
    while True:
        wider = _dilated(reached) & open_to
        if (wider == reached).all():
            return reached
        reached = wider


def _dilated(mask: Mask) -> Mask:
    """With the four neighbours of each pixel."""
    wider = mask.copy()
    wider[1:] |= mask[:-1]
    wider[:-1] |= mask[1:]
    wider[:, 1:] |= mask[:, :-1]
    wider[:, :-1] |= mask[:, 1:]
    return wider


def _eroded(mask: Mask) -> Mask:
    """Without the pixels that have a neighbour outside it."""
    return ~_dilated(~mask)


def _largest(inside: Mask) -> Mask:
    """The largest connected part."""
    best, left = np.zeros_like(inside), inside.copy()
    while left.sum() > best.sum():
        start = np.zeros_like(left)
        start.flat[int(left.argmax())] = True
        part = _reached(start, left)
        left &= ~part
        if part.sum() > best.sum():
            best = part
    return best


def _framed(inside: Mask, pixels: Numbers) -> tuple[Numbers, Numbers]:
    """Outline (grid, grid) and pixels (grid, grid, 3), in 0…1, of the square around the subject; grey outside it."""
    rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    top, left, high, wide = rows[0], columns[0], np.ptp(rows) + 1, np.ptp(columns) + 1
    side = max(high, wide)
    down, across = (side - high) // 2, (side - wide) // 2
    cut = np.full((side, side, 4), 127, np.uint8)
    cut[..., 3] = 0
    own = inside[top : top + high, left : left + wide]
    there = cut[down : down + high, across : across + wide]
    there[own, :3] = pixels[top : top + high, left : left + wide][own]
    there[own, 3] = 255
    layers: list[Numbers] = [
        np.asarray(Image.fromarray(cut[..., layer]).resize((_GRID, _GRID), Image.Resampling.BOX), np.float32)
        / np.float32(255)
        for layer in range(4)
    ]
    return layers[3], np.stack(layers[:3], axis=2).astype(np.float32)
