"""One training step: sample noise and timesteps, predict, compute the loss, backpropagate, clip, update."""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator
from PIL.Image import Image

from contracts.recipe import Recipe
from trainer import seeded
from trainer.engine import rng
from trainer.engine.adapter import TrainableAdapter
from trainer.engine.data import PictureEncodings, TextEncodings
from trainer.families import Model, Tensors
from trainer.messages import Stepped
from trainer.plan import Batch, Plan, Size, lr_factor


class DenoisingBatch(NamedTuple):
    """Inputs of the denoiser for a batch, and the noise that was added."""

    noisy_latents: torch.Tensor
    noise: torch.Tensor
    timesteps: torch.Tensor
    texts: Tensors


class Diverged(Exception):
    """The loss or its gradient is not finite."""


@dataclass(frozen=True, kw_only=True)
class Learner:
    """Everything a training step needs. It has no position in the run: a step depends on its number and the weights."""

    recipe: Recipe
    plan: Plan
    model: Model
    adapter: TrainableAdapter
    optimizer: torch.optim.Optimizer
    pictures: PictureEncodings
    texts: TextEncodings
    accelerator: Accelerator
    precision: str

    def train_step(self, step: int) -> Stepped:
        """Update the adapter once: accumulate gradients of the step's batches, clip them, run the optimizer."""
        lr = self._set_lr(step)
        loss = self._backward(step)
        grad_norm = float(self.accelerator.clip_grad_norm_(self.adapter.parameters, self.recipe.max_grad_norm) or 0.0)
        self._raise_if_diverged(step, loss, grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return Stepped(step=step, epoch=self.plan.epoch_of(step), loss=loss, lr=lr)

    def render(self, prompt: str, *, size: Size, seed: int) -> Image:
        """Generate a picture with the current adapter weights, without dropout."""
        sampling = self.recipe.sampling
        self.model.denoiser.eval()
        try:
            with self.accelerator.autocast():
                return self.model.render(prompt, size=size, steps=sampling.steps, guidance=sampling.guidance, seed=seed)
        finally:
            self.model.denoiser.train()

    def scaler_state(self) -> dict[str, Any] | None:
        """The state of float16's gradient scaler; None in other precisions."""
        scaler = self.accelerator.scaler
        return None if scaler is None else scaler.state_dict()

    def load_scaler_state(self, state: dict[str, Any] | None) -> None:
        if state is not None and self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(state)

    def _set_lr(self, step: int) -> float:
        lr = self.recipe.optimizer.lr * lr_factor(self.recipe.schedule, step, self.plan.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        return lr

    def _backward(self, step: int) -> float:
        """Accumulate gradients of all batches of the step; returns the mean loss over its samples."""
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
        """The sum of the samples' losses. `first` is the number of the batch's first sample within the step."""
        latents, preservation = self._sample_latents(step, batch, first), self.recipe.preservation
        denoising_batch = self._make_batch(latents, step, batch, first)
        target = self.model.target(latents, denoising_batch.noise, denoising_batch.timesteps)
        model_input = denoising_batch
        if preservation is not None:
            preservation_batch = self._make_batch(latents, step, batch, first, preservation=True)
            target = torch.cat([target, self._base_prediction(preservation_batch)])
            model_input = _concat(denoising_batch, preservation_batch)
        if self.recipe.adapter.dropout:
            torch.manual_seed(seeded.seed_for(self.recipe.seed, step, first, "adapter dropout"))
        with self.accelerator.autocast():
            model_pred = self.model.predict(model_input.noisy_latents, model_input.timesteps, model_input.texts)
        errors = (model_pred.float() - target).square().flatten(1).mean(1)
        loss = errors[: len(batch)]
        if (gamma := self.recipe.objective.min_snr_gamma) is not None:
            loss = loss * self.model.min_snr_weights(denoising_batch.timesteps, gamma)
        if preservation is None:
            return loss.sum()
        return loss.sum() + preservation.weight * errors[len(batch) :].sum()

    def _base_prediction(self, batch: DenoisingBatch) -> torch.Tensor:
        """The denoiser's prediction without the adapter."""
        denoiser = self.model.denoiser
        denoiser.disable_adapters()
        try:
            with torch.no_grad(), self.accelerator.autocast():
                return self.model.predict(batch.noisy_latents, batch.timesteps, batch.texts).float()
        finally:
            denoiser.enable_adapters()

    def _sample_latents(self, step: int, batch: Batch, first: int) -> torch.Tensor:
        latents = []
        for sample, index in enumerate(batch, start=first):
            encoded = self.pictures.get(index)
            noise = rng.normal(self.model.latent_shape(encoded), self.recipe.seed, step, sample, "latents")
            latents.append(self.model.latents(encoded, noise))
        return torch.stack(latents).to(self.accelerator.device)

    def _make_batch(
        self, latents: torch.Tensor, step: int, batch: Batch, first: int, *, preservation: bool = False
    ) -> DenoisingBatch:
        """Add noise at sampled timesteps and fetch the texts; every draw is named by (seed, step, sample, purpose)."""
        seed, suffix = self.recipe.seed, " to keep" if preservation else ""
        get_text = self.texts.get_preservation if preservation else self.texts.get
        noises, times, texts = [], [], []
        for sample, index in enumerate(batch, start=first):
            noises.append(self._sample_noise(latents.shape[1:], step, sample, "noise" + suffix))
            times.append(self.model.timestep(seeded.uniform(seed, step, sample, "time" + suffix)))
            texts.append(get_text(index, seed, step, sample))
        device = self.accelerator.device
        noise, timesteps = torch.stack(noises).to(device), torch.tensor(times, device=device)
        stacked = {name: torch.stack([text[name] for text in texts]).to(device) for name in texts[0]}
        return DenoisingBatch(self.model.add_noise(latents, noise, timesteps), noise, timesteps, stacked)

    def _sample_noise(self, shape: torch.Size, step: int, sample: int, purpose: str) -> torch.Tensor:
        noise = rng.normal(shape, self.recipe.seed, step, sample, purpose)
        if offset := self.recipe.objective.noise_offset:
            channels = (shape[0], *(1 for _ in shape[1:]))
            noise = noise + offset * rng.normal(channels, self.recipe.seed, step, sample, purpose + " offset")
        return noise

    def _raise_if_diverged(self, step: int, loss: float, grad_norm: float) -> None:
        # With float16 the gradient scaler handles an overflowing gradient: it skips the step and scales down.
        uses_scaler = self.accelerator.scaler is not None
        if not math.isfinite(loss) or (not uses_scaler and not math.isfinite(grad_norm)):
            raise Diverged(f"the loss is not finite at step {step}; a lower learning rate may help")


def _concat(first: DenoisingBatch, second: DenoisingBatch) -> DenoisingBatch:
    noisy_latents, noise, timesteps = (torch.cat(pair) for pair in zip(first[:3], second[:3], strict=True))
    texts = {name: torch.cat([first.texts[name], second.texts[name]]) for name in first.texts}
    return DenoisingBatch(noisy_latents, noise, timesteps, texts)
