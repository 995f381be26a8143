"""Model families: one module each, one protocol, one table. Adding a family touches one module and this table.

A base is a diffusers pipeline folder with safetensors weights. What it is, is read from its `model_index.json` and
checked before any model code runs; pickled weights and code in the folder are refused.
"""

import hashlib
import importlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from contracts.errors import Rejected
from contracts.recipe import Layers

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

FAMILIES = {"StableDiffusionPipeline": "trainer.families.sd1"}
"""Pipeline class named by model_index.json → the module that knows it."""

_INDEX_LIMIT = 1_000_000
"""Bytes of a model_index.json at most; real ones have one thousand."""

Tensors = dict[str, "torch.Tensor"]


class Model(Protocol):
    """A loaded base: all that training and sampling need to know of its family.

    Encodings are for one picture or caption, float32 on the CPU, without batch dimension: they go into the cache.
    Batched tensors (`latents`, `noise`, `times`, `texts`) stand on `denoiser`'s device.
    """

    identity: str
    """sha256 over everything of the base that decides what is learned."""
    pixel_identity: str
    """The same over what encodes pixels only, …"""
    text_identity: str
    """… and over what encodes text only."""
    denoiser: Any
    """The part that is trained: a diffusers model (its mixins have no types), frozen, on its device."""
    factor: int
    """Pixels of a picture's side for one cell of its latents' side."""

    def targets(self, layers: Layers) -> tuple[str, ...]:
        """Suffixes of the names of the modules that get an adapter."""
        ...

    def encode_pixels(self, pixels: "torch.Tensor") -> Tensors:
        """[3, height, width] in -1…1 → what `latents` needs."""
        ...

    def latent_shape(self, encoded: Tensors) -> "torch.Size": ...

    def latents(self, encoded: Tensors, noise: "torch.Tensor") -> "torch.Tensor":
        """One sample of the picture's latent distribution, chosen by `noise` of the latents' shape, scaled."""
        ...

    def encode_text(self, caption: str) -> Tensors: ...

    def is_cut(self, caption: str) -> bool:
        """Is the caption longer than the text encoder reads?"""
        ...

    def time(self, share: float) -> float:
        """The time on the family's own scale at a share (in [0, 1)) of the training times."""
        ...

    def noised(self, latents: "torch.Tensor", noise: "torch.Tensor", times: "torch.Tensor") -> "torch.Tensor": ...

    def predict(self, noisy: "torch.Tensor", times: "torch.Tensor", texts: Tensors) -> "torch.Tensor": ...

    def target(self, latents: "torch.Tensor", noise: "torch.Tensor", times: "torch.Tensor") -> "torch.Tensor":
        """What `predict` should have said."""
        ...

    def weights(self, times: "torch.Tensor", gamma: float) -> "torch.Tensor":
        """Min-SNR weights (Hang et al. 2023) of the squared error at these times, one for each sample."""
        ...

    def render(self, prompt: str, *, size: tuple[int, int], steps: int, guidance: float, seed: int) -> "Image":
        """One picture, by the base's own pipeline and scheduler, from noise of `seed` drawn on the CPU."""
        ...

    def kohya_name(self, module: str) -> str:
        """A denoiser module's name in kohya's files, without the `.lora_…` ending."""
        ...

    def diffusers_name(self, module: str) -> str:
        """A denoiser module's name in diffusers' files."""
        ...

    def header(self) -> Mapping[str, str]:
        """What finished files must say about the family (`ss_base_model_version`, `modelspec.architecture`, …)."""
        ...


def load(folder: Path, *, device: "torch.device", dtype: "torch.dtype") -> Model:
    """The base in this folder, the denoiser in `dtype` and frozen; Rejected says what is missing or not supported."""
    kind = index_of(folder).get("_class_name")
    if not isinstance(kind, str) or kind not in FAMILIES:
        raise Rejected(f"{folder.name} is a {kind!s}; trainable are {', '.join(sorted(FAMILIES))}")
    return cast("Model", importlib.import_module(FAMILIES[kind]).load(folder, device=device, dtype=dtype))


def index_of(folder: Path) -> dict[str, Any]:
    """The folder's model_index.json; Rejected if there is none, so this is no pipeline folder."""
    index = folder / "model_index.json"
    if not index.is_file() or index.stat().st_size > _INDEX_LIMIT:
        raise Rejected(f"{folder.name} is no diffusers pipeline folder: it has no model_index.json")
    try:
        found = json.loads(index.read_bytes())
    except ValueError as error:
        raise Rejected(f"{folder.name}/model_index.json is no JSON: {error}") from error
    if not isinstance(found, dict):
        raise Rejected(f"{folder.name}/model_index.json is no JSON object")
    return found


def weights_of(folder: Path, part: str) -> list[Path]:
    """The safetensors files of one part, the half-precision ones (`*.fp16.*`) only if there are no others."""
    if not (folder / part / "config.json").is_file():
        raise Rejected(f"{folder.name} is no whole base: {part}/config.json is missing")
    found = sorted((folder / part).glob("*.safetensors"))
    if not found and any((folder / part).glob("*.bin")):
        raise Rejected(f"{folder.name}/{part} has only .bin weights: those are pickles that can run code; convert them")
    if not found:
        raise Rejected(f"{folder.name} is no whole base: {part} has no .safetensors weights")
    whole = [file for file in found if not is_half(file)]
    return whole or [file for file in found if is_half(file)]


def is_half(file: Path) -> bool:
    return ".fp16" in file.suffixes or ".fp16-" in file.name


def digest_of(files: list[Path]) -> str:
    """sha256 over names and bytes of files, in the order of their names."""
    whole = hashlib.sha256()
    for file in sorted(files, key=lambda file: file.name):
        with file.open("rb") as stream:
            whole.update(f"{file.name} {hashlib.file_digest(stream, 'sha256').hexdigest()}\n".encode())
    return whole.hexdigest()


def digest_over(*parts: str) -> str:
    """One digest over several."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def signature_of(folder: Path) -> str:
    """A quick look at a folder's files (names, sizes, times): has anything changed since it was loaded?"""
    seen = [(file, file.stat()) for file in sorted(folder.rglob("*.*")) if file.is_file()]
    return digest_over(*(f"{file.relative_to(folder)} {stat.st_size} {stat.st_mtime_ns}" for file, stat in seen))
