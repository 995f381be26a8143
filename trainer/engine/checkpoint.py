"""A checkpoint: one safetensors file with everything a resumed run needs: adapter, optimizer state, training cursor.

Random draws and data order are functions of the step, so the cursor is the step. Nothing is pickled.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import torch

from contracts.recipe import Recipe
from trainer.engine import files
from trainer.engine.adapter import TrainableAdapter
from trainer.engine.optimizers import Shapes, StateShapes
from trainer.families import digest_strings
from trainer.messages import Example

FORMAT = "loratory-checkpoint/1"

_CHANGEABLE_FIELDS = ("version", "length", "sampling", "save", "device", "gradient_checkpointing")
"""Recipe fields that do not affect a training step: a resumed run may have other values."""


class BadCheckpoint(Exception):
    """A checkpoint is damaged or belongs to another run."""


def run_fingerprint(recipe: Recipe, examples: Sequence[Example], base_digest: str) -> str:
    """Digest of everything that affects a training step; a run resumes only from checkpoints with its fingerprint."""
    tree = {name: part for name, part in msgspec.to_builtins(recipe).items() if name not in _CHANGEABLE_FIELDS}
    tree.pop("base")  # The weights count, not their path; they are in `base_digest`.
    lines = map(_fingerprint_line, examples)
    return digest_strings(FORMAT, json.dumps(tree, sort_keys=True), base_digest, *lines)


def _fingerprint_line(example: Example) -> str:
    # Without repeats as it was before images had them, so that checkpoints from then still fit.
    repeats = "" if example.repeats == 1 else f" {example.repeats}"
    return f"{example.digest} {json.dumps(example.caption)}{repeats}"


@dataclass(frozen=True, kw_only=True)
class TrainingCursor:
    """Where a run resumes: after `step`, with the state of float16's gradient scaler if there is one."""

    step: int
    fingerprint: str
    scaler: dict[str, Any] | None = None


def save(path: Path, cursor: TrainingCursor, adapter: TrainableAdapter, optimizer: torch.optim.Optimizer) -> Path:
    """Write the state of a run atomically."""
    tensors = {f"adapter.{name}": weight for name, weight in adapter.tensors().items()}
    for name, weight in adapter.weights.items():
        for part, value in optimizer.state[weight].items():
            tensors[f"optimizer.{name}.{part}"] = value.detach().to("cpu", copy=True)
    metadata = {
        "format": FORMAT,
        "step": str(cursor.step),
        "fingerprint": cursor.fingerprint,
        "scaler": json.dumps(cursor.scaler),
    }
    return files.write_atomically(path, files.serialize_with_digest(tensors, metadata))


def restore(
    path: Path,
    fingerprint: str,
    adapter: TrainableAdapter,
    optimizer: torch.optim.Optimizer,
    state_shapes: StateShapes,
) -> TrainingCursor:
    """Load the state into adapter and optimizer; returns where the run resumes.

    Raises BadCheckpoint before anything is changed.
    """
    tensors, metadata = _read(path)
    if metadata.get("fingerprint") != fingerprint:
        raise BadCheckpoint(f"{path.name} belongs to another run: recipe, pictures, captions or base differ")
    try:
        scaler = json.loads(metadata["scaler"])
        cursor = TrainingCursor(step=int(metadata["step"]), fingerprint=fingerprint, scaler=scaler)
    except (KeyError, ValueError) as error:
        raise BadCheckpoint(f"{path.name} has no valid training cursor: {error}") from error
    _check_tensors(path, tensors, _expected_shapes(adapter, state_shapes))
    adapter.load({name: tensors[f"adapter.{name}"] for name in adapter.weights})
    state = {
        number: {part: tensors[f"optimizer.{name}.{part}"] for part in state_shapes(weight.shape)}
        for number, (name, weight) in enumerate(adapter.weights.items())
    }
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    return cursor


def _read(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    try:
        tensors, metadata = files.load_verified(path)
    except (ValueError, OSError) as error:
        raise BadCheckpoint(f"the checkpoint cannot be read: {error}") from error
    if metadata.get("format") != FORMAT:
        raise BadCheckpoint(f"{path.name} is not {FORMAT} but {metadata.get('format', 'another format')}")
    return tensors, metadata


def _expected_shapes(adapter: TrainableAdapter, state_shapes: StateShapes) -> Shapes:
    shapes = {f"adapter.{name}": tuple(weight.shape) for name, weight in adapter.weights.items()}
    for name, weight in adapter.weights.items():
        shapes |= {f"optimizer.{name}.{part}": shape for part, shape in state_shapes(weight.shape).items()}
    return shapes


def _check_tensors(path: Path, tensors: Mapping[str, torch.Tensor], expected: Mapping[str, tuple[int, ...]]) -> None:
    if different := sorted(tensors.keys() ^ expected.keys()):
        raise BadCheckpoint(
            f"{path.name} and the adapter do not have the same weights: {different[0]} and {len(different) - 1} more"
        )
    for name, tensor in tensors.items():
        if tuple(tensor.shape) != expected[name] or tensor.dtype != torch.float32:
            raise BadCheckpoint(
                f"{path.name}: {name} is {list(tensor.shape)} {tensor.dtype}, not {list(expected[name])}"
            )
        if not bool(tensor.isfinite().all()):
            raise BadCheckpoint(f"{path.name}: {name} has values that are not finite")
