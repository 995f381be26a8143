"""A base with SDXL's topology and random weights: two text encoders, pooled text and size conditions."""

from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from trainer.engine.tokenizer import make_tokenizer

_WIDTHS = 32, 48
"""Embedding widths of the first and the second encoder; the denoiser gets both concatenated."""

_SIZE_CONDITION_WIDTH = 6 * 8
"""Height, width, crops and target sizes, eight numbers each."""


def make_two_encoder_base(folder: Path) -> Path:
    """A narrow SDXL UNet: no attention in the first block, three transformer layers in the last."""
    (folder / "tokenizer").mkdir(parents=True)
    tokenizer = make_tokenizer(folder / "tokenizer")
    text_configs = [
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=width,
            intermediate_size=2 * width,
            num_hidden_layers=3,
            num_attention_heads=4,
            projection_dim=width,
            max_position_embeddings=tokenizer.model_max_length,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
        for width in _WIDTHS
    ]
    torch.manual_seed(0)
    StableDiffusionXLPipeline(
        vae=AutoencoderKL(
            block_out_channels=(32, 32, 32, 32),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=1,
            latent_channels=4,
        ),
        unet=UNet2DConditionModel(
            sample_size=8,
            block_out_channels=(32, 64, 64),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            layers_per_block=1,
            transformer_layers_per_block=(1, 2, 3),
            attention_head_dim=(2, 4, 4),
            use_linear_projection=True,
            cross_attention_dim=sum(_WIDTHS),
            addition_embed_type="text_time",
            addition_time_embed_dim=_SIZE_CONDITION_WIDTH // 6,
            projection_class_embeddings_input_dim=_WIDTHS[1] + _SIZE_CONDITION_WIDTH,
        ),
        text_encoder=CLIPTextModel(text_configs[0]),
        text_encoder_2=CLIPTextModelWithProjection(text_configs[1]),
        tokenizer=tokenizer,
        tokenizer_2=tokenizer,
        scheduler=DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear"),
        add_watermarker=False,
    ).save_pretrained(folder / "base", safe_serialization=True)
    return folder / "base"
