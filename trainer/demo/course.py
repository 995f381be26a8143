"""How the models of the demo world are trained: one loop for all, that a clock ends and a kill only interrupts.

A course's checkpoint holds weights, their running mean, the optimizer and the seconds spent; the learning rate follows
the share of the time that is spent. So data and noise are functions of the seed and the step, but how many steps there
are depends on the machine: on another one, the same seed gives other weights of the same kind.
"""

import json
import math
import time
from pathlib import Path
from typing import Protocol

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from trainer import chance

_WARM = 100
"""Steps until the learning rate is reached."""

_MEAN = 0.999
"""How much the running mean of the weights keeps each step, once it has seen a few thousand."""

_SAVE_EVERY = 60.0
"""Seconds."""

_LINES = 100
"""Of the log, for a whole course."""


class Course(Protocol):
    """What is trained, and by what."""

    name: str
    rate: float
    """The highest learning rate."""

    @property
    def module(self) -> nn.Module: ...

    def loss(self, step: int) -> Tensor:
        """Draws from torch's generator only: it has been seeded for this step."""
        ...


class Log:
    """A file of JSON lines: what happened, at which step, with which figures. A resumed run goes on writing."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path

    def tell(self, event: str, **facts: float | str) -> None:
        line = {"event": event, **{key: _short(fact) for key, fact in facts.items()}}
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def follow(course: Course, folder: Path, *, seconds: float, seed: int, log: Log) -> None:
    """Train until `seconds` are spent, those of earlier runs counted in; the module is left with its mean weights."""
    progress = _Progress(course, folder / f"{course.name}.safetensors", seed)
    course.module.train()
    log.tell("started", course=course.name, step=progress.step, spent=progress.spent, seconds=seconds)
    saved = told = progress.spent
    losses: list[float] = []
    while progress.spent < seconds:
        begun = time.monotonic()
        losses.append(progress.advance(share=progress.spent / seconds))
        progress.spent += time.monotonic() - begun
        if progress.spent - told >= seconds / _LINES:
            speed = len(losses) / (progress.spent - told)
            mean = sum(losses) / len(losses)
            log.tell("trained", course=course.name, step=progress.step, spent=progress.spent, loss=mean, speed=speed)
            told, losses = progress.spent, []
        if progress.spent - saved >= _SAVE_EVERY:
            progress.save()
            saved = progress.spent
    progress.save()
    log.tell("ended", course=course.name, step=progress.step, spent=progress.spent)
    progress.settle()
    course.module.eval().requires_grad_(False)


class _Progress:
    """A course with its optimizer and the running mean of its weights; in step with its checkpoint."""

    def __init__(self, course: Course, path: Path, seed: int) -> None:
        self._course, self._path, self._seed = course, path, seed
        self._named = dict(course.module.named_parameters())
        self._optimizer = torch.optim.AdamW(
            self._named.values(), lr=course.rate, betas=(0.9, 0.99), weight_decay=0.01, fused=True
        )
        self._mean = {name: values.detach().clone() for name, values in self._floats().items()}
        self.step, self.spent = 0, 0.0
        if path.is_file():
            self._load()

    def advance(self, *, share: float) -> float:
        """One step; its loss."""
        torch.manual_seed(chance.key(self._seed, self._course.name, self.step))
        for group in self._optimizer.param_groups:
            group["lr"] = _rate(self._course.rate, self.step, share)
        loss = self._course.loss(self.step)
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call] # torch has no types here
        nn.utils.clip_grad_norm_(self._named.values(), 1.0)
        self._optimizer.step()
        self.step += 1
        kept = min(_MEAN, self.step / (10 + self.step))
        for name, values in self._floats().items():
            self._mean[name].lerp_(values.detach(), 1 - kept)
        return loss.item()

    def save(self) -> None:
        tensors = {f"weights/{name}": values for name, values in self._floats().items()}
        tensors |= {f"mean/{name}": values for name, values in self._mean.items()}
        for name, parameter in self._named.items():
            state = self._optimizer.state.get(parameter, {})
            tensors |= {f"{key}/{name}": values for key, values in state.items() if key.startswith("exp_avg")}
        half_written = self._path.with_suffix(".writing")
        numbers = {"seed": str(self._seed), "step": str(self.step), "spent": str(self.spent)}
        safetensors.torch.save_file({key: each.contiguous() for key, each in tensors.items()}, half_written, numbers)
        half_written.replace(self._path)

    def settle(self) -> None:
        """Put the mean weights in the place of the last ones."""
        for name, values in self._floats().items():
            values.data.copy_(self._mean[name])

    def _load(self) -> None:
        try:
            with safetensors.safe_open(self._path, framework="pt") as file:
                numbers, tensors = file.metadata(), {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - no dict
        except SafetensorError as error:
            raise ValueError(f"{self._path.name} is no checkpoint: {error}") from error
        if int(numbers["seed"]) != self._seed:
            raise ValueError(f"{self._path.name} was begun with seed {numbers['seed']}: take another work folder")
        self.step, self.spent = int(numbers["step"]), float(numbers["spent"])
        for name, values in self._floats().items():
            values.data.copy_(tensors[f"weights/{name}"])
            self._mean[name].copy_(tensors[f"mean/{name}"])
        for name, parameter in self._named.items():
            if f"exp_avg/{name}" in tensors:
                self._optimizer.state[parameter] = {
                    "step": torch.tensor(float(self.step), device=parameter.device),
                    **{key: tensors[f"{key}/{name}"].to(parameter.device) for key in ("exp_avg", "exp_avg_sq")},
                }

    def _floats(self) -> dict[str, Tensor]:
        """Weights and running statistics."""
        state = self._course.module.state_dict(keep_vars=True)
        return {name: values for name, values in state.items() if values.is_floating_point()}


def _rate(peak: float, step: int, share: float) -> float:
    """Warm up, then half a cosine down to a hundredth."""
    warm = min(1.0, (step + 1) / _WARM)
    return peak * warm * (0.01 + 0.99 * (1 + math.cos(math.pi * min(1.0, share))) / 2)


def _short(fact: float | str) -> float | str:
    return round(fact, 5) if isinstance(fact, float) else fact
