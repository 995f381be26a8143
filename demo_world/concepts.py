"""Creatures reserved for LoRA training: fixed designs in two colours, with headwear of their own.

The creatures the base is trained on have one colour and no headwear, so it never saw any of these or a similar one.
"""

from random import Random

import msgspec

from demo_world.palette import BACKGROUNDS
from demo_world.scenes import BACKDROPS, FACES, POSITIONS, SIZES, Creature, Scene


class Concept(msgspec.Struct, frozen=True, kw_only=True):
    """A creature with a fixed design. `name` is the trigger that a LoRA learns for it."""

    name: str
    creature: Creature
    colour: str
    texture: str = ""

    def scene(self, rng: Random, backgrounds: tuple[str, ...] = tuple(BACKGROUNDS)) -> Scene:
        """A random scene with the creature, on one of the backgrounds."""
        size = rng.choice(SIZES)
        return Scene(
            subject=self.creature,
            colour=self.colour,
            texture=self.texture,
            face=rng.choice(FACES),
            size=size,
            position=rng.choice(POSITIONS) if size == "small" else "middle",
            background=rng.choice(backgrounds),
            backdrop=rng.choice(BACKDROPS),
        )

    def tags(self, scene: Scene) -> list[str]:
        """The trigger and the tags that vary between pictures; the fixed design is left to the trigger."""
        return [self.name, "creature", *scene.setting_tags()]


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

TRAINING_BACKGROUNDS = ("blue", "green", "yellow", "pink")
"""Backgrounds of the pictures a LoRA is trained on."""
EVALUATION_BACKGROUNDS = tuple(background for background in BACKGROUNDS if background not in TRAINING_BACKGROUNDS)
"""Backgrounds of the prompts it is evaluated with."""

_OTHER_COLOURS = {"pink": "blue", "white": "purple", "yellow": "red", "green": "pink", "teal": "orange"}
_OTHER_HATS = {
    "sprout": "crest",
    "mushroom hat": "sprout",
    "one horn": "bow",
    "crest": "one horn",
    "bow": "mushroom hat",
}


def similar_concepts(concept: Concept) -> list[Concept]:
    """Near misses of a concept: in another colour, with other headwear, and with its two colours swapped."""
    creature = concept.creature
    return [
        msgspec.structs.replace(concept, colour=_OTHER_COLOURS[concept.colour]),
        msgspec.structs.replace(concept, creature=msgspec.structs.replace(creature, ears=_OTHER_HATS[creature.ears])),
        msgspec.structs.replace(
            concept,
            colour=creature.accent,
            creature=msgspec.structs.replace(creature, accent=concept.colour),
        ),
    ]


def concept_scenes(concept: Concept, seed: int, count: int = 12) -> list[Scene]:
    """The scenes of a data set of the concept, on `TRAINING_BACKGROUNDS` grounds only."""
    rng = Random(f"loratory/concept/{concept.name}/{seed}")
    return [concept.scene(rng, TRAINING_BACKGROUNDS) for _ in range(count)]
