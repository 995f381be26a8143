"""The models' training pictures, rendered once into a folder. Each depends only on its index: rendering can resume."""

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

from demo_world.drawing import SIDE, draw_scene, draw_scribble
from demo_world.scenes import Scene
from demo_world.withheld import tagging_scene, training_scene

_PICTURES_PER_FILE = 512

PICTURE_SIZES = ((SIDE, SIDE), (96, 96), (128, 96), (96, 128))
"""Sizes in pixels of the tagger's pictures."""

Renderer = Callable[[int], Image.Image]
"""Renders the picture with this index."""


def training_scenes(seed: int, count: int) -> list[Scene]:
    return [training_scene(seed, index) for index in range(count)]


def training_pictures(folder: Path, *, seed: int, count: int) -> Tensor:
    """The pictures of `training_scenes`: uint8, [count, 3, side, side]."""
    return _load_or_render(folder / f"pictures-{seed}", partial(_render_training_picture, seed), count)


def scribbles(folder: Path, *, seed: int, count: int) -> Tensor:
    """Pictures of random shapes, so that the autoencoder can also encode what the demo world does not contain."""
    return _load_or_render(folder / f"scribbles-{seed}", partial(_render_scribble, seed), count)


def tagging_pictures(folder: Path, *, seed: int, count: int) -> Tensor:
    """Pictures of `tagging_scene`s in several sizes, after the tagger's preprocessing."""
    return _load_or_render(folder / f"tagged-{seed}", partial(_render_tagging_picture, seed), count)


def wd_preprocess(picture: Image.Image) -> Image.Image:
    """WD's preprocessing of an opaque picture: padded to a white square, resized to `SIDE` (bicubic)."""
    side = max(picture.size)
    square = Image.new("RGB", (side, side), "white")
    square.paste(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
    return square if side == SIDE else square.resize((SIDE, SIDE), Image.Resampling.BICUBIC)


def _render_training_picture(seed: int, index: int) -> Image.Image:
    return draw_scene(training_scene(seed, index), f"train/{seed}/{index}")


def _render_scribble(seed: int, index: int) -> Image.Image:
    return draw_scribble(training_scene(seed, -1 - index), Random(f"loratory/scribble/{seed}/{index}"))


def _render_tagging_picture(seed: int, index: int) -> Image.Image:
    size = Random(f"loratory/size/{seed}/{index}").choice(PICTURE_SIZES)
    return wd_preprocess(draw_scene(tagging_scene(seed, index), f"tagging/{seed}/{index}", size))


def _load_or_render(folder: Path, render: Renderer, count: int) -> Tensor:
    folder.mkdir(parents=True, exist_ok=True)
    numbers = range(-(-count // _PICTURES_PER_FILE))
    missing = [number for number in numbers if not (folder / f"{number:04}.npy").is_file()]
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(partial(_render_file, folder, render), missing))
    arrays: Sequence[np.ndarray[tuple[int, ...], np.dtype[np.uint8]]] = [
        np.load(folder / f"{number:04}.npy") for number in numbers
    ]
    return torch.from_numpy(np.concatenate(arrays)[:count])


def _render_file(folder: Path, render: Renderer, number: int) -> None:
    pictures = [np.asarray(render(number * _PICTURES_PER_FILE + index)) for index in range(_PICTURES_PER_FILE)]
    temporary = folder / f".{number:04}.npy"
    np.save(temporary, np.stack(pictures).transpose(0, 3, 1, 2))
    temporary.replace(folder / f"{number:04}.npy")


def to_model_input(pixels: Tensor, device: torch.device) -> Tensor:
    """uint8 to float32 in -1…1."""
    return pixels.to(device).float() / 127.5 - 1
