"""A small random base with the classes, files and shape of SD 1.x, made from a seed in a few seconds.

It knows nothing: it is there so that loading, caching, training, sampling and exporting run for real on any machine.
`python -m trainer.demo.stand_in FOLDER` makes it; made twice, it is the same bytes.
"""

import argparse
import os
import shutil
import tempfile
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from trainer.demo.tokens import make_tokenizer

SEED = 20_261_120
"""Of the weights. Another seed is another base, with another identity."""

SIDE = 64
"""Pixels of a side it is made for: 8 by 8 latents."""


def make_stand_in(folder: Path) -> Path:
    """Make the base in this folder, whole or not at all; a base that already lies there is left as it is."""
    if (folder / "model_index.json").is_file():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    workshop = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(SEED)
            _pipeline(workshop).save_pretrained(workshop / "base", safe_serialization=True)
        for file in (workshop / "base").rglob("*"):
            _synced(file)
        (workshop / "base").replace(folder)
        _synced(folder.parent)
    except OSError:
        # Somebody else was quicker: theirs is the same.
        if not (folder / "model_index.json").is_file():
            raise
    finally:
        shutil.rmtree(workshop, ignore_errors=True)
    return folder


def _pipeline(workshop: Path) -> StableDiffusionPipeline:
    """Blocks, counts and betas of SD 1.x, only narrow: 3.2 million weights in the UNet instead of 860."""
    tokenizer = make_tokenizer(workshop)
    return StableDiffusionPipeline(
        unet=UNet2DConditionModel(
            sample_size=SIDE // 8,
            block_out_channels=(32, 64, 64, 64),
            layers_per_block=2,
            attention_head_dim=8,
            cross_attention_dim=32,
        ),
        vae=AutoencoderKL(
            sample_size=SIDE,
            block_out_channels=(32, 32, 32, 32),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=1,
            latent_channels=4,
        ),
        text_encoder=CLIPTextModel(
            CLIPTextConfig(
                vocab_size=len(tokenizer),
                hidden_size=32,
                intermediate_size=64,
                num_hidden_layers=5,
                num_attention_heads=4,
                max_position_embeddings=tokenizer.model_max_length,
                bos_token_id=tokenizer.bos_token_id,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id,
            )
        ),
        tokenizer=tokenizer,
        scheduler=DDIMScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            clip_sample=False,
            set_alpha_to_one=False,
            steps_offset=1,
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _synced(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


if __name__ == "__main__":
    asked = argparse.ArgumentParser(description="make the stand-in base")
    asked.add_argument("folder", type=Path)
    make_stand_in(asked.parse_args().folder)
