"""The adapter during training: peft's LoRA layers in the denoiser, and their weights by name."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from peft import LoraConfig

from contracts.recipe import Recipe
from trainer.engine import rng
from trainer.families import Model

ADAPTER_NAME = "default"


class TrainableAdapter:
    """Weights `<module>.lora_A` [rank, in] and `<module>.lora_B` [out, rank], float32, sorted by name."""

    def __init__(self, weights: dict[str, torch.nn.Parameter]) -> None:
        self.weights = weights
        self.parameters = list(weights.values())

    def tensors(self) -> dict[str, torch.Tensor]:
        """Copies of the weights on the CPU."""
        return {name: weight.detach().to("cpu", copy=True) for name, weight in self.weights.items()}

    @torch.no_grad()
    def load(self, tensors: dict[str, torch.Tensor]) -> None:
        """Overwrite the weights in place."""
        for name, weight in self.weights.items():
            weight.copy_(tensors[name])


@contextmanager
def attach_lora(model: Model, recipe: Recipe) -> Iterator[TrainableAdapter]:
    """Attach a new adapter, initialized from the recipe's seed; it is removed at the end."""
    lora = recipe.adapter
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=list(model.target_modules(lora.layers)),
        init_lora_weights=False,
    )
    model.denoiser.add_adapter(config, adapter_name=ADAPTER_NAME)
    model.denoiser.train()
    if recipe.gradient_checkpointing:
        model.denoiser.enable_gradient_checkpointing()
    try:
        yield TrainableAdapter(_initialize_weights(model.denoiser, recipe.seed))
    finally:
        model.denoiser.disable_gradient_checkpointing()
        model.denoiser.unload_lora()


def _initialize_weights(denoiser: torch.nn.Module, seed: int) -> dict[str, torch.nn.Parameter]:
    """A uniform within 1 / sqrt(inputs) as in Hu et al.'s code, B zero: an untrained adapter changes nothing."""
    suffix = f".{ADAPTER_NAME}.weight"
    parameters = denoiser.named_parameters()
    weights = {name.removesuffix(suffix): weight for name, weight in parameters if name.endswith(suffix)}
    for name, weight in weights.items():
        initial = torch.zeros(weight.shape)
        if name.endswith("lora_A"):
            initial = rng.uniform(weight.shape, weight.shape[1] ** -0.5, seed, "first weights", name)
        weight.data = initial.to(weight.device)
    return dict(sorted(weights.items()))
