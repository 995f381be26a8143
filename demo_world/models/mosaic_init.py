"""Initial weights for an autoencoder: it starts by reproducing its input as a mosaic of 8 by 8 pixel mean colours.

With random weights a small autoencoder loses colour and needs thousands of steps to recover it: until then its output
is orange and blue. With these weights the residual stream carries red, green and blue from the first step (compare
Fixup, Zhang et al. 2019, and the delta kernels of Xiao et al. 2018); the other channels start at random and learn the
detail that a mosaic lacks.
"""

from typing import cast

import torch
from diffusers import AutoencoderKL
from diffusers.models.attention_processor import Attention
from diffusers.models.downsampling import Downsample2D
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.upsampling import Upsample2D
from torch import Tensor, nn

COLOUR_CHANNELS = 3
"""The first latent channels, which hold the mosaic."""

_ANCHOR = 2.0
"""Two channels of the residual stream are constant at this value and its negative, so that the final group norms, which
divide by the standard deviation of a group, scale every picture by about the same factor."""

_SIGNED_CHANNELS = 2 * COLOUR_CHANNELS
"""Channels of the residual stream for the colours: each value and its negative, as silu(x) - silu(-x) = x."""

_CARRIED_CHANNELS = _SIGNED_CHANNELS + 2

_INITIAL_LOG_VARIANCE = -8.0
"""Initial log variance of the latents; with a variance near 1, their noise would drown the signal to be learnt."""


@torch.no_grad()
def init_as_mosaic(vae: AutoencoderKL) -> None:
    """Initialize an autoencoder in place. The first group of its norms needs at least 8 channels."""
    for block in vae.modules():
        if isinstance(block, ResnetBlock2D):
            _init_residual_block(block)
        elif isinstance(block, Attention):
            nn.init.zeros_(block.to_out[0].weight)
        elif isinstance(block, Downsample2D):
            _init_passthrough(block.conv, taps=slice(0, 2), weight=0.25)
        elif isinstance(block, Upsample2D):
            _init_passthrough(block.conv, taps=slice(1, 2), weight=1.0)
    for network in (vae.encoder, vae.decoder):
        _init_conv_in(network.conv_in)
        _init_conv_out(network.conv_norm_out, network.conv_out)
    latent_channels = vae.config.latent_channels
    _init_passthrough(vae.quant_conv, taps=slice(0, 1), weight=1.0, channels=COLOUR_CHANNELS)
    _init_passthrough(vae.post_quant_conv, taps=slice(0, 1), weight=1.0, channels=COLOUR_CHANNELS)
    nn.init.zeros_(vae.quant_conv.weight[latent_channels:])
    nn.init.constant_(vae.quant_conv.bias[latent_channels:], _INITIAL_LOG_VARIANCE)


def _init_residual_block(block: ResnetBlock2D) -> None:
    """Make the block an identity; where the width changes, the carried channels pass through the shortcut."""
    nn.init.zeros_(block.conv2.weight)
    nn.init.zeros_(block.conv2.bias)
    if block.conv_shortcut is not None:
        _init_passthrough(block.conv_shortcut, taps=slice(0, 1), weight=1.0)


def _init_passthrough(conv: nn.Conv2d, *, taps: slice, weight: float, channels: int = _CARRIED_CHANNELS) -> None:
    """Each carried channel depends only on itself: `weight` on the kernel's rows and columns `taps`."""
    _zero_channels(conv, channels)
    for channel in range(channels):
        conv.weight[channel, channel, taps, taps] = weight


def _init_conv_in(conv: nn.Conv2d) -> None:
    """Output the first three input channels, their negatives, and the two constant anchors."""
    bias = _zero_channels(conv, _CARRIED_CHANNELS)
    for channel in range(COLOUR_CHANNELS):
        conv.weight[channel, channel, 1, 1] = 1
        conv.weight[COLOUR_CHANNELS + channel, channel, 1, 1] = -1
    bias[_SIGNED_CHANNELS], bias[_SIGNED_CHANNELS + 1] = _ANCHOR, -_ANCHOR


def _zero_channels(conv: nn.Conv2d, channels: int) -> Tensor:
    """Zero the weights and biases of the first output channels; returns the bias tensor."""
    bias = cast("Tensor", conv.bias)
    conv.weight[:channels] = 0
    bias[:channels] = 0
    return bias


def _init_conv_out(norm: nn.GroupNorm, conv: nn.Conv2d) -> None:
    """Recover the colours from the carried channels, undoing the norm's scale for a picture of medium contrast."""
    group_size = norm.num_channels // norm.num_groups
    _zero_channels(conv, COLOUR_CHANNELS)
    scale = (2 * (_ANCHOR**2 + COLOUR_CHANNELS * 0.3) / group_size) ** 0.5
    for channel in range(COLOUR_CHANNELS):
        conv.weight[channel, channel, 1, 1] = scale
        conv.weight[channel, COLOUR_CHANNELS + channel, 1, 1] = -scale
