"""One optimizer update: draw, predict, compare, go back, clip, step. What a textbook says, in its order."""

import math
import time
from dataclasses import dataclass
from typing import Any, NamedTuple

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


class _Question(NamedTuple):
    """What the denoiser is asked of a batch: pictures with noise, the noise, times and texts."""

    noisy: torch.Tensor
    noise: torch.Tensor
    times: torch.Tensor
    texts: Tensors


def _together(one: _Question, other: _Question) -> _Question:
    """Both in one batch."""
    noisy, noise, times = (torch.cat(pair) for pair in zip(one[:3], other[:3], strict=True))
    return _Question(noisy, noise, times, {name: torch.cat([one.texts[name], other.texts[name]]) for name in one.texts})


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
        latents, keep = self._latents(step, batch, first), self.recipe.preservation
        learned = self._question(latents, step, batch, first)
        wanted = self.model.target(latents, learned.noise, learned.times)
        asked = learned
        if keep is not None:
            kept = self._question(latents, step, batch, first, to_keep=True)
            wanted = torch.cat([wanted, self._by_base(kept)])
            asked = _together(learned, kept)
        if self.recipe.adapter.dropout:
            torch.manual_seed(chance.key(self.recipe.seed, step, first, "adapter dropout"))
        with self.accelerator.autocast():
            said = self.model.predict(asked.noisy, asked.times, asked.texts)
        errors = (said.float() - wanted).square().flatten(1).mean(1)
        to_learn = errors[: len(batch)]
        if (gamma := self.recipe.objective.min_snr_gamma) is not None:
            to_learn = to_learn * self.model.weights(learned.times, gamma)
        return to_learn.sum() if keep is None else to_learn.sum() + keep.weight * errors[len(batch) :].sum()

    def _by_base(self, asked: _Question) -> torch.Tensor:
        """What the denoiser says without the adapter."""
        denoiser = self.model.denoiser
        denoiser.disable_adapters()
        try:
            with torch.no_grad(), self.accelerator.autocast():
                return self.model.predict(asked.noisy, asked.times, asked.texts).float()
        finally:
            denoiser.enable_adapters()

    def _latents(self, step: int, batch: Batch, first: int) -> torch.Tensor:
        drawn = []
        for sample, place in enumerate(batch, start=first):
            encoded = self.pictures.at(place)
            noise = rng.normal(self.model.latent_shape(encoded), self.recipe.seed, step, sample, "latents")
            drawn.append(self.model.latents(encoded, noise))
        return torch.stack(drawn).to(self.accelerator.device)

    def _question(
        self, latents: torch.Tensor, step: int, batch: Batch, first: int, *, to_keep: bool = False
    ) -> _Question:
        """Noise, times and texts for a batch's latents, every draw named by (seed, step, sample, purpose)."""
        seed, what = self.recipe.seed, " to keep" if to_keep else ""
        text = self.texts.kept_at if to_keep else self.texts.at
        noises, times, texts = [], [], []
        for sample, place in enumerate(batch, start=first):
            noises.append(self._noise(latents.shape[1:], step, sample, "noise" + what))
            times.append(self.model.time(chance.share(seed, step, sample, "time" + what)))
            texts.append(text(place, seed, step, sample))
        device = self.accelerator.device
        noise, at = torch.stack(noises).to(device), torch.tensor(times, device=device)
        said = {name: torch.stack([each[name] for each in texts]).to(device) for name in texts[0]}
        return _Question(self.model.noised(latents, noise, at), noise, at, said)

    def _noise(self, shape: torch.Size, step: int, sample: int, purpose: str) -> torch.Tensor:
        noise = rng.normal(shape, self.recipe.seed, step, sample, purpose)
        if offset := self.recipe.objective.noise_offset:
            channels = (shape[0], *(1 for _ in shape[1:]))
            noise = noise + offset * rng.normal(channels, self.recipe.seed, step, sample, purpose + " offset")
        return noise

    def _refuse_divergence(self, step: int, loss: float, gradient: float) -> None:
        # With float16 an overflowing gradient is the scaler's business: it skips the step and scales down.
        scaled = self.accelerator.scaler is not None
        if not math.isfinite(loss) or (not scaled and not math.isfinite(gradient)):
            raise Diverged(f"the loss is no number any more at step {step}; a lower learning rate may help")
