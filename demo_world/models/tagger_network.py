"""The demo tagger's network and its training."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from demo_world.scenes import Scene, all_tags

RATINGS = ("general", "sensitive", "questionable", "explicit")
"""WD's four ratings. Every picture of the demo world is `general`."""

DEFAULT_THRESHOLD = 0.35
"""The usual threshold of WD taggers, and the default of a data set."""

_BATCH_SIZE = 64
_MAX_SHIFT = 2
"""Maximum random shift in pixels in each direction, so that the network does not rely on positions."""


@dataclass(frozen=True)
class TagVocabulary:
    """Names of the outputs: the ratings, then the tags."""

    tags: tuple[str, ...] = tuple(all_tags())

    @property
    def names(self) -> list[str]:
        return [*RATINGS, *self.tags]

    def targets(self, scenes: list[Scene]) -> Tensor:
        """1 where a scene has the tag, else 0; float32, [scenes, names]."""
        tag_sets = [{RATINGS[0], *scene.tags()} for scene in scenes]
        return torch.tensor([[float(name in tags) for name in self.names] for tags in tag_sets])


class ConvBlock(nn.Module):
    """Convolution, batch norm and ReLU."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.conv = nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(out_channels)

    def forward(self, features: Tensor) -> Tensor:
        return functional.relu(self.norm(self.conv(features)))

    def fold_norm(self) -> tuple[Tensor, Tensor]:
        """Weight and bias of a single convolution equivalent to the trained convolution and batch norm."""
        mean, variance = self.norm.get_buffer("running_mean"), self.norm.get_buffer("running_var")
        scale = self.norm.weight / torch.sqrt(variance + self.norm.eps)
        return self.conv.weight * scale[:, None, None, None], self.norm.bias - mean * scale


class TaggerNetwork(nn.Module):
    """Maps BGR pixels of 0 to 255, [n, 64, 64, 3], to logits. 370,000 weights; no pooling: positions are kept."""

    def __init__(self, names: int) -> None:
        super().__init__()
        self.blocks = [
            *(ConvBlock(3, 24, 2), ConvBlock(24, 48, 2), ConvBlock(48, 64, 1)),
            *(ConvBlock(64, 96, 2), ConvBlock(96, 96, 1), ConvBlock(96, 64, 2)),
        ]
        self.features = nn.Sequential(*self.blocks)
        self.hidden = nn.Linear(64 * 4 * 4, 128)
        self.output = nn.Linear(128, names)

    def forward(self, pixels: Tensor) -> Tensor:
        features = self.features(pixels.permute(0, 3, 1, 2) / 127.5 - 1)
        logits: Tensor = self.output(functional.relu(self.hidden(features.flatten(1))))
        return logits


class TaggerStage:
    """Binary cross entropy over all outputs."""

    name = "tagger"
    learning_rate = 2e-3

    def __init__(self, pictures: Tensor, targets: Tensor, device: torch.device) -> None:
        """`pictures`: uint8, [n, 3, 64, 64] RGB."""
        self.module = TaggerNetwork(targets.shape[1]).to(device)
        self._pictures, self._targets, self._device = pictures, targets, device

    def loss(self, _step: int) -> Tensor:
        indices = torch.randint(len(self._pictures), (_BATCH_SIZE,))
        across, down = torch.randint(-_MAX_SHIFT, _MAX_SHIFT + 1, (2,)).tolist()
        shifted = functional.pad(self._pictures[indices].float(), [_MAX_SHIFT] * 4, mode="replicate")
        shifted = shifted[:, :, _MAX_SHIFT + down :, _MAX_SHIFT + across :][:, :, :64, :64].to(self._device)
        brightness = torch.empty(len(shifted), 1, 1, 1).uniform_(0.92, 1.08).to(self._device)
        logits = self.module(to_wd_input((shifted * brightness).clamp(0, 255)))
        return functional.binary_cross_entropy_with_logits(logits, self._targets[indices].to(self._device))


def to_wd_input(pictures: Tensor) -> Tensor:
    """Convert [n, 3, 64, 64] RGB to WD's [n, 64, 64, 3] BGR, float32."""
    return pictures.float().flip(1).permute(0, 2, 3, 1)


@torch.no_grad()
def predict_probabilities(network: nn.Module, pictures: Tensor, device: torch.device) -> Tensor:
    parts = [network(to_wd_input(batch.to(device))).sigmoid().cpu() for batch in torch.split(pictures, 256)]
    return torch.cat(parts)


def best_threshold(predictions: Tensor, targets: Tensor) -> float:
    """The threshold with the highest micro-F1."""
    candidates = [step / 100 for step in range(10, 91, 2)]
    return max(candidates, key=lambda threshold: micro_f1(predictions, targets, threshold))


@torch.no_grad()
def calibrate(network: TaggerNetwork, threshold: float) -> None:
    """Shift all logits except the ratings so that `threshold` becomes `DEFAULT_THRESHOLD`."""
    default_logit, chosen_logit = torch.logit(torch.tensor([DEFAULT_THRESHOLD, threshold]))
    network.output.bias[len(RATINGS) :] += default_logit - chosen_logit


def micro_f1(predictions: Tensor, targets: Tensor, threshold: float) -> float:
    """Micro-averaged F1 score over all tags, without the ratings."""
    predicted, actual = predictions[:, len(RATINGS) :] > threshold, targets[:, len(RATINGS) :] > 0.5
    correct = (predicted & actual).sum().item()
    return 2 * correct / max(1, predicted.sum().item() + actual.sum().item())
