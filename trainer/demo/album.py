"""The pictures that models are trained on, drawn once into a folder: by index, so drawing can stop and go on."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from random import Random

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from trainer.demo.world.drawing import SIDE, draw, scribble
from trainer.demo.world.scenes import Scene
from trainer.demo.world.withheld import tagging_scene, training_scene

_PAGE = 512
"""Pictures of one file."""

SIZES = ((SIDE, SIDE), (96, 96), (128, 96), (96, 128))

Page = Callable[[int], Image.Image]


def scenes(seed: int, count: int) -> list[Scene]:
    return [training_scene(seed, index) for index in range(count)]


def pictures(folder: Path, *, seed: int, count: int) -> Tensor:
    """The pictures of `scenes`: uint8, [count, 3, side, side]."""
    return _album(folder / f"pictures-{seed}", partial(_picture, seed), count)


def scribbles(folder: Path, *, seed: int, count: int) -> Tensor:
    """Pictures of nothing: they keep an autoencoder open for what the world does not have."""
    return _album(folder / f"scribbles-{seed}", partial(_scribble, seed), count)


def tagged(folder: Path, *, seed: int, count: int) -> Tensor:
    """Pictures of `tagging_scene`s in several sizes, as a tagger gets to see them."""
    return _album(folder / f"tagged-{seed}", partial(_tagged, seed), count)


def as_seen(picture: Image.Image) -> Image.Image:
    """What WD's preprocessing makes of an opaque picture: on a white square, scaled to `SIDE` (bicubic)."""
    side = max(picture.size)
    square = Image.new("RGB", (side, side), "white")
    square.paste(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
    return square if side == SIDE else square.resize((SIDE, SIDE), Image.Resampling.BICUBIC)


def _picture(seed: int, index: int) -> Image.Image:
    return draw(training_scene(seed, index), f"train/{seed}/{index}")


def _scribble(seed: int, index: int) -> Image.Image:
    return scribble(training_scene(seed, -1 - index), Random(f"loratory/scribble/{seed}/{index}"))


def _tagged(seed: int, index: int) -> Image.Image:
    size = Random(f"loratory/size/{seed}/{index}").choice(SIZES)
    return as_seen(draw(tagging_scene(seed, index), f"tagging/{seed}/{index}", size))


def _album(folder: Path, page: Page, count: int) -> Tensor:
    folder.mkdir(parents=True, exist_ok=True)
    numbers = range(-(-count // _PAGE))
    missing = [number for number in numbers if not (folder / f"{number:04}.npy").is_file()]
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(partial(_draw_page, folder, page), missing))
    pages: Sequence[np.ndarray[tuple[int, ...], np.dtype[np.uint8]]] = [
        np.load(folder / f"{number:04}.npy") for number in numbers
    ]
    return torch.from_numpy(np.concatenate(pages)[:count])


def _draw_page(folder: Path, page: Page, number: int) -> None:
    drawn = [np.asarray(page(number * _PAGE + place)) for place in range(_PAGE)]
    half_written = folder / f".{number:04}.npy"
    np.save(half_written, np.stack(drawn).transpose(0, 3, 1, 2))
    half_written.replace(folder / f"{number:04}.npy")


def as_input(pixels: Tensor, device: torch.device) -> Tensor:
    """uint8 to float32 in -1…1."""
    return pixels.to(device).float() / 127.5 - 1
