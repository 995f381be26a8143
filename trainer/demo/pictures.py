"""Pictures the project draws itself: one creature of the demo world in many scenes, each with its tags. Needs no torch.

`python -m trainer.demo.pictures FOLDER --count 12 --seed 0 [--trigger WORD] [--concept NAME]` writes `000.png` and
`000.txt`, …, and says as one line of JSON what to ask a LoRA that has learnt them: `{"concept": …, "prompts": […]}`.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from random import Random

from PIL import Image

from trainer.demo.world.concepts import CONCEPTS, shown
from trainer.demo.world.drawing import SIDE
from trainer.demo.world.drawing import draw as drawn
from trainer.demo.world.withheld import demo_prompts

SQUARE = ((SIDE, SIDE),)
"""Pixels: the demo base has seen nothing else."""
ASPECTS = ((96, 96), (128, 96), (96, 128))
"""Three aspects, so that buckets have something to do."""

Drawn = tuple[Image.Image, list[str]]


def draw(seed: int, count: int, concept: str = "momo", sizes: Sequence[tuple[int, int]] = SQUARE) -> list[Drawn]:
    """`count` pictures of a concept, each with what is on it but for the concept's name. More begin with the same."""
    chance = Random(f"loratory/sizes/{concept}/{seed}")
    return [
        (drawn(scene, f"{concept}/{seed}/{index}", chance.choice(sizes)), CONCEPTS[concept].tags(scene)[1:])
        for index, scene in enumerate(shown(CONCEPTS[concept], seed, count))
    ]


def write(  # noqa: PLR0913 - what `draw` takes, and the trigger
    folder: Path,
    *,
    count: int,
    seed: int,
    trigger: str = "",
    concept: str = "momo",
    sizes: Sequence[tuple[int, int]] = SQUARE,
) -> list[Path]:
    """Draw `count` pictures into the folder, each with its tags beside it (the trigger first); gives the pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for index, (picture, tags) in enumerate(draw(seed, count, concept, sizes)):
        path = folder / f"{index:03}.png"
        picture.save(path)
        path.with_suffix(".txt").write_text(", ".join([trigger, *tags] if trigger else tags) + "\n", encoding="utf-8")
        written.append(path)
    return written


def prompts(trigger: str) -> list[str]:
    """The demo's five, with this trigger in front."""
    return [", ".join([trigger, *text.split(", ")[1:]]) for text in demo_prompts()] if trigger else []


def main() -> None:
    asked = argparse.ArgumentParser(prog="python -m trainer.demo.pictures", description=__doc__)
    asked.add_argument("folder", type=Path)
    asked.add_argument("--count", type=int, default=12)
    asked.add_argument("--seed", type=int, default=0)
    asked.add_argument("--trigger", default="", help="a word that stands first in every caption")
    asked.add_argument("--concept", default="momo", choices=sorted(CONCEPTS))
    said = asked.parse_args()
    write(said.folder, count=said.count, seed=said.seed, trigger=said.trigger, concept=said.concept)
    print(json.dumps({"concept": said.concept, "prompts": prompts(said.trigger)}))  # noqa: T201 - for who started it


if __name__ == "__main__":
    main()
