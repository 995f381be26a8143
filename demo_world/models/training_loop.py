"""The training loop for all models of the demo world: limited by time, and resumable from its checkpoint.

A stage's checkpoint holds the weights, their exponential moving average (EMA), the optimizer state and the seconds
spent; the learning rate depends on the share of the time spent. Data and noise are functions of seed and step, but the
number of steps depends on the machine: elsewhere, the same seed gives different weights of the same quality.
"""

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from trainer import seeded

_WARMUP_STEPS = 100
"""Steps of linear warm-up."""

_EMA_DECAY = 0.999
"""EMA decay per step, reached after a few thousand steps."""

_SAVE_INTERVAL_SECONDS = 60.0

_LOG_LINES = 100
"""Progress lines in the log for a whole stage."""


Clock = Callable[[], float]


class TrainingStage(Protocol):
    """A module and the loss it is trained with."""

    name: str
    """Names the checkpoint file and is part of the random seed of every step."""
    learning_rate: float
    """Peak learning rate."""

    @property
    def module(self) -> nn.Module: ...

    def loss(self, step: int) -> Tensor:
        """The loss of one batch. Takes randomness only from torch's global generator, which is seeded for this step."""
        ...


class Log:
    """A log of JSON lines: an event and its values. A resumed run appends to it."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path

    def write(self, event: str, **values: float | str) -> None:
        line = {"event": event, **{key: _rounded(value) for key, value in values.items()}}
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


@dataclass(frozen=True)
class StageTrainer:
    """Trains stages; their checkpoints are in `folder`. `clock`: seconds, as `time.monotonic` counts them."""

    folder: Path
    seed: int
    log: Log
    clock: Clock = time.monotonic

    def train(self, stage: TrainingStage, *, seconds: float) -> None:
        """Train for `seconds` in total, earlier runs included; leaves the module with its EMA weights, in eval mode."""
        run = _StageRun(stage, self.folder / f"{stage.name}.safetensors", self.seed)
        stage.module.train()
        self.log.write("started", stage=stage.name, step=run.step, seconds_spent=run.seconds_spent, seconds=seconds)
        last_saved = logged = run.seconds_spent
        losses: list[float] = []
        while run.seconds_spent < seconds:
            started = self.clock()
            losses.append(run.advance(time_share=run.seconds_spent / seconds))
            run.seconds_spent += self.clock() - started
            if run.seconds_spent - logged >= seconds / _LOG_LINES:
                self._log_progress(run, losses, run.seconds_spent - logged)
                logged, losses = run.seconds_spent, []
            if run.seconds_spent - last_saved >= _SAVE_INTERVAL_SECONDS:
                run.save()
                last_saved = run.seconds_spent
        run.save()
        self.log.write("ended", stage=stage.name, step=run.step, seconds_spent=run.seconds_spent)
        run.apply_ema()
        stage.module.eval().requires_grad_(False)

    def _log_progress(self, run: "_StageRun", losses: list[float], seconds: float) -> None:
        mean_loss, speed = sum(losses) / len(losses), len(losses) / seconds
        spent = run.seconds_spent
        self.log.write("trained", stage=run.name, step=run.step, seconds_spent=spent, loss=mean_loss, speed=speed)


class _StageRun:
    """A stage with its optimizer, the EMA of its weights and its checkpoint file."""

    def __init__(self, stage: TrainingStage, path: Path, seed: int) -> None:
        self._stage, self._path, self._seed = stage, path, seed
        self.name = stage.name
        self._parameters = dict(stage.module.named_parameters())
        self._optimizer = torch.optim.AdamW(
            self._parameters.values(), lr=stage.learning_rate, betas=(0.9, 0.99), weight_decay=0.01, fused=True
        )
        self._ema = {name: values.detach().clone() for name, values in self._float_tensors().items()}
        self.step, self.seconds_spent = 0, 0.0
        if path.is_file():
            self._load()

    def advance(self, *, time_share: float) -> float:
        """Run one training step and return its loss."""
        torch.manual_seed(seeded.seed_for(self._seed, self.name, self.step))
        for group in self._optimizer.param_groups:
            group["lr"] = _scheduled_rate(self._stage.learning_rate, self.step, time_share)
        loss = self._stage.loss(self.step)
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call] # torch has no types here
        nn.utils.clip_grad_norm_(self._parameters.values(), 1.0)
        self._optimizer.step()
        self.step += 1
        decay = min(_EMA_DECAY, self.step / (10 + self.step))
        for name, values in self._float_tensors().items():
            self._ema[name].lerp_(values.detach(), 1 - decay)
        return loss.item()

    def save(self) -> None:
        tensors = {f"weights/{name}": values for name, values in self._float_tensors().items()}
        tensors |= {f"mean/{name}": values for name, values in self._ema.items()}
        for name, parameter in self._parameters.items():
            state = self._optimizer.state.get(parameter, {})
            tensors |= {f"{key}/{name}": values for key, values in state.items() if key.startswith("exp_avg")}
        temporary = self._path.with_suffix(".writing")
        metadata = {"seed": str(self._seed), "step": str(self.step), "seconds_spent": str(self.seconds_spent)}
        safetensors.torch.save_file({key: each.contiguous() for key, each in tensors.items()}, temporary, metadata)
        temporary.replace(self._path)

    def apply_ema(self) -> None:
        """Replace the weights by their moving average."""
        for name, values in self._float_tensors().items():
            values.data.copy_(self._ema[name])

    def _load(self) -> None:
        try:
            with safetensors.safe_open(self._path, framework="pt") as file:
                metadata, tensors = file.metadata(), {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - no dict
        except SafetensorError as error:
            raise ValueError(f"{self._path.name} is not a valid checkpoint: {error}") from error
        if int(metadata["seed"]) != self._seed:
            raise ValueError(f"{self._path.name} was started with seed {metadata['seed']}; use another work folder")
        self.step, self.seconds_spent = int(metadata["step"]), float(metadata["seconds_spent"])
        for name, values in self._float_tensors().items():
            values.data.copy_(tensors[f"weights/{name}"])
            self._ema[name].copy_(tensors[f"mean/{name}"])
        for name, parameter in self._parameters.items():
            if f"exp_avg/{name}" in tensors:
                self._optimizer.state[parameter] = {
                    "step": torch.tensor(float(self.step), device=parameter.device),
                    **{key: tensors[f"{key}/{name}"].to(parameter.device) for key in ("exp_avg", "exp_avg_sq")},
                }

    def _float_tensors(self) -> dict[str, Tensor]:
        """Weights and running statistics (of batch norms)."""
        state = self._stage.module.state_dict(keep_vars=True)
        return {name: values for name, values in state.items() if values.is_floating_point()}


def _scheduled_rate(peak: float, step: int, time_share: float) -> float:
    """Linear warm-up, then a cosine decay to 1 % of the peak."""
    warmup = min(1.0, (step + 1) / _WARMUP_STEPS)
    return peak * warmup * (0.01 + 0.99 * (1 + math.cos(math.pi * min(1.0, time_share))) / 2)


def _rounded(value: float | str) -> float | str:
    return round(value, 5) if isinstance(value, float) else value
