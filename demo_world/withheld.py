"""The split between training and evaluation: withheld pairs and evaluation prompts, fixed before the base was trained.

`lists/` holds them as committed; the functions here generate them, and a test compares the two. Training uses
`training_scene(seed, index)`; the classifiers that score it use `evaluation_scene`, which shares no seeds with it.
"""

from pathlib import Path
from random import Random

import msgspec

from demo_world.concepts import CONCEPTS, EVALUATION_BACKGROUNDS, TRAINING_BACKGROUNDS
from demo_world.palette import COLOURS
from demo_world.scenes import EARS, SHAPES, Scene, WithheldPairs, random_scene

LISTS = Path(__file__).parent / "lists"
KINDS = (*SHAPES, *EARS)

Pair = tuple[str, str]


def choose_withheld_pairs() -> list[Pair]:
    """Two colours for each of ten kinds, so that every kind and every colour still occurs in other combinations."""
    rng = Random("loratory/withheld")
    kinds, colours = rng.sample(KINDS, 10), rng.sample(sorted(COLOURS), 10)
    return sorted((kind, colours[(index + step) % 10]) for index, kind in enumerate(kinds) for step in (0, 3))


WITHHELD: WithheldPairs = frozenset(choose_withheld_pairs())
"""Pairs (kind, colour) that occur in no training picture."""


class Prompt(msgspec.Struct, frozen=True, kw_only=True):
    """An evaluation prompt with its seed, and the kind and colour its picture must show."""

    prompt: str
    seed: int
    kind: str
    colour: str


class ConceptTrial(msgspec.Struct, frozen=True, kw_only=True):
    """One LoRA: trained on 12 pictures of the concept drawn from `seed`, evaluated with one sample per prompt."""

    concept: str
    seed: int
    prompts: list[str]


def read_prompts(name: str) -> list[Prompt]:
    """Read a committed list of prompts: `evaluation` or `combinations`."""
    return msgspec.json.decode((LISTS / f"{name}.json").read_bytes(), type=list[Prompt])


def read_trials() -> list[ConceptTrial]:
    return msgspec.json.decode((LISTS / "concepts.json").read_bytes(), type=list[ConceptTrial])


def read_demo_prompts() -> list[str]:
    """Prompts the demo samples before and after training, with the trigger of its concept."""
    return msgspec.json.decode((LISTS / "demo.json").read_bytes(), type=list[str])


def training_scene(seed: int, index: int) -> Scene:
    return random_scene(Random(f"loratory/train/{seed}/{index}"), withheld=WITHHELD)


def tagging_scene(seed: int, index: int) -> Scene:
    """For training taggers: withheld pairs are allowed, only the seeds differ from those of the evaluation."""
    return random_scene(Random(f"loratory/tagging/{seed}/{index}"))


def evaluation_scene(name: str, index: int) -> Scene:
    """For classifiers and evaluation: includes withheld pairs."""
    return random_scene(Random(f"loratory/judge/{name}/{index}"))


def build_prompts(pairs: list[Pair], count: int, name: str) -> list[Prompt]:
    """Cycle through the pairs, alternating between sentences and tag lists."""
    prompts = []
    for index in range(count):
        kind, colour = pairs[index % len(pairs)]
        scene = _random_scene_of(kind, colour, Random(f"loratory/prompt/{name}/{index}"))
        text = scene.caption() if index // len(pairs) % 2 == 0 else ", ".join(scene.tags())
        prompts.append(Prompt(prompt=text, seed=index, kind=kind, colour=colour))
    return prompts


def trained_pairs() -> list[Pair]:
    """All pairs that training may show, shuffled."""
    pairs = [(kind, colour) for kind in KINDS for colour in COLOURS if (kind, colour) not in WITHHELD]
    return Random("loratory/pairs").sample(pairs, len(pairs))


def build_trials() -> list[ConceptTrial]:
    """Three trials per concept, each with twenty prompts on backgrounds that its training pictures do not have."""
    trials = []
    for concept in CONCEPTS.values():
        for seed in range(3):
            rng = Random(f"loratory/trial/{concept.name}/{seed}")
            scenes = [concept.scene(rng, EVALUATION_BACKGROUNDS) for _ in range(20)]
            texts = [", ".join(concept.tags(scene)) for scene in scenes]
            trials.append(ConceptTrial(concept=concept.name, seed=seed, prompts=texts))
    return trials


def build_demo_prompts() -> list[str]:
    momo = CONCEPTS["momo"]
    rng = Random("loratory/demo/4")
    backgrounds = [TRAINING_BACKGROUNDS] * 2 + [EVALUATION_BACKGROUNDS] * 3
    return [", ".join(momo.tags(momo.scene(rng, allowed))) for allowed in backgrounds]


def _random_scene_of(kind: str, colour: str, rng: Random) -> Scene:
    """A random scene of this kind and colour, with a single subject: several are no easier to classify."""
    while (scene := random_scene(rng)).kind != kind or scene.tags()[2] in {"two", "three"}:
        pass
    return msgspec.structs.replace(scene, colour=colour)


def write_lists(folder: Path = LISTS) -> None:
    """Generate the lists again."""
    lists = {
        "withheld": choose_withheld_pairs(),
        "evaluation": build_prompts(trained_pairs(), 200, "evaluation"),
        "combinations": build_prompts(choose_withheld_pairs(), 100, "combinations"),
        "concepts": build_trials(),
        "demo": build_demo_prompts(),
    }
    for name, entries in lists.items():
        (folder / f"{name}.json").write_bytes(msgspec.json.format(msgspec.json.encode(entries), indent=1) + b"\n")
