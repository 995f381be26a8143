"""What a base can do, by the committed lists: `python -m trainer.demo.figures BASE [--prompts N] [--sheet FILE]`.

Each prompt is sampled once, from the seed that stands beside it; the judges know nothing of the base or the tagger.
"""

import argparse
import json
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline
from PIL import Image

from trainer.demo.world import withheld
from trainer.demo.world.drawing import SIDE
from trainer.demo.world.scenes import EARS
from trainer.demo.world.scoring import Judge, share

GUIDANCE = 3.0
STEPS = 20
_COLUMNS = 10


def figures(
    base: StableDiffusionPipeline, judge: Judge, name: str, count: int
) -> tuple[dict[str, float], list[Image.Image]]:
    """Shares of the first `count` prompts of a list whose picture shows what was asked; and the pictures.

    `kind` holds creatures to their very ears, `shape` asks only for a creature.
    """
    asked = withheld.prompts(name)[:count]
    drawn = [drawing(base, prompt.prompt, prompt.seed) for prompt in asked]
    pairs = [(prompt, judge.judge(picture)) for prompt, picture in zip(asked, drawn, strict=True)]
    colours = [prompt.colour == answer.colour for prompt, answer in pairs]
    kinds = [prompt.kind == answer.kind for prompt, answer in pairs]
    shapes = [
        kind or (prompt.kind in EARS and answer.kind in EARS)
        for kind, (prompt, answer) in zip(kinds, pairs, strict=True)
    ]
    found = {
        "prompts": len(asked),
        "colour": share(colours),
        "shape": share(shapes),
        "kind": share(kinds),
        "shape and colour": share([both == (True, True) for both in zip(shapes, colours, strict=True)]),
        "kind and colour": share([both == (True, True) for both in zip(kinds, colours, strict=True)]),
    }
    return found, drawn


@torch.no_grad()
def drawing(base: StableDiffusionPipeline, prompt: str, seed: int) -> Image.Image:
    picture: Image.Image = base(
        prompt,
        width=SIDE,
        height=SIDE,
        num_inference_steps=STEPS,
        guidance_scale=GUIDANCE,
        generator=torch.Generator().manual_seed(seed),
    ).images[0]
    return picture


def sheet(pictures: list[Image.Image]) -> Image.Image:
    """All of them in rows."""
    wide, high = pictures[0].size
    whole = Image.new("RGB", (wide * _COLUMNS, high * -(-len(pictures) // _COLUMNS)), "white")
    for place, picture in enumerate(pictures):
        whole.paste(picture, (place % _COLUMNS * wide, place // _COLUMNS * high))
    return whole


def main() -> None:
    asked = argparse.ArgumentParser(prog="python -m trainer.demo.figures", description=__doc__)
    asked.add_argument("base", type=Path)
    asked.add_argument("--prompts", type=int, default=200, help="of each list")
    asked.add_argument("--sheet", type=Path, help="a PNG of all pictures")
    said = asked.parse_args()
    base = StableDiffusionPipeline.from_pretrained(
        said.base, local_files_only=True, dtype=torch.float32, safety_checker=None, requires_safety_checker=False
    )
    base.set_progress_bar_config(disable=True)
    judge, shown = Judge(), []
    for name in ("evaluation", "combinations"):
        found, drawn = figures(base, judge, name, said.prompts)
        shown += drawn
        print(json.dumps({"list": name, **found}))  # noqa: T201 - this is what it is for
    if said.sheet:
        sheet(shown).save(said.sheet)


if __name__ == "__main__":
    main()
