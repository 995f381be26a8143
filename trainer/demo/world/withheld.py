"""What training never shows, and the prompts that are asked: written down before the base was trained.

`lists/` holds them as they were committed; the functions here are how they came about, and a test compares the two.
Training draws `training_scene(seed, index)`; what judges it draws from `judging_scene`, which shares no seed with it.
"""

from pathlib import Path
from random import Random

import msgspec

from trainer.demo.world.concepts import CONCEPTS, SEEN, UNSEEN
from trainer.demo.world.palette import COLOURS
from trainer.demo.world.scenes import EARS, SHAPES, Scene, Withheld, any_scene

LISTS = Path(__file__).parent / "lists"
KINDS = (*SHAPES, *EARS)

Pair = tuple[str, str]


def made_pairs() -> list[Pair]:
    """Two colours of each of ten kinds, so that every kind and every colour is still seen in other company."""
    chance = Random("loratory/withheld")
    kinds, colours = chance.sample(KINDS, 10), chance.sample(sorted(COLOURS), 10)
    return sorted((kind, colours[(place + step) % 10]) for place, kind in enumerate(kinds) for step in (0, 3))


WITHHELD: Withheld = frozenset(made_pairs())
"""Pairs (kind, colour) that no training picture shows."""


class Prompt(msgspec.Struct, frozen=True, kw_only=True):
    """One question to a base: what it is asked, from which seed, and what its picture must show."""

    prompt: str
    seed: int
    kind: str
    colour: str


class ConceptTrial(msgspec.Struct, frozen=True, kw_only=True):
    """One LoRA to train: 12 pictures of the concept drawn from the seed, then these prompts, sampled once each."""

    concept: str
    seed: int
    prompts: list[str]


def prompts(name: str) -> list[Prompt]:
    """A committed list of prompts: `evaluation` or `combinations`."""
    return msgspec.json.decode((LISTS / f"{name}.json").read_bytes(), type=list[Prompt])


def trials() -> list[ConceptTrial]:
    return msgspec.json.decode((LISTS / "concepts.json").read_bytes(), type=list[ConceptTrial])


def demo_prompts() -> list[str]:
    """What the demo asks before and after, with the trigger of its concept."""
    return msgspec.json.decode((LISTS / "demo.json").read_bytes(), type=list[str])


def training_scene(seed: int, index: int) -> Scene:
    return any_scene(Random(f"loratory/train/{seed}/{index}"), withheld=WITHHELD)


def tagging_scene(seed: int, index: int) -> Scene:
    """For taggers, which may know everything but how the judged pictures look."""
    return any_scene(Random(f"loratory/tagging/{seed}/{index}"))


def judging_scene(name: str, index: int) -> Scene:
    """Also of withheld pairs: a judge has to know them all."""
    return any_scene(Random(f"loratory/judge/{name}/{index}"))


def made_prompts(pairs: list[Pair], count: int, name: str) -> list[Prompt]:
    """Pairs in turn; sentences and tag lists in turn."""
    asked = []
    for place in range(count):
        kind, colour = pairs[place % len(pairs)]
        scene = _scene_of(kind, colour, Random(f"loratory/prompt/{name}/{place}"))
        text = scene.caption() if place // len(pairs) % 2 == 0 else ", ".join(scene.tags())
        asked.append(Prompt(prompt=text, seed=place, kind=kind, colour=colour))
    return asked


def shown_pairs() -> list[Pair]:
    """All that training shows, shuffled."""
    pairs = [(kind, colour) for kind in KINDS for colour in COLOURS if (kind, colour) not in WITHHELD]
    return Random("loratory/pairs").sample(pairs, len(pairs))


def made_trials() -> list[ConceptTrial]:
    """Each concept three times, with twenty prompts on grounds that its pictures do not have."""
    found = []
    for concept in CONCEPTS.values():
        for seed in range(3):
            chance = Random(f"loratory/trial/{concept.name}/{seed}")
            scenes = [concept.scene(chance, UNSEEN) for _ in range(20)]
            texts = [", ".join(concept.tags(scene)) for scene in scenes]
            found.append(ConceptTrial(concept=concept.name, seed=seed, prompts=texts))
    return found


def made_demo() -> list[str]:
    momo = CONCEPTS["momo"]
    chance = Random("loratory/demo/4")
    return [", ".join(momo.tags(momo.scene(chance, grounds))) for grounds in (SEEN, SEEN, UNSEEN, UNSEEN, UNSEEN)]


def _scene_of(kind: str, colour: str, chance: Random) -> Scene:
    """A scene of chance of this kind, in this colour; one of a kind, since a row of three is no clearer."""
    while (scene := any_scene(chance)).kind != kind or scene.tags()[2] in {"two", "three"}:
        pass
    return msgspec.structs.replace(scene, colour=colour)


def write(folder: Path = LISTS) -> None:
    """Write the lists down anew."""
    made = {
        "withheld": made_pairs(),
        "evaluation": made_prompts(shown_pairs(), 200, "evaluation"),
        "combinations": made_prompts(made_pairs(), 100, "combinations"),
        "concepts": made_trials(),
        "demo": made_demo(),
    }
    for name, content in made.items():
        (folder / f"{name}.json").write_bytes(msgspec.json.format(msgspec.json.encode(content), indent=1) + b"\n")
