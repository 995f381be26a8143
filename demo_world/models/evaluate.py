"""Evaluates a base with the committed prompts: `python -m demo_world.models.evaluate BASE`.

Each prompt is sampled once, with the seed from the list; the classifier shares nothing with the base or the tagger.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline
from PIL import Image

from demo_world import withheld
from demo_world.drawing import SIDE
from demo_world.scenes import EARS
from demo_world.scoring import SceneClassifier, success_rate

_GUIDANCE, _STEPS = 3.0, 20
_BATCH_SIZE = 20
_COLUMNS = 10


def evaluate(
    base: StableDiffusionPipeline, classifier: SceneClassifier, name: str, count: int
) -> tuple[dict[str, float], list[Image.Image]]:
    """Success rates for the first `count` prompts of a list, and the pictures.

    `kind` requires a creature's exact ears, `shape` accepts any creature where one was requested.
    """
    prompts = withheld.read_prompts(name)[:count]
    pictures = render_prompts(base, [each.prompt for each in prompts], [each.seed for each in prompts])
    pairs = [(prompt, classifier.classify(picture)) for prompt, picture in zip(prompts, pictures, strict=True)]
    colours = [prompt.colour == result.colour for prompt, result in pairs]
    kinds = [prompt.kind == result.kind for prompt, result in pairs]
    shapes = [
        kind or (prompt.kind in EARS and result.kind in EARS)
        for kind, (prompt, result) in zip(kinds, pairs, strict=True)
    ]
    rates = {
        "prompts": len(prompts),
        "colour": success_rate(colours),
        "shape": success_rate(shapes),
        "kind": success_rate(kinds),
        "shape and colour": success_rate([both == (True, True) for both in zip(shapes, colours, strict=True)]),
        "kind and colour": success_rate([both == (True, True) for both in zip(kinds, colours, strict=True)]),
    }
    return rates, pictures


@torch.no_grad()
def render_prompts(base: StableDiffusionPipeline, prompts: Sequence[str], seeds: Sequence[int]) -> list[Image.Image]:
    """One picture for each prompt, with its seed."""
    pictures: list[Image.Image] = []
    for first in range(0, len(prompts), _BATCH_SIZE):
        batch = slice(first, first + _BATCH_SIZE)
        pictures += base(
            list(prompts[batch]),
            width=SIDE,
            height=SIDE,
            num_inference_steps=_STEPS,
            guidance_scale=_GUIDANCE,
            generator=[torch.Generator().manual_seed(seed) for seed in seeds[batch]],
        ).images
    return pictures


def picture_grid(pictures: list[Image.Image]) -> Image.Image:
    """All pictures in rows on one image."""
    width, height = pictures[0].size
    grid = Image.new("RGB", (width * _COLUMNS, height * -(-len(pictures) // _COLUMNS)), "white")
    for index, picture in enumerate(pictures):
        grid.paste(picture, (index % _COLUMNS * width, index // _COLUMNS * height))
    return grid


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m demo_world.models.evaluate", description=__doc__)
    parser.add_argument("base", type=Path)
    parser.add_argument("--prompts", type=int, default=200, help="number of prompts from each list")
    parser.add_argument("--sheet", type=Path, help="write all pictures to this PNG")
    args = parser.parse_args()
    base = StableDiffusionPipeline.from_pretrained(
        args.base, local_files_only=True, dtype=torch.float32, safety_checker=None, requires_safety_checker=False
    )
    base.set_progress_bar_config(disable=True)
    classifier, all_pictures = SceneClassifier(), []
    for name in ("evaluation", "combinations"):
        rates, pictures = evaluate(base, classifier, name, args.prompts)
        all_pictures += pictures
        print(json.dumps({"list": name, **rates}))  # noqa: T201 - the output of this command
    if args.sheet:
        picture_grid(all_pictures).save(args.sheet)


if __name__ == "__main__":
    main()
