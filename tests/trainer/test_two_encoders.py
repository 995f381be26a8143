"""An SDXL base loads in diffusers, and is refused with its class name until there is a family for it."""

from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionXLPipeline

from contracts.errors import Rejected
from tests.trainer.two_encoders import make_two_encoder_base
from trainer import families


def test_an_sdxl_base_renders_in_diffusers_and_is_refused_here_with_its_class_name(tmp_path: Path) -> None:
    base = make_two_encoder_base(tmp_path)
    pipeline = StableDiffusionXLPipeline.from_pretrained(base, local_files_only=True, add_watermarker=False)
    pipeline.set_progress_bar_config(disable=True)
    picture = pipeline("a star", width=64, height=64, num_inference_steps=2).images[0]
    assert picture.size == (64, 64)
    with pytest.raises(Rejected, match="StableDiffusionXLPipeline; trainable are StableDiffusionPipeline"):
        families.load(base, device=torch.device("cpu"), dtype=torch.float32)
