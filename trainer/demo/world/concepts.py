"""Creatures that are kept from the base, for LoRAs to learn: fixed designs in two colours, with hats of their own.

The base's own creatures have one colour and no hats, so none of these, nor a near relation, is among what it saw.
"""

from random import Random

import msgspec

from trainer.demo.world.palette import GROUNDS
from trainer.demo.world.scenes import BACKDROPS, FACES, PLACES, SIZES, Creature, Scene


class Concept(msgspec.Struct, frozen=True, kw_only=True):
    """A creature that never changes. `name` is the trigger a LoRA learns it under."""

    name: str
    creature: Creature
    colour: str
    texture: str = ""

    def scene(self, chance: Random, grounds: tuple[str, ...] = tuple(GROUNDS)) -> Scene:
        """The creature somewhere, on one of the grounds."""
        size = chance.choice(SIZES)
        return Scene(
            subject=self.creature,
            colour=self.colour,
            texture=self.texture,
            face=chance.choice(FACES),
            size=size,
            place=chance.choice(PLACES) if size == "small" else "middle",
            ground=chance.choice(grounds),
            backdrop=chance.choice(BACKDROPS),
        )

    def tags(self, scene: Scene) -> list[str]:
        """The trigger and what changes from picture to picture; the rest is for the trigger to stand for."""
        return [self.name, "creature", *scene.setting()]


CONCEPTS: dict[str, Concept] = {
    concept.name: concept
    for concept in (
        Concept(name="momo", creature=Creature(body="round", ears="sprout", accent="white"), colour="pink"),
        Concept(name="bolli", creature=Creature(body="square", ears="mushroom hat", accent="red"), colour="white"),
        Concept(
            name="zibi",
            creature=Creature(body="tall", ears="one horn", legs="long legs", tail="fluffy tail", accent="purple"),
            colour="yellow",
        ),
        Concept(
            name="krok",
            creature=Creature(body="round", ears="crest", tail="curly tail", accent="orange"),
            colour="green",
            texture="striped",
        ),
        Concept(
            name="tinka",
            creature=Creature(body="square", ears="bow", legs="long legs", accent="yellow"),
            colour="teal",
            texture="spotted",
        ),
    )
}

SEEN = ("blue", "green", "yellow", "pink")
"""Grounds of the pictures a LoRA is shown, …"""
UNSEEN = tuple(ground for ground in GROUNDS if ground not in SEEN)
"""… and those it is asked for afterwards."""

_OTHERS = {"pink": "blue", "white": "purple", "yellow": "red", "green": "pink", "teal": "orange"}
_HATS = {"sprout": "crest", "mushroom hat": "sprout", "one horn": "bow", "crest": "one horn", "bow": "mushroom hat"}


def siblings(concept: Concept) -> list[Concept]:
    """Near relations that are not it: in another colour, under another hat, with the two colours swapped."""
    creature = concept.creature
    return [
        msgspec.structs.replace(concept, colour=_OTHERS[concept.colour]),
        msgspec.structs.replace(concept, creature=msgspec.structs.replace(creature, ears=_HATS[creature.ears])),
        msgspec.structs.replace(
            concept,
            colour=creature.accent,
            creature=msgspec.structs.replace(creature, accent=concept.colour),
        ),
    ]


def shown(concept: Concept, seed: int, count: int = 12) -> list[Scene]:
    """The scenes of a data set of the concept, on `SEEN` grounds only."""
    chance = Random(f"loratory/concept/{concept.name}/{seed}")
    return [concept.scene(chance, SEEN) for _ in range(count)]
