"""Trains the demo base's autoencoder, and afterwards its decoder alone."""

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn
from torch.nn import functional

from demo_world.models.mosaic_init import COLOUR_CHANNELS
from demo_world.models.picture_cache import to_model_input

_BATCH_SIZE = 8
_SCRIBBLES_PER_BATCH = 1
"""Scribbles in each batch, so that the autoencoder can also reproduce new subjects that a LoRA introduces."""

_CHROMA_WEIGHT = 2.0
"""Weight of chroma errors relative to brightness errors: pale backgrounds differ little in colour."""

_LATENT_NOISE = 0.03
"""Standard deviation of the noise added to latents, which have standard deviation 1."""

_KL_WEIGHT = 1e-6
"""Weight of the KL divergence, as in SD's own autoencoder (Rombach et al. 2022)."""


class AutoencoderStage:
    """Loss: absolute differences of pixels and of gradients, so that edges count as much as areas, plus squared
    differences, since with absolute ones alone the output stays grey for a long time. A further term keeps the first
    latent channels at the mean colours they start as: denoisers learn what is directly visible first.

    Uses bfloat16 where the hardware multiplies it (AVX-512 BF16, AMX): twice as fast there, far slower elsewhere.
    """

    name = "vae"
    learning_rate = 2e-3

    def __init__(self, vae: AutoencoderKL, pictures: Tensor, scribbles: Tensor, device: torch.device) -> None:
        self.module: AutoencoderKL = vae.to(device)
        self._pictures, self._scribbles, self._device = pictures, scribbles, device
        self._use_bfloat16 = bfloat16_is_faster(device)

    def loss(self, _step: int) -> Tensor:
        pictures = self._pictures[torch.randint(len(self._pictures), (_BATCH_SIZE - _SCRIBBLES_PER_BATCH,))]
        scribbles = self._scribbles[torch.randint(len(self._scribbles), (_SCRIBBLES_PER_BATCH,))]
        pixels = to_model_input(torch.cat([pictures, scribbles]), self._device)
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._use_bfloat16):
            latent = self.module.encode(pixels).latent_dist
            reconstruction = self.module.decode(latent.sample()).sample
        mosaic_loss = functional.mse_loss(latent.mean[:, :COLOUR_CHANNELS].float(), functional.avg_pool2d(pixels, 8))
        loss: Tensor = (
            _reconstruction_loss(reconstruction.float(), pixels) + mosaic_loss + _KL_WEIGHT * latent.kl().mean()
        )
        return loss


class DecoderStage:
    """Trains only the decoder, for sharper pictures from unchanged latents, so the denoiser stays valid.

    A little noise on the latents simulates the denoiser's errors.
    """

    name = "decoder"
    learning_rate = 1e-3

    def __init__(self, vae: AutoencoderKL, pictures: Tensor, scribbles: Tensor, device: torch.device) -> None:
        self._vae, self._device, self._use_bfloat16 = vae.to(device), device, bfloat16_is_faster(device)
        self._datasets = [(encode_means(vae, each, device), each) for each in (pictures, scribbles)]
        self.module = nn.ModuleDict({"post_quant_conv": vae.post_quant_conv, "decoder": vae.decoder}).requires_grad_(
            True
        )

    def loss(self, _step: int) -> Tensor:
        pictures, scribbles = self._datasets
        batches = [
            _sample_pairs(pictures, _BATCH_SIZE - _SCRIBBLES_PER_BATCH),
            _sample_pairs(scribbles, _SCRIBBLES_PER_BATCH),
        ]
        latents = torch.cat([each[0] for each in batches]).to(self._device)
        pixels = to_model_input(torch.cat([each[1] for each in batches]), self._device)
        noise = torch.randn(latents.shape).to(self._device)
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._use_bfloat16):
            reconstruction = self._vae.decode(latents + _LATENT_NOISE * noise).sample
        return _reconstruction_loss(reconstruction.float(), pixels)


def bfloat16_is_faster(device: torch.device) -> bool:
    """Whether bfloat16 is faster than float32 on this device."""
    return device.type == "cuda" or bool(torch.cpu.get_capabilities().get("avx512_bf16"))


def _sample_pairs(dataset: tuple[Tensor, Tensor], count: int) -> tuple[Tensor, Tensor]:
    """Random latents with their pictures."""
    latents, pictures = dataset
    indices = torch.randint(len(latents), (count,))
    return latents[indices], pictures[indices]


def _reconstruction_loss(reconstruction: Tensor, pixels: Tensor) -> Tensor:
    error = _weight_chroma(reconstruction - pixels)
    edges = error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean()
    return error.abs().mean() + 2 * error.square().mean() + edges


def _weight_chroma(error: Tensor) -> Tensor:
    """Split RGB errors into brightness and chroma, and weight the chroma part."""
    brightness = error.mean(1, keepdim=True)
    return brightness + _CHROMA_WEIGHT * (error - brightness)


@torch.no_grad()
def encode_means(vae: AutoencoderKL, pictures: Tensor, device: torch.device) -> Tensor:
    """The mean latents of all pictures, float32 on the CPU."""
    parts = [vae.encode(to_model_input(batch, device)).latent_dist.mean.cpu() for batch in torch.split(pictures, 128)]
    return torch.cat(parts)


@torch.no_grad()
def normalise_latents(vae: AutoencoderKL, pictures: Tensor, device: torch.device) -> None:
    """Give each latent channel mean 0 and standard deviation 1 by changing the adjacent convolutions.

    SD's scaling factor can only scale all channels alike; after this it is 1.
    """
    latents = encode_means(vae, pictures, device)
    mean, std = latents.mean((0, 2, 3)).to(device), latents.std((0, 2, 3)).to(device)
    quant, post_quant, channels = vae.quant_conv, vae.post_quant_conv, len(mean)
    quant.weight[:channels] /= std[:, None, None, None]
    quant.bias[:channels] = (quant.bias[:channels] - mean) / std
    quant.bias[channels:] -= 2 * std.log()  # the second half of the channels is the log variance
    post_quant.bias += (post_quant.weight[:, :, 0, 0] * mean).sum(1)
    post_quant.weight *= std[None, :, None, None]
