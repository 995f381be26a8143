"""Trains the demo base's denoiser together with its text encoder."""

from random import Random

import torch
from torch import Tensor, nn
from torch.nn import functional

from demo_world.concepts import CONCEPTS
from demo_world.models.base_pipeline import MAX_TOKENS, BaseParts, build_scheduler
from demo_world.scenes import Scene

_BATCH_SIZE = 64
_EMPTY_SHARE, _SENTENCE_SHARE, _NAMED_SHARE = 0.1, 0.45, 0.1
"""Shares of prompts that are empty, for guidance (Ho & Salimans 2022); that are sentences, the others being tag lists;
and that begin with a random name, so that the base is robust to unknown triggers."""

_MAX_TAG_DROPOUT = 0.6
"""Maximum share of tags dropped from a tag list; half of the lists are complete."""


class DenoiserStage:
    """Mean squared error of the predicted velocity, without weighting by timestep."""

    name = "denoiser"
    learning_rate = 1e-3

    def __init__(self, base: BaseParts, *, latents: Tensor, scenes: list[Scene], device: torch.device) -> None:
        self._unet, self._text_encoder, self._tokenizer = (
            base.unet.to(device),
            base.text_encoder.to(device),
            base.tokenizer,
        )
        self.module: nn.Module = nn.ModuleDict({"unet": self._unet, "text_encoder": self._text_encoder})
        self._scheduler, self._device = build_scheduler(), device
        self._latents, self._scenes = latents, scenes

    def loss(self, _step: int) -> Tensor:
        indices, prompt_seeds = torch.randint(len(self._scenes), (_BATCH_SIZE,)), torch.randint(2**31, (_BATCH_SIZE,))
        pairs = zip(indices.tolist(), prompt_seeds.tolist(), strict=True)
        prompts = [random_prompt(self._scenes[index], Random(seed)) for index, seed in pairs]
        latents = self._latents[indices].to(self._device)
        noise, timesteps = (
            torch.randn(latents.shape).to(self._device),
            torch.randint(1000, (_BATCH_SIZE,)).to(self._device),
        )
        noisy = self._scheduler.add_noise(latents, noise, timesteps)
        velocity = self._scheduler.get_velocity(latents, noise, timesteps)
        return functional.mse_loss(self._unet(noisy, timesteps, self._encode_prompts(prompts)).sample, velocity)

    def _encode_prompts(self, prompts: list[str]) -> Tensor:
        options = {"padding": "max_length", "max_length": MAX_TOKENS, "truncation": True, "return_tensors": "pt"}
        hidden: Tensor = self._text_encoder(self._tokenizer(prompts, **options).input_ids.to(self._device))[0]
        return hidden


def random_prompt(scene: Scene, rng: Random) -> str:
    """A random prompt for a scene: a caption or a tag list, with variations."""
    if rng.random() < _EMPTY_SHARE:
        return ""
    name = f"{_random_name(rng)}, " if rng.random() < _NAMED_SHARE else ""
    if rng.random() < _SENTENCE_SHARE:
        return name + scene.caption()
    tags = scene.tags()
    if rng.random() < 0.5:
        rng.shuffle(tags)
    if rng.random() < 0.5:
        share = rng.uniform(0, _MAX_TAG_DROPOUT)
        tags = [tag for tag in tags if rng.random() >= share] or tags
    return name + ", ".join(tags)


def _random_name(rng: Random) -> str:
    """A made-up name of two or three syllables, other than the names of concepts."""
    while (name := "".join(map(rng.choice, ["bdfgklmnprstvz", "aeiou"] * rng.randint(2, 3)))) in CONCEPTS:
        pass
    return name
