"""The optimizers of recipes: how each is created, what its state looks like, and its name in the header of files."""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch

from contracts.recipe import Adafactor, AdamW, Optimizer

Shapes = dict[str, tuple[int, ...]]
StateShapes = Callable[[Sequence[int]], Shapes]


class OptimizerEntry(NamedTuple):
    """What the engine needs of one optimizer. The learning rate is set before each step.

    `state_shapes`: the tensors that a checkpoint has for a weight of a shape. `header`: as in kohya's `ss_optimizer`.
    """

    create: Callable[[Iterable[torch.nn.Parameter]], torch.optim.Optimizer]
    state_shapes: StateShapes
    header: str


def optimizer_entry(config: Optimizer) -> OptimizerEntry:
    match config:
        case AdamW(lr=lr, beta1=beta1, beta2=beta2, eps=eps, weight_decay=decay):
            return OptimizerEntry(
                lambda weights: torch.optim.AdamW(
                    weights, lr=lr, betas=(beta1, beta2), eps=eps, weight_decay=decay, fused=True
                ),
                lambda shape: {"step": (), "exp_avg": tuple(shape), "exp_avg_sq": tuple(shape)},
                f"torch.optim.adamw.AdamW(betas=({beta1}, {beta2}),eps={eps},weight_decay={decay})",
            )
        case Adafactor(lr=lr, weight_decay=decay):
            return OptimizerEntry(
                lambda weights: torch.optim.Adafactor(weights, lr=lr, weight_decay=decay),
                _factored_shapes,
                f"torch.optim._adafactor.Adafactor(weight_decay={decay})",
            )


def _factored_shapes(shape: Sequence[int]) -> Shapes:
    """Adafactor factors the last two dimensions."""
    *others, rows, columns = shape
    return {"step": (), "row_var": (*others, rows, 1), "col_var": (*others, 1, columns)}
