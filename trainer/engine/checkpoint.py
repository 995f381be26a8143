"""A checkpoint: one safetensors file with adapter, optimizer and place in the data. All that a resumed run needs.

Chance and data order are functions of the step, so the step is the place. Nothing is pickled.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import torch

from contracts.recipe import Adafactor, AdamW, Optimizer, Recipe
from trainer.engine import files
from trainer.engine.adapter import Adapter
from trainer.families import digest_over
from trainer.messages import Example

FORMAT = "loratory-checkpoint/1"

_MAY_DIFFER = ("length", "sampling", "save", "device", "gradient_checkpointing")
"""Parts of a recipe that do not change what a step does: a run may go on with others."""


class BadCheckpoint(Exception):
    """A checkpoint is torn, or of another run."""


def fingerprint_of(recipe: Recipe, examples: Sequence[Example], base: str) -> str:
    """Names everything that decides what a step does; a checkpoint of another fingerprint is another run's."""
    tree = {name: part for name, part in msgspec.to_builtins(recipe).items() if name not in _MAY_DIFFER}
    tree.pop("base")  # Its path says nothing; its weights are in `base`.
    said = (f"{example.digest} {json.dumps(example.caption)}" for example in examples)
    return digest_over(FORMAT, json.dumps(tree, sort_keys=True), base, *said)


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a run stands: after `step`, with float16's gradient scaler in this state, if there is one."""

    step: int
    fingerprint: str
    scaler: dict[str, Any] | None = None


def save(path: Path, place: Place, adapter: Adapter, optimizer: torch.optim.Optimizer) -> Path:
    """Write the state of a run, whole or not at all."""
    tensors = {f"adapter.{name}": weight for name, weight in adapter.tensors().items()}
    for name, weight in adapter.weights.items():
        for part, value in optimizer.state[weight].items():
            tensors[f"optimizer.{name}.{part}"] = value.detach().to("cpu", copy=True)
    metadata = {
        "format": FORMAT,
        "step": str(place.step),
        "fingerprint": place.fingerprint,
        "scaler": json.dumps(place.scaler),
    }
    return files.write_whole(path, files.sealed(tensors, metadata))


def restore(path: Path, fingerprint: str, adapter: Adapter, optimizer: torch.optim.Optimizer, kind: Optimizer) -> Place:
    """Put the state into adapter and optimizer, and say where the run stands.

    Nothing is changed when it is refused: BadCheckpoint says why.
    """
    tensors, metadata = _read(path)
    if metadata.get("fingerprint") != fingerprint:
        raise BadCheckpoint(f"{path.name} belongs to another run: recipe, pictures, captions or base differ")
    try:
        scaler = json.loads(metadata["scaler"])
        place = Place(step=int(metadata["step"]), fingerprint=fingerprint, scaler=scaler)
    except (KeyError, ValueError) as error:
        raise BadCheckpoint(f"{path.name} does not say where it stands: {error}") from error
    _compare(path, tensors, _expected(adapter, kind))
    adapter.take({name: tensors[f"adapter.{name}"] for name in adapter.weights})
    state = {
        number: {part: tensors[f"optimizer.{name}.{part}"] for part in _state_shapes(kind, weight.shape)}
        for number, (name, weight) in enumerate(adapter.weights.items())
    }
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    return place


def _read(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    try:
        tensors, metadata = files.unsealed(path)
    except (ValueError, OSError) as error:
        raise BadCheckpoint(f"the checkpoint cannot be read: {error}") from error
    if metadata.get("format") != FORMAT:
        raise BadCheckpoint(f"{path.name} is no {FORMAT} but {metadata.get('format', 'something else')}")
    return tensors, metadata


def _expected(adapter: Adapter, kind: Optimizer) -> dict[str, tuple[int, ...]]:
    shapes = {f"adapter.{name}": tuple(weight.shape) for name, weight in adapter.weights.items()}
    for name, weight in adapter.weights.items():
        shapes |= {f"optimizer.{name}.{part}": shape for part, shape in _state_shapes(kind, weight.shape).items()}
    return shapes


def _state_shapes(kind: Optimizer, shape: Sequence[int]) -> dict[str, tuple[int, ...]]:
    """What the optimizer keeps for a matrix or convolution of this shape; Adafactor factors the last two sides."""
    *others, rows, columns = shape
    match kind:
        case AdamW():
            return {"step": (), "exp_avg": tuple(shape), "exp_avg_sq": tuple(shape)}
        case Adafactor():
            return {"step": (), "row_var": (*others, rows, 1), "col_var": (*others, 1, columns)}


def _compare(path: Path, tensors: Mapping[str, torch.Tensor], expected: Mapping[str, tuple[int, ...]]) -> None:
    if odd := sorted(tensors.keys() ^ expected.keys()):
        raise BadCheckpoint(
            f"{path.name} and the adapter do not have the same weights: {odd[0]} and {len(odd) - 1} more"
        )
    for name, tensor in tensors.items():
        if tuple(tensor.shape) != expected[name] or tensor.dtype != torch.float32:
            raise BadCheckpoint(
                f"{path.name}: {name} is {list(tensor.shape)} {tensor.dtype}, not {list(expected[name])}"
            )
        if not bool(tensor.isfinite().all()):
            raise BadCheckpoint(f"{path.name}: {name} has values that are no numbers")
