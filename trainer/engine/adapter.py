"""The adapter while it is trained: peft's LoRA layers in the denoiser, their weights by name."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from peft import LoraConfig

from contracts.recipe import Recipe
from trainer.engine import rng
from trainer.families import Model

NAME = "default"


class Adapter:
    """Weights `<module>.lora_A` [rank, in] and `<module>.lora_B` [out, rank], float32, in the order of their names."""

    def __init__(self, weights: dict[str, torch.nn.Parameter]) -> None:
        self.weights = weights
        self.parameters = list(weights.values())

    def tensors(self) -> dict[str, torch.Tensor]:
        """Copies of the weights on the CPU."""
        return {name: weight.detach().to("cpu", copy=True) for name, weight in self.weights.items()}

    @torch.no_grad()
    def take(self, tensors: dict[str, torch.Tensor]) -> None:
        """Have these weights from now on."""
        for name, weight in self.weights.items():
            weight.copy_(tensors[name])


@contextmanager
def fitted(model: Model, recipe: Recipe) -> Iterator[Adapter]:
    """The model with a fresh adapter, whose first weights are a function of the seed; taken out again at the end."""
    lora = recipe.adapter
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=list(model.targets(lora.layers)),
        init_lora_weights=False,
    )
    model.denoiser.add_adapter(config, adapter_name=NAME)
    model.denoiser.train()
    if recipe.gradient_checkpointing:
        model.denoiser.enable_gradient_checkpointing()
    try:
        yield Adapter(_first_weights(model.denoiser, recipe.seed))
    finally:
        model.denoiser.disable_gradient_checkpointing()
        model.denoiser.unload_lora()


def _first_weights(denoiser: torch.nn.Module, seed: int) -> dict[str, torch.nn.Parameter]:
    """A uniform within 1 / sqrt(inputs) as in Hu et al.'s code, B zero: an untrained adapter changes nothing."""
    ending = f".{NAME}.weight"
    found = {name.removesuffix(ending): weight for name, weight in denoiser.named_parameters() if name.endswith(ending)}
    for name, weight in found.items():
        first = torch.zeros(weight.shape)
        if name.endswith("lora_A"):
            first = rng.uniform(weight.shape, weight.shape[1] ** -0.5, seed, "first weights", name)
        weight.data = first.to(weight.device)
    return dict(sorted(found.items()))
