"""Pictures the project draws itself: one creature of the demo world in many scenes, each with its tags. Needs no torch.

`python -m trainer.demo.pictures FOLDER --count 12 --seed 0 [--trigger WORD] [--concept NAME]` writes `000.png` and
`000.txt`, …
"""

import argparse
from pathlib import Path
from random import Random

from PIL import Image

from trainer.demo.world.concepts import CONCEPTS, SEEN
from trainer.demo.world.drawing import draw as drawn

SIZES = ((96, 96), (128, 96), (96, 128))
"""Pixels; three aspects, so that buckets have something to do."""


def draw(seed: int, index: int, concept: str = "momo") -> tuple[Image.Image, list[str]]:
    """Picture `index` of the series `seed` of a concept, and what is on it but for the concept's name."""
    chance = Random(f"loratory/{concept}/{seed}/{index}")
    shown = CONCEPTS[concept]
    scene = shown.scene(chance, SEEN)
    return drawn(scene, f"{concept}/{seed}/{index}", chance.choice(SIZES)), shown.tags(scene)[1:]


def write(folder: Path, *, count: int, seed: int, trigger: str = "", concept: str = "momo") -> list[Path]:
    """Draw `count` pictures into the folder, each with its tags beside it (the trigger first); gives the pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for index in range(count):
        picture, tags = draw(seed, index, concept)
        path = folder / f"{index:03}.png"
        picture.save(path)
        path.with_suffix(".txt").write_text(", ".join([trigger, *tags] if trigger else tags) + "\n", encoding="utf-8")
        written.append(path)
    return written


def main() -> None:
    asked = argparse.ArgumentParser(prog="python -m trainer.demo.pictures", description=__doc__)
    asked.add_argument("folder", type=Path)
    asked.add_argument("--count", type=int, default=12)
    asked.add_argument("--seed", type=int, default=0)
    asked.add_argument("--trigger", default="", help="a word that stands first in every caption")
    asked.add_argument("--concept", default="momo", choices=sorted(CONCEPTS))
    said = asked.parse_args()
    write(said.folder, count=said.count, seed=said.seed, trigger=said.trigger, concept=said.concept)


if __name__ == "__main__":
    main()
