"""Writes a diffusers folder of SD 1.x as a single file, with the names of the original (LDM) checkpoints: what people
download from Civitai. diffusers itself only reads that format."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

Tensors = dict[str, torch.Tensor]

_UNET = {
    "time_embedding.linear_1.": "time_embed.0.",
    "time_embedding.linear_2.": "time_embed.2.",
    "conv_in.": "input_blocks.0.0.",
    "conv_norm_out.": "out.0.",
    "conv_out.": "out.2.",
    "mid_block.resnets.0.": "middle_block.0.",
    "mid_block.attentions.0.": "middle_block.1.",
    "mid_block.resnets.1.": "middle_block.2.",
}
_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
_IN_RESNET = re.compile(r"(?:input_blocks\.\d+\.0|output_blocks\.\d+\.0|middle_block\.[02])\.")
_CONVOLUTION = re.compile(r"attn_1\.(?:q|k|v|proj_out)\.weight")


def write_single_file(folder: Path, file: Path) -> None:
    """`folder`: a pipeline with the topology of SD 1.x (`tests.sd1_topology`)."""
    save_file(
        {
            **_renamed(folder / "unet" / "diffusion_pytorch_model.safetensors", "model.diffusion_model.", _unet_name),
            **dict(_vae_tensors(folder / "vae" / "diffusion_pytorch_model.safetensors")),
            **_renamed(folder / "text_encoder" / "model.safetensors", "cond_stage_model.transformer.", _text_name),
        },
        file,
    )


def _renamed(file: Path, prefix: str, rename: Callable[[str], str]) -> Tensors:
    return {prefix + rename(name): tensor for name, tensor in load_file(file).items()}


def _vae_tensors(file: Path) -> Iterator[tuple[str, torch.Tensor]]:
    """The original VAE has 1 x 1 convolutions where diffusers has linear layers."""
    for name, tensor in _renamed(file, "first_stage_model.", _vae_name).items():
        yield name, tensor[:, :, None, None].contiguous() if _CONVOLUTION.search(name) else tensor


def _text_name(name: str) -> str:
    return name if name.startswith("text_model.") else f"text_model.{name}"


def _unet_name(name: str) -> str:
    for prefix, original in _UNET.items():
        if name.startswith(prefix):
            name = original + name.removeprefix(prefix)
            break
    name = re.sub(r"^(down|up)_blocks\.(\d)\.(resnets|attentions)\.(\d)\.", _unet_block, name)
    name = re.sub(
        r"^down_blocks\.(\d)\.downsamplers\.0\.conv\.", lambda m: f"input_blocks.{3 * int(m[1]) + 3}.0.op.", name
    )
    name = re.sub(r"^up_blocks\.(\d)\.upsamplers\.0\.", _unet_upsampler, name)
    if _IN_RESNET.match(name):
        for part, original in _RESNET.items():
            name = name.replace(f".{part}.", f".{original}.")
    return name


def _unet_block(match: re.Match[str]) -> str:
    side, block, kind, index = match.groups()
    number = 3 * int(block) + int(index) + (1 if side == "down" else 0)
    return f"{'input' if side == 'down' else 'output'}_blocks.{number}.{0 if kind == 'resnets' else 1}."


def _unet_upsampler(match: re.Match[str]) -> str:
    """The first block has no attention before it."""
    block = int(match[1])
    return f"output_blocks.{3 * block + 2}.{2 if block else 1}."


def _vae_name(name: str) -> str:
    name = re.sub(r"^(\w+)\.mid_block\.resnets\.(\d)\.", lambda m: f"{m[1]}.mid.block_{int(m[2]) + 1}.", name)
    name = re.sub(r"^(\w+)\.mid_block\.attentions\.0\.", r"\1.mid.attn_1.", name)
    name = re.sub(r"^encoder\.down_blocks\.(\d)\.resnets\.(\d)\.", r"encoder.down.\1.block.\2.", name)
    name = re.sub(r"^encoder\.down_blocks\.(\d)\.downsamplers\.0\.", r"encoder.down.\1.downsample.", name)
    name = re.sub(
        r"^decoder\.up_blocks\.(\d)\.resnets\.(\d)\.", lambda m: f"decoder.up.{3 - int(m[1])}.block.{m[2]}.", name
    )
    name = re.sub(
        r"^decoder\.up_blocks\.(\d)\.upsamplers\.0\.", lambda m: f"decoder.up.{3 - int(m[1])}.upsample.", name
    )
    name = name.replace(".conv_norm_out.", ".norm_out.").replace(".conv_shortcut.", ".nin_shortcut.")
    for part, original in _VAE_ATTENTION.items():
        name = name.replace(f".attn_1.{part}.", f".attn_1.{original}.")
    return name
