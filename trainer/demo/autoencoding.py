"""Teaching an autoencoder the look of the world."""

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn
from torch.nn import functional

from trainer.demo.album import as_input
from trainer.demo.mosaic import COLOURS

_BATCH = 8
_SCRIBBLED = 1
"""Of a batch: scribbles, so that what a LoRA brings along can be drawn too."""

_CHROMA = 2.0
"""How much more a wrong colour weighs than a wrong brightness: pale grounds differ little."""

_ASTRAY = 0.03
"""Deviation of the noise on latents, whose own is 1."""

_SPREAD = 1e-6
"""Weight of the divergence from a normal distribution, as SD's own autoencoder has it (Rombach et al. 2022)."""


class Autoencoding:
    """Absolute differences of pixels, and of neighbours' differences: edges count as much as areas. Squared ones
    besides: absolute ones alone are long content with grey. The first channels of the latents stay the colours they
    began as: what lies open is what a denoiser learns first.

    In bfloat16 where the processor multiplies it in hardware (AVX-512 BF16, AMX): twice as fast there, far slower
    elsewhere.
    """

    name = "vae"
    rate = 2e-3

    def __init__(self, vae: AutoencoderKL, pictures: Tensor, scribbles: Tensor, device: torch.device) -> None:
        self.module: AutoencoderKL = vae.to(device)
        self._pictures, self._scribbles, self._device = pictures, scribbles, device
        self._halves = halves(device)

    def loss(self, _step: int) -> Tensor:
        drawn = self._pictures[torch.randint(len(self._pictures), (_BATCH - _SCRIBBLED,))]
        other = self._scribbles[torch.randint(len(self._scribbles), (_SCRIBBLED,))]
        pixels = as_input(torch.cat([drawn, other]), self._device)
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._halves):
            latent = self.module.encode(pixels).latent_dist
            drawn_again = self.module.decode(latent.sample()).sample
        plain = functional.mse_loss(latent.mean[:, :COLOURS].float(), functional.avg_pool2d(pixels, 8))
        loss: Tensor = _unlike(drawn_again.float(), pixels) + plain + _SPREAD * latent.kl().mean()
        return loss


class Polishing:
    """Teaching the decoder alone to draw more sharply from latents that stay as they are: so a denoiser that was
    taught with them need not know. A little noise on them stands for what a denoiser gets wrong.
    """

    name = "decoder"
    rate = 1e-3

    def __init__(self, vae: AutoencoderKL, pictures: Tensor, scribbles: Tensor, device: torch.device) -> None:
        self._vae, self._device, self._halves = vae.to(device), device, halves(device)
        self._pairs = [(encoded(vae, some, device), some) for some in (pictures, scribbles)]
        self.module = nn.ModuleDict({"out_of": vae.post_quant_conv, "decoder": vae.decoder}).requires_grad_(True)

    def loss(self, _step: int) -> Tensor:
        drawn, other = self._pairs
        chosen = [_some(drawn, _BATCH - _SCRIBBLED), _some(other, _SCRIBBLED)]
        latents = torch.cat([each[0] for each in chosen]).to(self._device)
        pixels = as_input(torch.cat([each[1] for each in chosen]), self._device)
        noise = torch.randn(latents.shape).to(self._device)
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._halves):
            drawn_again = self._vae.decode(latents + _ASTRAY * noise).sample
        return _unlike(drawn_again.float(), pixels)


def halves(device: torch.device) -> bool:
    """Is bfloat16 the faster format here?"""
    return device.type == "cuda" or bool(torch.cpu.get_capabilities().get("avx512_bf16"))


def _some(pair: tuple[Tensor, Tensor], count: int) -> tuple[Tensor, Tensor]:
    chosen = torch.randint(len(pair[0]), (count,))
    return pair[0][chosen], pair[1][chosen]


def _unlike(drawn: Tensor, pixels: Tensor) -> Tensor:
    wrong = _seen(drawn - pixels)
    edges = wrong.diff(dim=2).abs().mean() + wrong.diff(dim=3).abs().mean()
    return wrong.abs().mean() + 2 * wrong.square().mean() + edges


def _seen(wrong: Tensor) -> Tensor:
    """Differences of red, green and blue as those of brightness and of what each has beyond it."""
    brightness = wrong.mean(1, keepdim=True)
    return brightness + _CHROMA * (wrong - brightness)


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
