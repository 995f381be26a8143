"""Stable Diffusion 1.x, and 2.x which has the same classes: a UNet that predicts noise or velocity of 4 latents."""

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
from trainer.families import (
    Model,
    Tensors,
    digest_files,
    digest_strings,
    is_half_precision,
    read_model_index,
    weight_files,
)

PARTS = {
    "unet": ("diffusers", {"UNet2DConditionModel"}),
    "vae": ("diffusers", {"AutoencoderKL"}),
    "text_encoder": ("transformers", {"CLIPTextModel"}),
    "tokenizer": ("transformers", {"CLIPTokenizer", "CLIPTokenizerFast"}),
}
"""Library and classes that model_index.json must name for each part: no other class is ever loaded by name."""

_ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
_REST_OF_TRANSFORMER = ("ff.net.0.proj", "ff.net.2", "proj_in", "proj_out")

_SD2_TEXT_WIDTH = 1024
"""Embedding width of SD 2.x's OpenCLIP (SD 1.x's CLIP-L has 768); the two differ in nothing else we need."""


def load(folder: Path, *, device: torch.device, dtype: torch.dtype) -> Model:
    """Load a base model; Rejected if a part is missing or not supported."""
    vae_files, text_files, denoiser_files = _check_files(folder)
    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()
    try:
        pipeline = StableDiffusionPipeline.from_pretrained(
            folder,
            local_files_only=True,
            use_safetensors=True,
            variant="fp16" if is_half_precision(denoiser_files[0]) else None,
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
        digests=Digests(digest_files(vae_files), digest_files(text_files), digest_files(denoiser_files)),
    )


def _check_files(folder: Path) -> tuple[list[Path], list[Path], list[Path]]:
    """The files that affect training: of the VAE, of tokenizer and text encoder, and of denoiser and scheduler."""
    index = read_model_index(folder)
    for part, (library, classes) in PARTS.items():
        entry = index.get(part)
        if not (isinstance(entry, list) and len(entry) == 2 and entry[0] == library and entry[1] in classes):
            expected = f"{library}'s {min(classes)}"
            raise Rejected(f"{folder.name} is not an SD 1.x base: its {part} is {entry!r}, not {expected}")
    scheduler = index.get("scheduler")
    if not (isinstance(scheduler, list) and scheduler[0] == "diffusers" and str(scheduler[1]).endswith("Scheduler")):
        raise Rejected(f"{folder.name} is not an SD 1.x base: its scheduler is {scheduler!r}")
    scheduler_config = folder / "scheduler" / "scheduler_config.json"
    tokenizer = [file for file in sorted((folder / "tokenizer").glob("*")) if file.suffix in {".json", ".txt"}]
    if not scheduler_config.is_file() or not tokenizer:
        empty = "tokenizer" if scheduler_config.is_file() else "scheduler"
        raise Rejected(f"{folder.name} is incomplete: {empty} is empty")
    vae, text_encoder, denoiser = (
        [folder / part / "config.json", *weight_files(folder, part)] for part in ("vae", "text_encoder", "unet")
    )
    return vae, text_encoder + tokenizer, [*denoiser[1:], denoiser[0], scheduler_config]


class Digests(NamedTuple):
    """sha256 over the files of each part."""

    vae: str
    text_encoder: str
    denoiser: str


