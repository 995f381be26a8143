"""The demo base as a pipeline: the classes and blocks of SD 1.x, but narrow. Less than 12 MB in half precision.

Unlike SD 1.x it predicts velocity, on a schedule that ends in pure noise (Lin et al. 2023): at 8 by 8 latents, a
schedule with a remaining signal would reveal the background colour through the noise. Prompts have up to 40 tokens.
"""

from pathlib import Path
from typing import NamedTuple

from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from demo_world.drawing import SIDE
from demo_world.models.mosaic_init import init_as_mosaic
from demo_world.scenes import all_words
from trainer.engine.tokenizer import make_tokenizer

MAX_TOKENS = 40
"""Maximum length of a prompt, start and end included: the longest caption has 31 words and commas."""

_LATENT_CHANNELS = 8

_EMBEDDING_SIZE = 64
"""Width of the text encoder."""


class BaseParts(NamedTuple):
    """The trainable models of a base, and its tokenizer."""

    vae: AutoencoderKL
    unet: UNet2DConditionModel
    text_encoder: CLIPTextModel
    tokenizer: CLIPTokenizer


def build_untrained(folder: Path) -> BaseParts:
    """A base with random weights from torch's generator; the tokenizer's files are written to the folder."""
    tokenizer = make_tokenizer(folder, words=all_words(), length=MAX_TOKENS)
    return BaseParts(_build_autoencoder(), _build_denoiser(), _build_text_encoder(tokenizer), tokenizer)


def _build_autoencoder() -> AutoencoderKL:
    """Four blocks: one latent per 8 by 8 pixels. Eight channels, since a face at 64 px is only a few latents wide."""
    vae = AutoencoderKL(
        sample_size=SIDE,
        block_out_channels=(16, 32, 48, 64),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        latent_channels=_LATENT_CHANNELS,
        norm_num_groups=2,  # channels normalized together keep their proportions
        scaling_factor=1.0,
    )
    init_as_mosaic(vae)
    return vae


def _build_denoiser() -> UNet2DConditionModel:
    """4 million weights. Each block starts with a zero output, i.e. as an identity (Dhariwal & Nichol 2021)."""
    denoiser = UNet2DConditionModel(
        sample_size=SIDE // 8,
        in_channels=_LATENT_CHANNELS,
        out_channels=_LATENT_CHANNELS,
        block_out_channels=(64, 96, 96, 64),
        layers_per_block=1,
        attention_head_dim=4,
        cross_attention_dim=_EMBEDDING_SIZE,
        norm_num_groups=16,
    )
    for block in denoiser.modules():
        if isinstance(block, ResnetBlock2D):
            nn.init.zeros_(block.conv2.weight)
        elif isinstance(block, Transformer2DModel):
            nn.init.zeros_(block.proj_out.weight)
    nn.init.zeros_(denoiser.conv_out.weight)
    return denoiser


def _build_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=_EMBEDDING_SIZE,
            intermediate_size=4 * _EMBEDDING_SIZE,
            num_hidden_layers=3,
            num_attention_heads=4,
            max_position_embeddings=MAX_TOKENS,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def build_scheduler() -> DDIMScheduler:
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,  # has no effect with trailing steps, but diffusers warns about any other value
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
    )


def save_pipeline(base: BaseParts, folder: Path) -> None:
    """Save the pipeline in half precision, in the layout of `StableDiffusionPipeline.from_pretrained`."""
    pipeline = StableDiffusionPipeline(
        vae=base.vae,
        unet=base.unet,
        text_encoder=base.text_encoder,
        tokenizer=base.tokenizer,
        scheduler=build_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    for part in (base.vae, base.unet, base.text_encoder):
        part.half()
    pipeline.save_pretrained(folder, safe_serialization=True)
