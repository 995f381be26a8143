"""Teaching a denoiser, and the text encoder with it, to draw what a text says."""

from random import Random

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainer.demo.parts import TOKENS, Parts, scheduler
from trainer.demo.world.concepts import CONCEPTS
from trainer.demo.world.scenes import Scene

_BATCH = 64
_SILENT, _SENTENCE, _NAMED = 0.1, 0.45, 0.1
"""Shares of texts: left empty, for guidance (Ho & Salimans 2022); sentences, the others are tags; beginning with a
name that means nothing, so that a trigger the base has never heard does not upset it."""

_LEFT_OUT = 0.6
"""Share of tags that a list leaves out at most: half of the lists leave none out."""


class Denoising:
    """The error of the predicted velocity, all times alike."""

    name = "denoiser"
    rate = 1e-3

    def __init__(self, base: Parts, *, latents: Tensor, scenes: list[Scene], device: torch.device) -> None:
        self._unet, self._text, self._words = base.unet.to(device), base.text.to(device), base.words
        self.module: nn.Module = nn.ModuleDict({"unet": self._unet, "text": self._text})
        self._scheduler, self._device = scheduler(), device
        self._latents, self._scenes = latents, scenes

    def loss(self, _step: int) -> Tensor:
        chosen, chances = torch.randint(len(self._scenes), (_BATCH,)), torch.randint(2**31, (_BATCH,))
        pairs = zip(chosen.tolist(), chances.tolist(), strict=True)
        texts = [said(self._scenes[place], Random(chance)) for place, chance in pairs]
        latents = self._latents[chosen].to(self._device)
        noise, times = torch.randn(latents.shape).to(self._device), torch.randint(1000, (_BATCH,)).to(self._device)
        noisy = self._scheduler.add_noise(latents, noise, times)
        velocity = self._scheduler.get_velocity(latents, noise, times)
        return functional.mse_loss(self._unet(noisy, times, self._read(texts)).sample, velocity)

    def _read(self, texts: list[str]) -> Tensor:
        asked = {"padding": "max_length", "max_length": TOKENS, "truncation": True, "return_tensors": "pt"}
        hidden: Tensor = self._text(self._words(texts, **asked).input_ids.to(self._device))[0]
        return hidden


def said(scene: Scene, chance: Random) -> str:
    """One of many ways to say what a scene shows: as people write captions, and as taggers do."""
    if chance.random() < _SILENT:
        return ""
    name = f"{_name(chance)}, " if chance.random() < _NAMED else ""
    if chance.random() < _SENTENCE:
        return name + scene.caption()
    tags = scene.tags()
    if chance.random() < 0.5:
        chance.shuffle(tags)
    if chance.random() < 0.5:
        share = chance.uniform(0, _LEFT_OUT)
        tags = [tag for tag in tags if chance.random() >= share] or tags
    return name + ", ".join(tags)


def _name(chance: Random) -> str:
    """Two or three syllables that are no word and none of the names that are kept for LoRAs."""
    while (name := "".join(map(chance.choice, ["bdfgklmnprstvz", "aeiou"] * chance.randint(2, 3)))) in CONCEPTS:
        pass
    return name
