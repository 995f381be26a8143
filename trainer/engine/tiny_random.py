"""The built-in base `tiny-random`: the classes and files of SD 1.x, few blocks, and random weights from a fixed seed.

It is untrained: it lets loading, caching, training, sampling and exporting run for real on any machine. On a CPU a step
costs what its modules cost to call, so it has as few as there can be of each kind.
`python -m trainer.engine.tiny_random FOLDER` creates it in a few seconds, reproducible byte for byte.
"""

import argparse
import shutil
import tempfile
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from contracts.wire.system.files import sync_file, sync_folder
from trainer.engine.tokenizer import make_tokenizer

SEED = 20_261_120
"""Seed of the weights; another seed gives another base, with another digest."""

SIDE = 64
"""Native picture side in pixels: 8 by 8 latents."""


def make_tiny_random(folder: Path, drafts: Path | None = None) -> Path:
    """Create the base in this folder, atomically; an existing base is kept. Returns the folder.

    `drafts`: where it is built, on the same file system; None: beside the folder.
    """
    if (folder / "model_index.json").is_file():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    drafts = drafts or folder.parent
    drafts.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=drafts))
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(SEED)
            _build_pipeline(staging).save_pretrained(staging / "base", safe_serialization=True)
        for path in (staging / "base").rglob("*"):
            (sync_folder if path.is_dir() else sync_file)(path)
        (staging / "base").replace(folder)
        sync_folder(folder.parent)
    except OSError:
        # Another process created it in the meantime, with the same content.
        if not (folder / "model_index.json").is_file():
            raise
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return folder


def _build_pipeline(staging: Path) -> StableDiffusionPipeline:
    """The betas of SD 1.x; two levels of one layer in the UNet instead of four of two, 0.8 million weights for 860."""
    tokenizer = make_tokenizer(staging)
    return StableDiffusionPipeline(
        unet=UNet2DConditionModel(
            sample_size=SIDE // 8,
            block_out_channels=(32, 64),
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            layers_per_block=1,
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


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="create the tiny-random base")
    parser.add_argument("folder", type=Path)
    make_tiny_random(parser.parse_args().folder)
