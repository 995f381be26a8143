"""Files that are whole or not there, and tensors in them as safetensors whose bytes depend on their content alone."""

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open

_ALIGNMENT = 8
"""Headers are padded with spaces so that the data begins at a multiple of this, as the format asks."""


def write_whole(path: Path, content: bytes) -> Path:
    """Write temp, fsync, rename, fsync the folder: after a crash the old file is there or the new one, whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=".writing-", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
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
    raw = safetensors.torch.save({name: tensor.contiguous() for name, tensor in tensors.items()}, dict(metadata))
    end = 8 + int.from_bytes(raw[:8], "little")
    header = json.dumps(json.loads(raw[8:end]), sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    header += b" " * (-len(header) % _ALIGNMENT)
    return len(header).to_bytes(8, "little") + header + raw[end:]


def data_of(file: bytes) -> bytes:
    """What follows the header of a safetensors file: the tensors."""
    return file[8 + int.from_bytes(file[:8], "little") :]


def data_digest(file: bytes) -> str:
    return hashlib.sha256(data_of(file)).hexdigest()


def unpacked(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Tensors (on the CPU, in memory of their own) and metadata; ValueError when the file is torn or no safetensors."""
    try:
        with safe_open(path, framework="pt") as opened:
            # Clones, because the alignment of mapped memory would otherwise decide which kernels run, and the last bit.
            tensors = {name: opened.get_tensor(name).clone() for name in opened.keys()}  # noqa: SIM118 - no mapping
            return tensors, opened.metadata() or {}
    except SafetensorError as error:
        raise ValueError(f"{path.name} is no whole safetensors file: {error}") from error
