"""Random tensors, named like every draw by (seed, step, sample, purpose); see `trainer.seeded`.

Drawn on the CPU, so that they are the same on every device.
"""

from collections.abc import Sequence

import torch

from trainer import seeded


def generator(*name: int | str) -> torch.Generator:
    return torch.Generator().manual_seed(seeded.seed_for(*name))


def normal(shape: Sequence[int], *name: int | str) -> torch.Tensor:
    return torch.randn(tuple(shape), generator=generator(*name))


def uniform(shape: Sequence[int], bound: float, *name: int | str) -> torch.Tensor:
    """Uniform in [-bound, bound)."""
    return (torch.rand(tuple(shape), generator=generator(*name)) * 2 - 1) * bound
