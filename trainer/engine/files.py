"""Files that are whole or not there, and tensors in them as safetensors whose bytes depend on their content alone."""

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError

_ALIGNMENT = 8
"""Headers are padded with spaces so that the data begins at a multiple of this, as the format asks."""

_SEAL = "sha256"


def write_whole(path: Path, content: bytes) -> Path:
    """Write temp, fsync, rename, fsync the folder: after a crash the old file is there or the new one, whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=".writing-", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        Path(name).chmod(0o644)  # mkstemp's own are for one user only; these are handed on to other processes.
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    if os.name == "posix":  # Windows has no handles of folders; NTFS journals the rename itself.
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    return path


def packed(tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> bytes:
    """A safetensors file. The library writes metadata in random order; here the header is sorted."""
    header, data = _serialised(tensors)
    return _joined(header, metadata, data)


def sealed(tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> bytes:
    """A safetensors file that carries the sha256 of its data, for those we read again ourselves."""
    header, data = _serialised(tensors)
    return _joined(header, {**metadata, _SEAL: hashlib.sha256(data).hexdigest()}, data)


def _serialised(tensors: Mapping[str, torch.Tensor]) -> tuple[dict[str, Any], bytes]:
    raw = safetensors.torch.save({name: tensor.contiguous() for name, tensor in tensors.items()})
    data = data_of(raw)
    return json.loads(raw[8 : len(raw) - len(data)]), data


def _joined(header: Mapping[str, Any], metadata: Mapping[str, str], data: bytes) -> bytes:
    whole = {**header, "__metadata__": dict(metadata)}
    text = json.dumps(whole, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    return len(text).to_bytes(8, "little") + text + data


def data_of(file: bytes) -> bytes:
    """What follows the header of a safetensors file: the tensors."""
    return file[8 + int.from_bytes(file[:8], "little") :]


def data_digest(file: bytes) -> str:
    return hashlib.sha256(data_of(file)).hexdigest()


def unsealed(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Tensors (on the CPU, in memory of their own) and metadata; ValueError when the file is torn or damaged."""
    content = path.read_bytes()
    try:
        loaded = safetensors.torch.load(content)
        metadata = json.loads(content[8 : len(content) - len(data_of(content))]).get("__metadata__", {})
    except SafetensorError as error:
        raise ValueError(f"{path.name} is no whole safetensors file: {error}") from error
    if metadata.get(_SEAL) != data_digest(content):
        raise ValueError(f"{path.name} is damaged: its data is not what was written")
    # Clones, because where in the file a tensor lay would otherwise decide which kernels run, and so the last bit.
    return {name: tensor.clone() for name, tensor in loaded.items()}, metadata
