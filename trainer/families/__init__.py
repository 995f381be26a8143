"""Model families: one module each, one protocol, one table. Adding a family touches its module and this table.

A base model is a diffusers pipeline folder with safetensors weights. The family is read from `model_index.json` and
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
"""Pipeline class named by model_index.json → the module that implements it."""

_MAX_INDEX_BYTES = 1_000_000
"""Maximum size of a model_index.json; real ones have about one thousand bytes."""

Tensors = dict[str, "torch.Tensor"]


class Model(Protocol):
    """A loaded base model: everything training and sampling need from its family.

    Encodings are for one picture or caption, float32 on the CPU, without batch dimension: they go into the cache.
    Batched tensors (`latents`, `noise`, `timesteps`, `texts`) are on `denoiser`'s device.
    """

    base_digest: str
    """sha256 over everything in the base that affects training."""
    vae_digest: str
    """sha256 over what encodes pixels."""
    text_encoder_digest: str
    """sha256 over what encodes text."""
    denoiser: Any
    """The part that is trained: a diffusers model (its mixins are untyped), frozen, on its device."""
    vae_scale_factor: int
    """Pixels per latent cell along one side."""

    def target_modules(self, layers: Layers) -> tuple[str, ...]:
        """Name suffixes of the modules that get LoRA weights."""
        ...

    def encode_pixels(self, pixels: "torch.Tensor") -> Tensors:
        """Encode [3, height, width] in -1…1 into what `latents` needs."""
        ...

    def latent_shape(self, encoded: Tensors) -> "torch.Size": ...

    def latents(self, encoded: Tensors, noise: "torch.Tensor") -> "torch.Tensor":
        """One sample of the picture's latent distribution, scaled; `noise` has the latents' shape."""
        ...

    def encode_text(self, caption: str) -> Tensors: ...

    def is_truncated(self, caption: str) -> bool:
        """Whether the caption is longer than the text encoder's limit."""
        ...

    def timestep(self, fraction: float) -> float:
        """The timestep on the family's own scale at a fraction (in [0, 1)) of the training range."""
        ...

    def add_noise(
        self, latents: "torch.Tensor", noise: "torch.Tensor", timesteps: "torch.Tensor"
    ) -> "torch.Tensor": ...

    def predict(self, noisy_latents: "torch.Tensor", timesteps: "torch.Tensor", texts: Tensors) -> "torch.Tensor": ...

    def target(self, latents: "torch.Tensor", noise: "torch.Tensor", timesteps: "torch.Tensor") -> "torch.Tensor":
        """The training target for `predict`: noise or velocity."""
        ...

    def min_snr_weights(self, timesteps: "torch.Tensor", gamma: float) -> "torch.Tensor":
        """Min-SNR weights (Hang et al. 2023) of the squared error at these timesteps, one per sample."""
        ...

    def render(self, prompt: str, *, size: tuple[int, int], steps: int, guidance: float, seed: int) -> "Image":
        """Generate one picture with the base's own pipeline and scheduler; noise is drawn on the CPU from `seed`."""
        ...

    def kohya_name(self, module: str) -> str:
        """A denoiser module's name in kohya's files, without the `.lora_…` ending."""
        ...

    def diffusers_name(self, module: str) -> str:
        """A denoiser module's name in diffusers' files."""
        ...

    def header(self) -> Mapping[str, str]:
        """File header entries for the family (`ss_base_model_version`, `modelspec.architecture`, …)."""
        ...


def load(folder: Path, *, device: "torch.device", dtype: "torch.dtype") -> Model:
    """Load a base model, its denoiser frozen and in `dtype`; Rejected if a part is missing or not supported."""
    pipeline_class = read_model_index(folder).get("_class_name")
    if not isinstance(pipeline_class, str) or pipeline_class not in FAMILIES:
        raise Rejected(f"{folder.name} is a {pipeline_class!s}; trainable are {', '.join(sorted(FAMILIES))}")
    module = importlib.import_module(FAMILIES[pipeline_class])
    return cast("Model", module.load(folder, device=device, dtype=dtype))


def read_model_index(folder: Path) -> dict[str, Any]:
    """Parse the folder's model_index.json; Rejected if there is none, so this is not a pipeline folder."""
    file = folder / "model_index.json"
    if not file.is_file() or file.stat().st_size > _MAX_INDEX_BYTES:
        raise Rejected(f"{folder.name} is not a diffusers pipeline folder: it has no model_index.json")
    try:
        index = json.loads(file.read_bytes())
    except ValueError as error:
        raise Rejected(f"{folder.name}/model_index.json is not valid JSON: {error}") from error
    if not isinstance(index, dict):
        raise Rejected(f"{folder.name}/model_index.json is not a JSON object")
    return index


def weight_files(folder: Path, part: str) -> list[Path]:
    """The safetensors files of one part; half-precision ones (`*.fp16.*`) only if there are no others."""
    if not (folder / part / "config.json").is_file():
        raise Rejected(f"{folder.name} is incomplete: {part}/config.json is missing")
    files = sorted((folder / part).glob("*.safetensors"))
    if not files and any((folder / part).glob("*.bin")):
        raise Rejected(f"{folder.name}/{part} has only .bin weights: those are pickles that can run code; convert them")
    if not files:
        raise Rejected(f"{folder.name} is incomplete: {part} has no .safetensors weights")
    full_precision = [file for file in files if not is_half_precision(file)]
    return full_precision or files


def is_half_precision(file: Path) -> bool:
    return ".fp16" in file.suffixes or ".fp16-" in file.name


def digest_files(files: list[Path]) -> str:
    """sha256 over names and contents of files, ordered by name."""
    total = hashlib.sha256()
    for file in sorted(files, key=lambda file: file.name):
        with file.open("rb") as stream:
            total.update(f"{file.name} {hashlib.file_digest(stream, 'sha256').hexdigest()}\n".encode())
    return total.hexdigest()


def digest_strings(*parts: str) -> str:
    """sha256 over several strings."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def folder_signature(folder: Path) -> str:
    """Digest of names, sizes and modification times of a folder's files: a cheap check for changes."""
    files = [(file, file.stat()) for file in sorted(folder.rglob("*.*")) if file.is_file()]
    return digest_strings(*(f"{file.relative_to(folder)} {stat.st_size} {stat.st_mtime_ns}" for file, stat in files))
