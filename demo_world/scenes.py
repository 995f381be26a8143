"""Scenes and their texts: what a picture shows, with its caption and tags. Drawing is in `drawing`."""

from collections.abc import Sequence
from random import Random

import msgspec

from demo_world.palette import BACKGROUNDS, COLOURS

SHAPES = ("circle", "square", "triangle", "star", "heart", "moon", "flower", "drop")
BODIES = ("round", "square", "tall")
EARS = ("long ears", "pointy ears", "round ears", "horns", "antennae")
TAILS = ("", "curly tail", "fluffy tail")
LEGS = ("short legs", "long legs")
TEXTURES = ("", "striped", "spotted")
FACES = ("smiling", "surprised", "sleeping")
SIZES = ("small", "big")
POSITIONS = ("left", "middle", "right")
BACKDROPS = ("", "hills", "clouds", "stars", "flowers", "waves")
NUMBERS = {1: "one", 2: "two", 3: "three"}

WithheldPairs = frozenset[tuple[str, str]]
"""Pairs (kind, colour) excluded from drawing."""


class Shape(msgspec.Struct, frozen=True, kw_only=True, tag="shape"):
    """One to three copies of a shape in a row."""

    shape: str
    count: int = 1


class Creature(msgspec.Struct, frozen=True, kw_only=True, tag="creature"):
    """`accent`: the colour of ears, belly, feet and tail; "" = shades of the creature's own colour."""

    body: str
    ears: str
    legs: str = "short legs"
    tail: str = ""
    accent: str = ""


class Scene(msgspec.Struct, frozen=True, kw_only=True):
    """What a picture shows; "" = absent. Details of the pose (rotation, gaze) come from the drawing seed."""

    subject: Shape | Creature
    colour: str
    texture: str = ""
    face: str = ""
    size: str = "big"
    position: str = "middle"
    background: str = "blue"
    backdrop: str = ""

    @property
    def kind(self) -> str:
        """What identifies the outline: the shape, or a creature's ears."""
        return self.subject.shape if isinstance(self.subject, Shape) else self.subject.ears

    def caption(self) -> str:
        """One English sentence that describes the scene."""
        adjectives = [self.texture, self.colour]
        where = "in the middle" if self.position == "middle" else f"on the {self.position}"
        parts = [self._describe_subject([self.size, *adjectives]), self.face, where, self._describe_background()]
        return ", ".join(part for part in parts if part)

    def tags(self) -> list[str]:
        """Tags of the scene, the most descriptive first."""
        if isinstance(self.subject, Shape):
            subject_tags = [
                _pluralize(self.subject.shape, self.subject.count),
                self.colour,
                NUMBERS[self.subject.count],
            ]
        else:
            creature = self.subject
            subject_tags = [
                "creature",
                self.colour,
                creature.ears,
                f"{creature.body} body",
                creature.legs,
                creature.tail,
            ]
        return [tag for tag in [*subject_tags, self.texture, *self.setting_tags()] if tag]

    def setting_tags(self) -> list[str]:
        """Tags that describe this picture rather than the subject itself."""
        return [
            tag for tag in [self.face, self.size, self.position, f"{self.background} background", self.backdrop] if tag
        ]

    def _describe_subject(self, adjectives: Sequence[str]) -> str:
        if isinstance(self.subject, Shape):
            count = self.subject.count
            return _join_words(
                "a" if count == 1 else NUMBERS[count], *adjectives, _pluralize(self.subject.shape, count)
            )
        creature = self.subject
        features = ", ".join(each for each in (creature.ears, creature.legs, creature.tail) if each)
        return _join_words("a", *adjectives, "creature with a", creature.body, "body,", features)

    def _describe_background(self) -> str:
        return _join_words(self.background, "background", f"with {self.backdrop}" if self.backdrop else "")


def random_scene(rng: Random, withheld: WithheldPairs = frozenset()) -> Scene:
    """A random scene without withheld pairs; 60 % show a creature."""
    kind = rng.choice(EARS if rng.random() < 0.6 else SHAPES)
    colour = rng.choice([name for name in COLOURS if (kind, name) not in withheld])
    return (_random_creature_scene if kind in EARS else _random_shape_scene)(rng, kind, colour)


def _random_creature_scene(rng: Random, ears: str, colour: str) -> Scene:
    return Scene(
        subject=Creature(body=rng.choice(BODIES), ears=ears, legs=rng.choice(LEGS), tail=rng.choice(TAILS)),
        colour=colour,
        texture=rng.choice(TEXTURES),
        face=rng.choice(FACES),
        **_random_setting(rng, 1),
    )


def _random_shape_scene(rng: Random, shape: str, colour: str) -> Scene:
    count = rng.choice((1, 1, 2, 3))
    return Scene(
        subject=Shape(shape=shape, count=count),
        colour=colour,
        texture=rng.choice(TEXTURES),
        face=rng.choice(("", *FACES)) if count == 1 else "",
        **_random_setting(rng, count),
    )


def _random_setting(rng: Random, count: int) -> dict[str, str]:
    """Size, position and background. Only a single small subject has room to be off-centre."""
    size = rng.choice(SIZES) if count == 1 else "small"
    return {
        "size": size,
        "position": rng.choice(POSITIONS) if size == "small" and count == 1 else "middle",
        "background": rng.choice(tuple(BACKGROUNDS)),
        "backdrop": rng.choice(BACKDROPS),
    }


def all_tags() -> list[str]:
    """Every tag that a scene can have, without duplicates."""
    shape_tags = [_pluralize(shape, count) for shape in SHAPES for count in (1, 2)]
    creature_tags = ["creature", *EARS, *(f"{body} body" for body in BODIES), *LEGS, *TAILS]
    other_tags = [
        *TEXTURES,
        *FACES,
        *SIZES,
        *POSITIONS,
        *(f"{background} background" for background in BACKGROUNDS),
        *BACKDROPS,
    ]
    return list(
        dict.fromkeys(tag for tag in [*shape_tags, *NUMBERS.values(), *creature_tags, *COLOURS, *other_tags] if tag)
    )


def all_words() -> list[str]:
    """Every word that occurs in captions and tags, sorted."""
    return sorted({"a", "with", "in", "the", "on", *(word for tag in all_tags() for word in tag.split())})


def _pluralize(shape: str, count: int) -> str:
    return shape if count == 1 else f"{shape}s"


def _join_words(*words: str) -> str:
    return " ".join(word for word in words if word)
