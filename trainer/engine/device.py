"""Device and precision: accelerate's choice within what the recipe allows."""

import time

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from contracts.errors import Rejected
from contracts.recipe import Recipe
from trainer.messages import DeviceMemory

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


class MemoryMeter:
    """Reads the device's memory at most once every `interval` seconds."""

    def __init__(self, interval: float = 1.0) -> None:
        self._interval = interval
        self._read_at = float("-inf")

    def read(self) -> DeviceMemory | None:
        """None: it was read a moment ago, or no CUDA device is in use (asking would start to use one)."""
        now = time.monotonic()
        if now - self._read_at < self._interval or not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]  # torch has no types for it
            return None
        self._read_at = now
        free, total = torch.cuda.mem_get_info()
        return DeviceMemory(used=total - free, total=total)
