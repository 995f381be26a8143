"""Teaching an autoencoder the look of the world."""

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from trainer.demo.album import as_input

_BATCH = 16
_SCRIBBLED = 4
"""Of a batch: scribbles, so that what a LoRA brings along can be drawn too."""

_SPREAD = 1e-6
"""Weight of the divergence from a normal distribution, as SD's own autoencoder has it (Rombach et al. 2022)."""


class Autoencoding:
    """Absolute differences of pixels, and of neighbours' differences: edges count as much as areas. Squared ones
    besides: absolute ones alone are long content with grey.

    In bfloat16 where the processor multiplies it in hardware: there it is twice as fast, elsewhere far slower.
    """

    name = "vae"
    rate = 2e-3

    def __init__(self, vae: AutoencoderKL, pictures: Tensor, scribbles: Tensor, device: torch.device) -> None:
        self.module: AutoencoderKL = vae.to(device)
        self._pictures, self._scribbles, self._device = pictures, scribbles, device
        self._halves = device.type == "cuda" or bool(torch.cpu.get_capabilities().get("amx_bf16"))

    def loss(self, _step: int) -> Tensor:
        drawn = self._pictures[torch.randint(len(self._pictures), (_BATCH - _SCRIBBLED,))]
        other = self._scribbles[torch.randint(len(self._scribbles), (_SCRIBBLED,))]
        pixels = as_input(torch.cat([drawn, other]), self._device)
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._halves):
            latent = self.module.encode(pixels).latent_dist
            drawn_again = self.module.decode(latent.sample()).sample
        wrong = drawn_again.float() - pixels
        edges = wrong.diff(dim=2).abs().mean() + wrong.diff(dim=3).abs().mean()
        spread: Tensor = latent.kl().mean()
        loss: Tensor = wrong.abs().mean() + 2 * wrong.square().mean() + edges + _SPREAD * spread
        return loss


@torch.no_grad()
def encoded(vae: AutoencoderKL, pictures: Tensor, device: torch.device) -> Tensor:
    """Means of the latents of all pictures, float32 on the CPU."""
    parts = [vae.encode(as_input(batch, device)).latent_dist.mean.cpu() for batch in torch.split(pictures, 128)]
    return torch.cat(parts)


@torch.no_grad()
def normalise(vae: AutoencoderKL, pictures: Tensor, device: torch.device) -> None:
    """Give each channel of the latents mean 0 and deviation 1 by changing the layers around them.

    SD's scaling factor can only stretch all channels alike; after this it is 1.
    """
    latents = encoded(vae, pictures, device)
    mean, deviation = latents.mean((0, 2, 3)).to(device), latents.std((0, 2, 3)).to(device)
    into, out_of, channels = vae.quant_conv, vae.post_quant_conv, len(mean)
    into.weight[:channels] /= deviation[:, None, None, None]
    into.bias[:channels] = (into.bias[:channels] - mean) / deviation
    into.bias[channels:] -= 2 * deviation.log()  # the second half says the logarithm of the variance
    out_of.bias += (out_of.weight[:, :, 0, 0] * mean).sum(1)
    out_of.weight *= deviation[None, :, None, None]
