"""Device and precision: accelerate's choice within what the recipe allows."""

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from contracts.errors import Rejected
from contracts.recipe import Recipe

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_MIXED_PRECISION = {"float32": "no", "bfloat16": "bf16", "float16": "fp16"}


def create_accelerator(recipe: Recipe) -> tuple[Accelerator, str]:
    """An accelerator on the recipe's device, and the precision of its forward pass; Rejected if not available."""
    if recipe.device == "cuda" and not torch.cuda.is_available():
        raise Rejected("the recipe asks for a CUDA device and this trainer has none")
    # accelerate keeps the first configuration of a process; a warm engine runs recipes with different ones.
    AcceleratorState._reset_state(reset_partial_state=True)
    device = Accelerator(cpu=recipe.device == "cpu").device
    precision = _precision(recipe, device)
    AcceleratorState._reset_state(reset_partial_state=True)
    return Accelerator(cpu=recipe.device == "cpu", mixed_precision=_MIXED_PRECISION[precision]), precision


def _precision(recipe: Recipe, device: torch.device) -> str:
    """`auto` means bfloat16 where the device supports it; on CPUs float32 is faster, and exact."""
    if recipe.precision == "auto":
        return "bfloat16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "float32"
    if recipe.precision == "float16" and device.type != "cuda":
        raise Rejected(f"float16 needs a CUDA device; this one is {device.type}")
    return recipe.precision


def default_device_name() -> str:
    """Display name of the device that `auto` chooses."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else Accelerator().device.type
