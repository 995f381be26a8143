"""First weights of an autoencoder: what goes in comes out as a mosaic, each 8 by 8 pixels in their mean colour.

Weights of chance lose colour on the way down and up again, and thousands of steps go by before it is found: a small
autoencoder shows the world in orange and blue until then. Here the stream beside all residual blocks hands on red,
green and blue from the first step (compare Fixup, Zhang et al. 2019, and the delta kernels of Xiao et al. 2018); the
other channels begin by chance, to find what a mosaic lacks.
"""

from typing import cast

import torch
from diffusers import AutoencoderKL
from diffusers.models.attention_processor import Attention
from diffusers.models.downsampling import Downsample2D
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.upsampling import Upsample2D
from torch import Tensor, nn

COLOURS = 3
"""Channels of a latent that are the mosaic: its first ones."""

_ANCHOR = 2.0
"""Two channels of the stream stand at this and its negative: so the norms at the ends, which divide by the deviation of
all that is in a group, divide every picture by much the same."""

_SIGNED = 2 * COLOURS
"""Channels of the stream for the colours: each and its negative, for silu(x) - silu(-x) = x."""

_CARRIED = _SIGNED + 2

_QUIET = -8.0
"""Logarithm of the variance that latents begin with. From 1 on, their noise would drown all that is to be learnt."""


@torch.no_grad()
def begin_as_mosaic(vae: AutoencoderKL) -> None:
    """Change an autoencoder's weights of chance. The first group of its norms must hold at least 8 channels."""
    for block in vae.modules():
        if isinstance(block, ResnetBlock2D):
            _hand_on(block)
        elif isinstance(block, Attention):
            nn.init.zeros_(block.to_out[0].weight)
        elif isinstance(block, Downsample2D):
            _keep_apart(block.conv, rows=slice(0, 2), share=0.25)
        elif isinstance(block, Upsample2D):
            _keep_apart(block.conv, rows=slice(1, 2), share=1.0)
    for way in (vae.encoder, vae.decoder):
        _sign(way.conv_in)
        _read(way.conv_norm_out, way.conv_out)
    latents = vae.config.latent_channels
    _keep_apart(vae.quant_conv, rows=slice(0, 1), share=1.0, channels=COLOURS)
    _keep_apart(vae.post_quant_conv, rows=slice(0, 1), share=1.0, channels=COLOURS)
    nn.init.zeros_(vae.quant_conv.weight[latents:])
    nn.init.constant_(vae.quant_conv.bias[latents:], _QUIET)


def _hand_on(block: ResnetBlock2D) -> None:
    """Nothing is added to the stream; where it changes its width, what is carried goes straight on."""
    nn.init.zeros_(block.conv2.weight)
    nn.init.zeros_(block.conv2.bias)
    if block.conv_shortcut is not None:
        _keep_apart(block.conv_shortcut, rows=slice(0, 1), share=1.0)


def _keep_apart(conv: nn.Conv2d, *, rows: slice, share: float, channels: int = _CARRIED) -> None:
    """Carried channels come from themselves alone, the mean of the taps in `rows` (and columns)."""
    _silence(conv, channels)
    for channel in range(channels):
        conv.weight[channel, channel, rows, rows] = share


def _sign(conv: nn.Conv2d) -> None:
    """The first three channels of what comes in, and their negatives; and the anchors."""
    bias = _silence(conv, _CARRIED)
    for channel in range(COLOURS):
        conv.weight[channel, channel, 1, 1] = 1
        conv.weight[COLOURS + channel, channel, 1, 1] = -1
    bias[_SIGNED], bias[_SIGNED + 1] = _ANCHOR, -_ANCHOR


def _silence(conv: nn.Conv2d, channels: int) -> Tensor:
    """Nothing comes out of the first channels; gives all biases."""
    bias = cast("Tensor", conv.bias)
    conv.weight[:channels] = 0
    bias[:channels] = 0
    return bias


def _read(norm: nn.GroupNorm, conv: nn.Conv2d) -> None:
    """Out of the carried channels the colours again; the norm's scale is undone for a picture of middling contrast."""
    in_group = norm.num_channels // norm.num_groups
    _silence(conv, COLOURS)
    scale = (2 * (_ANCHOR**2 + COLOURS * 0.3) / in_group) ** 0.5
    for channel in range(COLOURS):
        conv.weight[channel, channel, 1, 1] = scale
        conv.weight[channel, COLOURS + channel, 1, 1] = -scale