class SD1:
    """A loaded SD 1.x base (`trainer.families.Model`). VAE and text encoder stay float32: they run once per picture."""

    def __init__(
        self,
        pipeline: StableDiffusionPipeline,
        *,
        device: torch.device,
        dtype: torch.dtype,
        digests: Digests,
    ) -> None:
        self.vae_digest = digests.vae
        self.text_encoder_digest = digests.text_encoder
        self.base_digest = digest_strings(digests.denoiser, digests.vae, digests.text_encoder)
        self._pipeline = pipeline
        self._tokenizer = pipeline.tokenizer
        self._vae = pipeline.vae.requires_grad_(False).eval().to(device)
        self._text_encoder = pipeline.text_encoder.requires_grad_(False).eval().to(device)
        # Not channels-last: on CPUs that is 3 % faster, but its group norms are six times less exact.
        self.denoiser = pipeline.unet.requires_grad_(False).to(device)
        if dtype != torch.float32:
            self.denoiser.to(dtype)
        self._noise_scheduler = DDPMScheduler.from_config(pipeline.scheduler.config)
        self._prediction_type = str(self._noise_scheduler.config.prediction_type)
        self._device = device
        self.vae_scale_factor = 2 ** (len(self._vae.config.block_out_channels) - 1)
        pipeline.set_progress_bar_config(disable=True)
        self._refuse_unsupported()
        # Read at every step, so moved to the device once.
        self._alphas_cumprod: torch.Tensor = self._noise_scheduler.alphas_cumprod.to(device)
        self._noise_scheduler.alphas_cumprod = self._alphas_cumprod

    def _refuse_unsupported(self) -> None:
        if self._prediction_type not in {"epsilon", "v_prediction"}:
            raise Rejected(
                f"bases that predict {self._prediction_type!r} are not supported, only epsilon and v_prediction"
            )
        channels = self.denoiser.config.in_channels
        if channels != self._vae.config.latent_channels:
            raise Rejected(f"the base's denoiser has {channels} input channels: an inpainting base cannot be trained")
        widths = self.denoiser.config.cross_attention_dim, self._text_encoder.config.hidden_size
        if widths[0] != widths[1]:
            raise Rejected(f"the base's denoiser expects text of width {widths[0]}, its encoder produces {widths[1]}")

    def target_modules(self, layers: Layers) -> tuple[str, ...]:
        return _ATTENTION if layers == "attention" else (*_ATTENTION, *_REST_OF_TRANSFORMER)

    @torch.no_grad()
    def encode_pixels(self, pixels: torch.Tensor) -> Tensors:
        """Mean and standard deviation, because SD was trained on samples of the latent distribution."""
        distribution = self._vae.encode(pixels[None].to(self._device)).latent_dist
        return {"mean": distribution.mean[0].float().cpu(), "std": distribution.std[0].float().cpu()}

    def latent_shape(self, encoded: Tensors) -> torch.Size:
        return encoded["mean"].shape

    def latents(self, encoded: Tensors, noise: torch.Tensor) -> torch.Tensor:
        latents: torch.Tensor = (encoded["mean"] + encoded["std"] * noise) * self._vae.config.scaling_factor
        return latents

    @torch.no_grad()
    def encode_text(self, caption: str) -> Tensors:
        tokens = self._tokenizer(
            caption,
            padding="max_length",
            max_length=self._tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        )
        hidden = self._text_encoder(tokens.input_ids.to(self._device))[0]
        return {"hidden": hidden[0].float().cpu()}

    def is_truncated(self, caption: str) -> bool:
        limit = self._tokenizer.model_max_length
        # Truncating just past the limit keeps the tokenizer from logging a warning about what is counted here.
        tokens: list[int] = self._tokenizer(caption, truncation=True, max_length=limit + 1).input_ids
        return len(tokens) > int(limit)

    def timestep(self, fraction: float) -> float:
        return int(fraction * int(self._noise_scheduler.config.num_train_timesteps))

    def add_noise(self, latents: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        noisy_latents: torch.Tensor = self._noise_scheduler.add_noise(latents, noise, timesteps.long())
        return noisy_latents

    def predict(self, noisy_latents: torch.Tensor, timesteps: torch.Tensor, texts: Tensors) -> torch.Tensor:
        model_pred: torch.Tensor = self.denoiser(noisy_latents, timesteps, texts["hidden"], return_dict=False)[0]
        return model_pred

    def target(self, latents: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        if self._prediction_type == "epsilon":
            return noise
        velocity: torch.Tensor = self._noise_scheduler.get_velocity(latents, noise, timesteps.long())
        return velocity

    def min_snr_weights(self, timesteps: torch.Tensor, gamma: float) -> torch.Tensor:
        alphas = self._alphas_cumprod[timesteps.long()]
        snr: torch.Tensor = alphas / (1 - alphas)
        if self._prediction_type == "v_prediction":
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
        is_sd2 = self._text_encoder.config.hidden_size == _SD2_TEXT_WIDTH
        is_v_prediction = self._prediction_type == "v_prediction"
        sd2_size = "-768-v" if is_v_prediction else "-512"
        return {
            "ss_base_model_version": "sd_v2" if is_sd2 else "sd_v1",
            "ss_v2": str(is_sd2),
            "modelspec.architecture": f"stable-diffusion-v2{sd2_size}/lora" if is_sd2 else "stable-diffusion-v1/lora",
            "modelspec.prediction_type": "v" if is_v_prediction else "epsilon",
            "modelspec.timestep_range": f"0,{self._noise_scheduler.config.num_train_timesteps}",
        }
