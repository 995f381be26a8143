"""Stable Diffusion 1.x, and 2.x which has the same classes: a UNet that predicts noise (or velocity) of 4 latents."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from diffusers import DDPMScheduler, StableDiffusionPipeline
from diffusers.utils import logging as diffusers_logging
from PIL.Image import Image
from transformers.utils import logging as transformers_logging

from contracts.errors import Rejected
from contracts.recipe import Layers
from trainer.families import Model, Tensors, digest_of, digest_over, index_of, is_half, weights_of

PARTS = {
    "unet": ("diffusers", {"UNet2DConditionModel"}),
    "vae": ("diffusers", {"AutoencoderKL"}),
    "text_encoder": ("transformers", {"CLIPTextModel"}),
    "tokenizer": ("transformers", {"CLIPTokenizer", "CLIPTokenizerFast"}),
}
"""What model_index.json must name: nothing else is ever loaded by the names it gives."""

_ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
_REST_OF_TRANSFORMER = ("ff.net.0.proj", "ff.net.2", "proj_in", "proj_out")

_SD2_TEXT_WIDTH = 1024
"""SD 2.x reads OpenCLIP's 1024 numbers a token, SD 1.x CLIP-L's 768; the two differ in nothing else we need."""


def load(folder: Path, *, device: torch.device, dtype: torch.dtype) -> Model:
    """The base in this folder; Rejected says what is missing or not supported."""
    pixel_files, text_files, denoiser_files = _checked(folder)
    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()
    try:
        pipeline = StableDiffusionPipeline.from_pretrained(
            folder,
            local_files_only=True,
            use_safetensors=True,
            variant="fp16" if is_half(denoiser_files[0]) else None,
            dtype=torch.float32,
            safety_checker=None,
            feature_extractor=None,
            image_encoder=None,
            requires_safety_checker=False,
        )
    except (OSError, ValueError, TypeError, KeyError, RuntimeError) as error:
        raise Rejected(f"{folder.name} cannot be loaded: {error}") from error
    return SD1(
        pipeline,
        device=device,
        dtype=dtype,
        digests=Digests(digest_of(pixel_files), digest_of(text_files), digest_of(denoiser_files)),
    )


def _checked(folder: Path) -> tuple[list[Path], list[Path], list[Path]]:
    """The files that decide what is learned: of pixels, text and denoiser (with its scheduler)."""
    index = index_of(folder)
    for part, (library, classes) in PARTS.items():
        named = index.get(part)
        if not (isinstance(named, list) and len(named) == 2 and named[0] == library and named[1] in classes):
            raise Rejected(f"{folder.name} is no SD 1.x base: its {part} is {named!r}, not {library}'s {min(classes)}")
    scheduler = index.get("scheduler")
    if not (isinstance(scheduler, list) and scheduler[0] == "diffusers" and str(scheduler[1]).endswith("Scheduler")):
        raise Rejected(f"{folder.name} is no SD 1.x base: its scheduler is {scheduler!r}")
    noising = folder / "scheduler" / "scheduler_config.json"
    words = [file for file in sorted((folder / "tokenizer").glob("*")) if file.suffix in {".json", ".txt"}]
    if not noising.is_file() or not words:
        raise Rejected(f"{folder.name} is no whole base: {'tokenizer' if noising.is_file() else 'scheduler'} is empty")
    pixels, text, denoiser = (
        [folder / part / "config.json", *weights_of(folder, part)] for part in ("vae", "text_encoder", "unet")
    )
    return pixels, text + words, [*denoiser[1:], denoiser[0], noising]


class Digests(NamedTuple):
    """sha256 over the files of each part."""

    pixels: str
    text: str
    denoiser: str


class SD1:
    """A loaded SD 1.x base (`trainer.families.Model`). VAE and text encoder stay float32: they run once a picture."""

    def __init__(
        self,
        pipeline: StableDiffusionPipeline,
        *,
        device: torch.device,
        dtype: torch.dtype,
        digests: Digests,
    ) -> None:
        self.pixel_identity = digests.pixels
        self.text_identity = digests.text
        self.identity = digest_over(digests.denoiser, digests.pixels, digests.text)
        self._pipeline = pipeline
        self._tokenizer = pipeline.tokenizer
        self._vae = pipeline.vae.requires_grad_(False).eval().to(device)
        self._text_encoder = pipeline.text_encoder.requires_grad_(False).eval().to(device)
        # Not channels last: on CPUs it is 3 % quicker, and six times less exact (its group norms).
        self.denoiser = pipeline.unet.requires_grad_(False).to(device)
        if dtype != torch.float32:
            self.denoiser.to(dtype)
        self._noising = DDPMScheduler.from_config(pipeline.scheduler.config)
        self._kind = str(self._noising.config.prediction_type)
        self._device = device
        self.factor = 2 ** (len(self._vae.config.block_out_channels) - 1)
        pipeline.set_progress_bar_config(disable=True)
        self._refuse_misfits()
        # Looked up every step: on the device once.
        self._kept: torch.Tensor = self._noising.alphas_cumprod.to(device)
        self._noising.alphas_cumprod = self._kept

    def _refuse_misfits(self) -> None:
        if self._kind not in {"epsilon", "v_prediction"}:
            raise Rejected(f"bases that predict {self._kind!r} are not supported, only epsilon and v_prediction")
        channels = self.denoiser.config.in_channels
        if channels != self._vae.config.latent_channels:
            raise Rejected(f"the base's denoiser reads {channels} channels: an inpainting base cannot be trained")
        widths = self.denoiser.config.cross_attention_dim, self._text_encoder.config.hidden_size
        if widths[0] != widths[1]:
            raise Rejected(f"the base's denoiser reads text of width {widths[0]}, its encoder writes {widths[1]}")

    def targets(self, layers: Layers) -> tuple[str, ...]:
        return _ATTENTION if layers == "attention" else (*_ATTENTION, *_REST_OF_TRANSFORMER)

    @torch.no_grad()
    def encode_pixels(self, pixels: torch.Tensor) -> Tensors:
        """Mean and standard deviation, so that training draws from the distribution as SD itself was trained."""
        found = self._vae.encode(pixels[None].to(self._device)).latent_dist
        return {"mean": found.mean[0].float().cpu(), "std": found.std[0].float().cpu()}

    def latent_shape(self, encoded: Tensors) -> torch.Size:
        return encoded["mean"].shape

    def latents(self, encoded: Tensors, noise: torch.Tensor) -> torch.Tensor:
        drawn: torch.Tensor = (encoded["mean"] + encoded["std"] * noise) * self._vae.config.scaling_factor
        return drawn

    @torch.no_grad()
    def encode_text(self, caption: str) -> Tensors:
        words = self._tokenizer(
            caption,
            padding="max_length",
            max_length=self._tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        )
        hidden = self._text_encoder(words.input_ids.to(self._device))[0]
        return {"hidden": hidden[0].float().cpu()}

    def is_cut(self, caption: str) -> bool:
        limit = self._tokenizer.model_max_length
        # Truncation just past the limit keeps the tokenizer from warning about what we are here to count.
        words: list[int] = self._tokenizer(caption, truncation=True, max_length=limit + 1).input_ids
        return len(words) > int(limit)

    def time(self, share: float) -> float:
        return int(share * int(self._noising.config.num_train_timesteps))

    def noised(self, latents: torch.Tensor, noise: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
        noisy: torch.Tensor = self._noising.add_noise(latents, noise, times.long())
        return noisy

    def predict(self, noisy: torch.Tensor, times: torch.Tensor, texts: Tensors) -> torch.Tensor:
        said: torch.Tensor = self.denoiser(noisy, times, texts["hidden"], return_dict=False)[0]
        return said

    def target(self, latents: torch.Tensor, noise: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
        if self._kind == "epsilon":
            return noise
        velocity: torch.Tensor = self._noising.get_velocity(latents, noise, times.long())
        return velocity

    def weights(self, times: torch.Tensor, gamma: float) -> torch.Tensor:
        kept = self._kept[times.long()]
        snr: torch.Tensor = kept / (1 - kept)
        if self._kind == "v_prediction":
            return snr.clamp(max=gamma) / (snr + 1)
        # min(snr, gamma) / snr, written so that a base with zero terminal SNR does not divide 0 by 0.
        return (1 / snr * gamma).clamp(max=1.0)

    @torch.no_grad()
    def render(self, prompt: str, *, size: tuple[int, int], steps: int, guidance: float, seed: int) -> Image:
        picture: Image = self._pipeline(
            prompt,
            width=size[0],
            height=size[1],
            num_inference_steps=steps,
            guidance_scale=guidance,
            generator=torch.Generator().manual_seed(seed),
        ).images[0]
        return picture

    def kohya_name(self, module: str) -> str:
        return "lora_unet_" + module.replace(".", "_")

    def diffusers_name(self, module: str) -> str:
        return f"unet.{module}"

    def header(self) -> Mapping[str, str]:
        second = self._text_encoder.config.hidden_size == _SD2_TEXT_WIDTH
        wide = "-768-v" if self._kind == "v_prediction" else "-512"
        return {
            "ss_base_model_version": "sd_v2" if second else "sd_v1",
            "ss_v2": str(second),
            "modelspec.architecture": f"stable-diffusion-v2{wide}/lora" if second else "stable-diffusion-v1/lora",
            "modelspec.prediction_type": "v" if self._kind == "v_prediction" else "epsilon",
            "modelspec.timestep_range": f"0,{self._noising.config.num_train_timesteps}",
        }
