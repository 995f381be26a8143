"""What there is to see: scenes, and the words for them. A scene knows its caption and its tags; nothing here draws."""

from collections.abc import Sequence
from random import Random

import msgspec

from trainer.demo.world.palette import COLOURS, GROUNDS

SHAPES = ("circle", "square", "triangle", "star", "heart", "moon", "flower", "drop")
BODIES = ("round", "square", "tall")
EARS = ("long ears", "pointy ears", "round ears", "horns", "antennae")
TAILS = ("", "curly tail", "fluffy tail")
LEGS = ("short legs", "long legs")
TEXTURES = ("", "striped", "spotted")
FACES = ("smiling", "surprised", "sleeping")
SIZES = ("small", "big")
PLACES = ("left", "middle", "right")
BACKDROPS = ("", "hills", "clouds", "stars", "flowers", "waves")
NUMBERS = {1: "one", 2: "two", 3: "three"}

Withheld = frozenset[tuple[str, str]]
"""Pairs (kind, colour) that are not to be drawn."""


class Shape(msgspec.Struct, frozen=True, kw_only=True, tag="shape"):
    """One to three of a shape in a row."""

    shape: str
    count: int = 1


class Creature(msgspec.Struct, frozen=True, kw_only=True, tag="creature"):
    """`accent`: the colour of ears, belly, feet and tail; none = shades of the creature's own colour."""

    body: str
    ears: str
    legs: str = "short legs"
    tail: str = ""
    accent: str = ""


class Scene(msgspec.Struct, frozen=True, kw_only=True):
    """All that is to be seen; empty strings for what is not. Which way a creature leans or looks is the seed's."""

    subject: Shape | Creature
    colour: str
    texture: str = ""
    face: str = ""
    size: str = "big"
    place: str = "middle"
    ground: str = "blue"
    backdrop: str = ""

    @property
    def kind(self) -> str:
        """What its outline is: the shape, or the creature's ears."""
        return self.subject.shape if isinstance(self.subject, Shape) else self.subject.ears

    def caption(self) -> str:
        """One English sentence."""
        looks = [self.texture, self.colour]
        where = "in the middle" if self.place == "middle" else f"on the {self.place}"
        parts = [self._what([self.size, *looks]), self.face, where, self._behind()]
        return ", ".join(part for part in parts if part)

    def tags(self) -> list[str]:
        """What is to be seen, most telling first."""
        if isinstance(self.subject, Shape):
            own = [_plural(self.subject.shape, self.subject.count), self.colour, NUMBERS[self.subject.count]]
        else:
            creature = self.subject
            own = ["creature", self.colour, creature.ears, f"{creature.body} body", creature.legs, creature.tail]
        return [tag for tag in [*own, self.texture, *self.setting()] if tag]

    def setting(self) -> list[str]:
        """The tags that are not of the subject itself but of this picture of it."""
        return [tag for tag in [self.face, self.size, self.place, f"{self.ground} background", self.backdrop] if tag]

    def _what(self, looks: Sequence[str]) -> str:
        if isinstance(self.subject, Shape):
            count = self.subject.count
            return _joined("a" if count == 1 else NUMBERS[count], *looks, _plural(self.subject.shape, count))
        creature = self.subject
        features = ", ".join(each for each in (creature.ears, creature.legs, creature.tail) if each)
        return _joined("a", *looks, "creature with a", creature.body, "body,", features)

    def _behind(self) -> str:
        return _joined(self.ground, "background", f"with {self.backdrop}" if self.backdrop else "")


def any_scene(chance: Random, withheld: Withheld = frozenset()) -> Scene:
    """A scene of chance: six in ten are creatures. Withheld pairs are never offered, so they cannot come up."""
    kind = chance.choice(EARS if chance.random() < 0.6 else SHAPES)
    colour = chance.choice([name for name in COLOURS if (kind, name) not in withheld])
    return (_creature if kind in EARS else _shape)(chance, kind, colour)


def _creature(chance: Random, ears: str, colour: str) -> Scene:
    return Scene(
        subject=Creature(body=chance.choice(BODIES), ears=ears, legs=chance.choice(LEGS), tail=chance.choice(TAILS)),
        colour=colour,
        texture=chance.choice(TEXTURES),
        face=chance.choice(FACES),
        **_around(chance, 1),
    )


def _shape(chance: Random, shape: str, colour: str) -> Scene:
    count = chance.choice((1, 1, 2, 3))
    return Scene(
        subject=Shape(shape=shape, count=count),
        colour=colour,
        texture=chance.choice(TEXTURES),
        face=chance.choice(("", *FACES)) if count == 1 else "",
        **_around(chance, count),
    )


def _around(chance: Random, count: int) -> dict[str, str]:
    """Where it stands. Only one small thing has room to stand aside."""
    size = chance.choice(SIZES) if count == 1 else "small"
    return {
        "size": size,
        "place": chance.choice(PLACES) if size == "small" and count == 1 else "middle",
        "ground": chance.choice(tuple(GROUNDS)),
        "backdrop": chance.choice(BACKDROPS),
    }


def all_tags() -> list[str]:
    """Every tag that a scene can have, each once."""
    counted = [_plural(shape, count) for shape in SHAPES for count in (1, 2)]
    creatures = ["creature", *EARS, *(f"{body} body" for body in BODIES), *LEGS, *TAILS]
    around = [*TEXTURES, *FACES, *SIZES, *PLACES, *(f"{ground} background" for ground in GROUNDS), *BACKDROPS]
    return list(dict.fromkeys(tag for tag in [*counted, *NUMBERS.values(), *creatures, *COLOURS, *around] if tag))


def all_words() -> list[str]:
    """Every word of captions and tags, sorted."""
    return sorted({"a", "with", "in", "the", "on", *(word for tag in all_tags() for word in tag.split())})


def _plural(shape: str, count: int) -> str:
    return shape if count == 1 else f"{shape}s"


def _joined(*words: str) -> str:
    return " ".join(word for word in words if word)
