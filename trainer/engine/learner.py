"""One optimizer update: draw, predict, compare, go back, clip, step. What a textbook says, in its order."""

import math
import time
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from PIL.Image import Image

from contracts.recipe import Adafactor, AdamW, Optimizer, Recipe
from trainer import chance
from trainer.engine import rng
from trainer.engine.adapter import Adapter
from trainer.engine.data import Pictures, Texts
from trainer.families import Model, Tensors
from trainer.messages import Stepped
from trainer.plan import Batch, Plan, Size, rate_at


class Diverged(Exception):
    """The loss or its gradient is no number any more."""


def optimizer_for(kind: Optimizer, adapter: Adapter) -> torch.optim.Optimizer:
    """The recipe's optimizer over all weights of the adapter; its rate is set anew before each step."""
    match kind:
        case AdamW(lr=lr, beta1=beta1, beta2=beta2, eps=eps, weight_decay=decay):
            return torch.optim.AdamW(
                adapter.parameters, lr=lr, betas=(beta1, beta2), eps=eps, weight_decay=decay, fused=True
            )
        case Adafactor(lr=lr, weight_decay=decay):
            return torch.optim.Adafactor(adapter.parameters, lr=lr, weight_decay=decay)


@dataclass(frozen=True, kw_only=True)
class Learner:
    """All that a step needs. It holds no place in the run: a step is a function of its number and the weights."""

    recipe: Recipe
    plan: Plan
    model: Model
    adapter: Adapter
    optimizer: torch.optim.Optimizer
    pictures: Pictures
    texts: Texts
    accelerator: Accelerator
    precision: str

    def update(self, step: int) -> Stepped:
        """One update of the adapter: the gradients of the step's batches, clipped together, then the optimizer."""
        started = time.perf_counter()
        rate = self._set_rate(step)
        loss = self._backward(step)
        gradient = float(self.accelerator.clip_grad_norm_(self.adapter.parameters, self.recipe.max_grad_norm) or 0.0)
        self._refuse_divergence(step, loss, gradient)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return Stepped(
            step=step,
            epoch=self.plan.epoch_of(step),
            loss=loss,
            lr=rate,
            gradient=gradient,
            seconds=time.perf_counter() - started,
        )

    def render(self, prompt: str, *, size: Size, seed: int) -> Image:
        """A picture by the adapter as it is now, without dropout."""
        sampling = self.recipe.sampling
        self.model.denoiser.eval()
        try:
            with self.accelerator.autocast():
                return self.model.render(prompt, size=size, steps=sampling.steps, guidance=sampling.guidance, seed=seed)
        finally:
            self.model.denoiser.train()

    def scaler(self) -> dict[str, Any] | None:
        """The state of float16's gradient scaler; None in other precisions."""
        scaler = self.accelerator.scaler
        return None if scaler is None else scaler.state_dict()

    def set_scaler(self, state: dict[str, Any] | None) -> None:
        if state is not None and self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(state)

    def _set_rate(self, step: int) -> float:
        rate = self.recipe.optimizer.lr * rate_at(self.recipe.schedule, step, self.plan.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        return rate

    def _backward(self, step: int) -> float:
        """Gradients of all batches of the step; the mean loss of its samples, each weighing the same."""
        batches = self.plan.batches_of(step)
        samples = sum(map(len, batches))
        total, first = 0.0, 0
        for batch in batches:
            loss = self._loss(step, batch, first) / samples
            self.accelerator.backward(loss)
            total += loss.item()
            first += len(batch)
        return total

    def _loss(self, step: int, batch: Batch, first: int) -> torch.Tensor:
        """The sum of the samples' errors. `first` is the number of the batch's first sample within the step."""
        latents, noise, times, texts = self._drawn(step, batch, first)
        if self.recipe.adapter.dropout:
            torch.manual_seed(chance.key(self.recipe.seed, step, first, "adapter dropout"))
        with self.accelerator.autocast():
            said = self.model.predict(self.model.noised(latents, noise, times), times, texts)
        errors = (said.float() - self.model.target(latents, noise, times)).square().flatten(1).mean(1)
        if (gamma := self.recipe.objective.min_snr_gamma) is not None:
            errors = errors * self.model.weights(times, gamma)
        return errors.sum()

    def _drawn(self, step: int, batch: Batch, first: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, Tensors]:
        """Latents, noise, times and texts of a batch, every draw named by (seed, step, sample, purpose)."""
        seed = self.recipe.seed
        latents, noises, times, texts = [], [], [], []
        for sample, place in enumerate(batch, start=first):
            encoded = self.pictures.at(place)
            shape = self.model.latent_shape(encoded)
            latents.append(self.model.latents(encoded, rng.normal(shape, seed, step, sample, "latents")))
            noises.append(self._noise(shape, step, sample))
            times.append(self.model.time(chance.share(seed, step, sample, "time")))
            texts.append(self.texts.at(place, seed, step, sample))
        device = self.accelerator.device
        return (
            torch.stack(latents).to(device),
            torch.stack(noises).to(device),
            torch.tensor(times, device=device),
            {name: torch.stack([text[name] for text in texts]).to(device) for name in texts[0]},
        )

    def _noise(self, shape: torch.Size, step: int, sample: int) -> torch.Tensor:
        noise = rng.normal(shape, self.recipe.seed, step, sample, "noise")
        if offset := self.recipe.objective.noise_offset:
            channels = (shape[0], *(1 for _ in shape[1:]))
            noise = noise + offset * rng.normal(channels, self.recipe.seed, step, sample, "noise offset")
        return noise

    def _refuse_divergence(self, step: int, loss: float, gradient: float) -> None:
        # With float16 an overflowing gradient is the scaler's business: it skips the step and scales down.
        scaled = self.accelerator.scaler is not None
        if not math.isfinite(loss) or (not scaled and not math.isfinite(gradient)):
            raise Diverged(f"the loss is no number any more at step {step}; a lower learning rate may help")
