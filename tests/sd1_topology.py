"""A narrow UNet with the blocks and layers of SD 1.x, whose names and number programs know."""

import shutil
from pathlib import Path

from diffusers import UNet2DConditionModel


def write_with_sd1_topology(base: Path, folder: Path) -> Path:
    """The pipeline `base`, but for its UNet, whose weights are random; returns the folder."""
    shutil.copytree(base, folder, ignore=shutil.ignore_patterns("unet"))
    UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(32, 64, 64, 64),
        layers_per_block=2,
        attention_head_dim=8,
        cross_attention_dim=32,
    ).save_pretrained(folder / "unet")
    return folder
