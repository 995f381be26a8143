"""Draws pictures of one creature of the demo world in many scenes, each with its tags. Needs no torch.

`python -m demo_world.pictures FOLDER --count 12 --seed 0 [--trigger WORD] [--concept NAME]` writes `000.png` and
`000.txt`, …, and prints one line of JSON with prompts for a LoRA trained on them: `{"concept": …, "prompts": […]}`.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from random import Random

from PIL import Image

from demo_world.concepts import CONCEPTS, concept_scenes
from demo_world.drawing import SIDE, draw_scene
from demo_world.withheld import read_demo_prompts

SQUARE = ((SIDE, SIDE),)
"""The picture size in pixels that the demo base was trained on."""
ASPECTS = ((96, 96), (128, 96), (96, 128))
"""Three aspect ratios, to exercise aspect buckets."""

TaggedPicture = tuple[Image.Image, list[str]]


def draw_pictures(
    seed: int, count: int, concept: str = "momo", sizes: Sequence[tuple[int, int]] = SQUARE
) -> list[TaggedPicture]:
    """`count` pictures of a concept, each with its tags (without the trigger). A larger `count` only appends."""
    rng = Random(f"loratory/sizes/{concept}/{seed}")
    return [
        (draw_scene(scene, f"{concept}/{seed}/{index}", rng.choice(sizes)), CONCEPTS[concept].tags(scene)[1:])
        for index, scene in enumerate(concept_scenes(CONCEPTS[concept], seed, count))
    ]


def write_pictures(  # noqa: PLR0913 - the parameters of `draw_pictures`, and the trigger
    folder: Path,
    *,
    count: int,
    seed: int,
    trigger: str = "",
    concept: str = "momo",
    sizes: Sequence[tuple[int, int]] = SQUARE,
) -> list[Path]:
    """Draw `count` pictures into the folder, each with a .txt of its tags, trigger first. Returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for index, (picture, tags) in enumerate(draw_pictures(seed, count, concept, sizes)):
        path = folder / f"{index:03}.png"
        picture.save(path)
        path.with_suffix(".txt").write_text(", ".join([trigger, *tags] if trigger else tags) + "\n", encoding="utf-8")
        written.append(path)
    return written


def prompts_with_trigger(trigger: str) -> list[str]:
    """The demo's prompts with this trigger; none without a trigger."""
    return [", ".join([trigger, *prompt.split(", ")[1:]]) for prompt in read_demo_prompts()] if trigger else []


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m demo_world.pictures", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--trigger", default="", help="the first word of every caption")
    parser.add_argument("--concept", default="momo", choices=sorted(CONCEPTS))
    args = parser.parse_args()
    write_pictures(args.folder, count=args.count, seed=args.seed, trigger=args.trigger, concept=args.concept)
    output = {"concept": args.concept, "prompts": prompts_with_trigger(args.trigger)}
    print(json.dumps(output))  # noqa: T201 - read by the calling process


if __name__ == "__main__":
    main()
