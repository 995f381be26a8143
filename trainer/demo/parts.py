"""The parts of the demo base: classes and blocks of SD 1.x, only narrow. Together below 12 MB in half precision.

Unlike SD 1.x it predicts velocity, on a schedule that ends in pure noise (Lin et al. 2023): at 8 by 8 latents one that
leaves a rest of the picture would show the colour of the ground through the noise. Its text is 40 tokens long.
"""

from pathlib import Path
from typing import NamedTuple

from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from trainer.demo.mosaic import begin_as_mosaic
from trainer.demo.tokens import make_tokenizer
from trainer.demo.world.drawing import SIDE
from trainer.demo.world.scenes import all_words

TOKENS = 40
"""Of a text, ends included: the longest sentence of the world has 31 words and commas."""

_CHANNELS = 8
"""Of a latent."""

_WIDTH = 64
"""Numbers a token."""


class Parts(NamedTuple):
    """What is trained of a base, and the words it knows."""

    vae: AutoencoderKL
    unet: UNet2DConditionModel
    text: CLIPTextModel
    words: CLIPTokenizer


def untrained(folder: Path) -> Parts:
    """Weights of chance, by torch's generator; the tokenizer's files are left in the folder."""
    words = make_tokenizer(folder, words=all_words(), length=TOKENS)
    return Parts(_autoencoder(), _denoiser(), _text_encoder(words), words)


def _autoencoder() -> AutoencoderKL:
    """Four blocks, so a latent for 8 by 8 pixels; of eight channels, for at 64 px a face is a few latents wide."""
    vae = AutoencoderKL(
        sample_size=SIDE,
        block_out_channels=(16, 32, 48, 64),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        latent_channels=_CHANNELS,
        norm_num_groups=2,  # what is normed together keeps its proportions
        scaling_factor=1.0,
    )
    begin_as_mosaic(vae)
    return vae


def _denoiser() -> UNet2DConditionModel:
    """4 million weights. It begins as one that adds nothing: each block finds what to add (Dhariwal & Nichol 2021)."""
    denoiser = UNet2DConditionModel(
        sample_size=SIDE // 8,
        in_channels=_CHANNELS,
        out_channels=_CHANNELS,
        block_out_channels=(64, 96, 96, 64),
        layers_per_block=1,
        attention_head_dim=4,
        cross_attention_dim=_WIDTH,
        norm_num_groups=16,
    )
    for block in denoiser.modules():
        if isinstance(block, ResnetBlock2D):
            nn.init.zeros_(block.conv2.weight)
        elif isinstance(block, Transformer2DModel):
            nn.init.zeros_(block.proj_out.weight)
    nn.init.zeros_(denoiser.conv_out.weight)
    return denoiser


def _text_encoder(words: CLIPTokenizer) -> CLIPTextModel:
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(words),
            hidden_size=_WIDTH,
            intermediate_size=4 * _WIDTH,
            num_hidden_layers=3,
            num_attention_heads=4,
            max_position_embeddings=TOKENS,
            bos_token_id=words.bos_token_id,
            eos_token_id=words.eos_token_id,
            pad_token_id=words.pad_token_id,
        )
    )


def scheduler() -> DDIMScheduler:
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,  # of no effect with trailing steps; diffusers warns of any other value
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
    )


def save(base: Parts, folder: Path) -> None:
    """The pipeline in half precision, as `StableDiffusionPipeline.from_pretrained` reads it."""
    pipeline = StableDiffusionPipeline(
        vae=base.vae,
        unet=base.unet,
        text_encoder=base.text,
        tokenizer=base.words,
        scheduler=scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    for part in (base.vae, base.unet, base.text):
        part.half()
    pipeline.save_pretrained(folder, safe_serialization=True)
