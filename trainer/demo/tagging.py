"""Teaching a tagger the words of the world."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainer.demo.world.scenes import Scene, all_tags

RATINGS = ("general", "sensitive", "questionable", "explicit")
"""WD's four. Every picture of the world is the first."""

USUAL = 0.35
"""The bar that WD's taggers are used with, and that a data set has until somebody sets another."""

_BATCH = 64
_SHIFT = 2
"""Pixels a picture is moved at most, each way: it is not to be known by its place."""


@dataclass(frozen=True)
class Words:
    """What the outputs mean: the ratings, then the tags."""

    tags: tuple[str, ...] = tuple(all_tags())

    @property
    def names(self) -> list[str]:
        return [*RATINGS, *self.tags]

    def targets(self, scenes: list[Scene]) -> Tensor:
        """1 where a scene has the tag, else 0: float32, [scenes, names]."""
        rows = [{RATINGS[0], *scene.tags()} for scene in scenes]
        return torch.tensor([[float(name in row) for name in self.names] for row in rows])


class Look(nn.Module):
    """One layer: convolved, normed over the batch, cut off below 0."""

    def __init__(self, into: int, out_of: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.convolution = nn.Conv2d(into, out_of, 3, stride=stride, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(out_of)

    def forward(self, seen: Tensor) -> Tensor:
        return functional.relu(self.norm(self.convolution(seen)))

    def folded(self) -> tuple[Tensor, Tensor]:
        """Weight and bias of one convolution that does what convolution and norm do, once they are trained."""
        mean, variance = self.norm.get_buffer("running_mean"), self.norm.get_buffer("running_var")
        stretch = self.norm.weight / torch.sqrt(variance + self.norm.eps)
        return self.convolution.weight * stretch[:, None, None, None], self.norm.bias - mean * stretch


class Network(nn.Module):
    """BGR pixels of 0 to 255, [n, 64, 64, 3], to logits. 370,000 weights; where a thing stands is kept to the end."""

    def __init__(self, names: int) -> None:
        super().__init__()
        self.looks = [
            *(Look(3, 24, 2), Look(24, 48, 2), Look(48, 64, 1)),
            *(Look(64, 96, 2), Look(96, 96, 1), Look(96, 64, 2)),
        ]
        self.look = nn.Sequential(*self.looks)
        self.think = nn.Linear(64 * 4 * 4, 128)
        self.say = nn.Linear(128, names)

    def forward(self, pixels: Tensor) -> Tensor:
        seen = self.look(pixels.permute(0, 3, 1, 2) / 127.5 - 1)
        said: Tensor = self.say(functional.relu(self.think(seen.flatten(1))))
        return said


class Tagging:
    """Binary cross entropy of each name."""

    name = "tagger"
    rate = 2e-3

    def __init__(self, pictures: Tensor, targets: Tensor, device: torch.device) -> None:
        """`pictures`: uint8, [n, 3, 64, 64] RGB."""
        self.module = Network(targets.shape[1]).to(device)
        self._pictures, self._targets, self._device = pictures, targets, device

    def loss(self, _step: int) -> Tensor:
        chosen = torch.randint(len(self._pictures), (_BATCH,))
        across, down = torch.randint(-_SHIFT, _SHIFT + 1, (2,)).tolist()
        moved = functional.pad(self._pictures[chosen].float(), [_SHIFT] * 4, mode="replicate")
        moved = moved[:, :, _SHIFT + down :, _SHIFT + across :][:, :, :64, :64].to(self._device)
        light = torch.empty(len(moved), 1, 1, 1).uniform_(0.92, 1.08).to(self._device)
        seen = self.module(as_input((moved * light).clamp(0, 255)))
        return functional.binary_cross_entropy_with_logits(seen, self._targets[chosen].to(self._device))


def as_input(pictures: Tensor) -> Tensor:
    """[n, 3, 64, 64] RGB to WD's [n, 64, 64, 3] BGR, float32."""
    return pictures.float().flip(1).permute(0, 2, 3, 1)


@torch.no_grad()
def probabilities(network: nn.Module, pictures: Tensor, device: torch.device) -> Tensor:
    parts = [network(as_input(batch.to(device))).sigmoid().cpu() for batch in torch.split(pictures, 256)]
    return torch.cat(parts)


def best_threshold(found: Tensor, targets: Tensor) -> float:
    """The one number with the highest micro-F1."""
    choices = [step / 100 for step in range(10, 91, 2)]
    return max(choices, key=lambda threshold: micro_f1(found, targets, threshold))


@torch.no_grad()
def calibrate(network: Network, threshold: float) -> None:
    """Move every answer but the ratings so that `threshold` comes to lie at `USUAL`: the bar travels in the model."""
    usual, chosen = torch.logit(torch.tensor([USUAL, threshold]))
    network.say.bias[len(RATINGS) :] += usual - chosen


def micro_f1(found: Tensor, targets: Tensor, threshold: float) -> float:
    """Of all decisions together, ratings apart."""
    said, true = found[:, len(RATINGS) :] > threshold, targets[:, len(RATINGS) :] > 0.5
    both = (said & true).sum().item()
    return 2 * both / max(1, said.sum().item() + true.sum().item())
