"""Atomic file writes, and safetensors files whose bytes depend only on their content."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError

from contracts.wire.system.files import draft_in, move_into_place

_ALIGNMENT = 8
"""The header is padded with spaces so that the data begins at a multiple of this, as the format demands."""

_DIGEST_KEY = "sha256"
"""Metadata key of the data's digest."""


def write_atomically(path: Path, content: bytes, drafts: Path | None = None) -> Path:
    """After a crash either the old or the new file is there, complete. Engines may share a cache and its files.

    `drafts`: the folder of unfinished files, on the same file system; None: that of the file itself.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with draft_in(drafts or path.parent) as draft:
        draft.write_bytes(content)
        move_into_place(draft, path)
    return path


def serialize(tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> bytes:
    """A safetensors file with a sorted header; the library itself writes metadata in random order."""
    header, data = _serialize_tensors(tensors)
    return _join(header, metadata, data)


def serialize_with_digest(tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> bytes:
    """A safetensors file with the sha256 of its data in the metadata, for `load_verified`."""
    header, data = _serialize_tensors(tensors)
    return _join(header, {**metadata, _DIGEST_KEY: hashlib.sha256(data).hexdigest()}, data)


def _serialize_tensors(tensors: Mapping[str, torch.Tensor]) -> tuple[dict[str, Any], bytes]:
    raw = safetensors.torch.save({name: tensor.contiguous() for name, tensor in tensors.items()})
    data = tensor_data(raw)
    return json.loads(raw[8 : len(raw) - len(data)]), data


def _join(header: Mapping[str, Any], metadata: Mapping[str, str], data: bytes) -> bytes:
    full_header = {**header, "__metadata__": dict(metadata)}
    text = json.dumps(full_header, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    return len(text).to_bytes(8, "little") + text + data


def tensor_data(file: bytes) -> bytes:
    """The tensors of a safetensors file: everything after the header."""
    return file[8 + int.from_bytes(file[:8], "little") :]


def data_digest(file: bytes) -> str:
    """sha256 over the tensors of a safetensors file."""
    return hashlib.sha256(tensor_data(file)).hexdigest()


def load_verified(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Tensors (on the CPU, in their own memory) and metadata; ValueError if the file is truncated or damaged."""
    content = path.read_bytes()
    try:
        loaded = safetensors.torch.load(content)
        metadata = json.loads(content[8 : len(content) - len(tensor_data(content))]).get("__metadata__", {})
    except SafetensorError as error:
        raise ValueError(f"{path.name} is not a complete safetensors file: {error}") from error
    if metadata.get(_DIGEST_KEY) != data_digest(content):
        raise ValueError(f"{path.name} is damaged: its data does not match its digest")
    # Cloned, because otherwise a tensor's offset in the file would decide which kernels run, and so the last bit.
    return {name: tensor.clone() for name, tensor in loaded.items()}, metadata
