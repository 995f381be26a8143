"""Finds the external weight files of an ONNX model, before any runtime opens it.

A model may name weight files by any path, `../../secrets` included. The parser knows just enough of protobuf and of
onnx.proto (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto) to find those names; it skips the weights.
"""

import mmap
from collections.abc import Iterator
from pathlib import Path

from contracts.errors import SetupError

MAX_BYTES = 16 << 30
"""Limit on the total size of one model's files."""

_MAX_FIELDS = 20_000_000
_CHILD_MESSAGES: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "entry"},
    "entry": {1: "key", 2: "value"},
}

Span = tuple[int, int]


def weight_files(model: Path) -> tuple[Path, ...]:
    """The model file and its external weight files, sorted by name.

    SetupError: a file is outside the folder or missing, or together they are too large.
    """
    folder = model.parent.resolve()
    others = {_resolve_inside(folder, name) for name in _external_names(model)}
    files = (model, *sorted(others))
    if sum(file.stat().st_size for file in files) > MAX_BYTES:
        raise SetupError(f"the files of {model.name} are larger than {MAX_BYTES >> 30} GiB in total")
    return files


def _resolve_inside(folder: Path, name: str) -> Path:
    path = (folder / name).resolve() if "\0" not in name else folder
    if path == folder or not path.is_relative_to(folder):
        raise SetupError(f"the model names a file outside its folder, which is not allowed: {name!r}")
    if not path.is_file():
        raise SetupError(f"the model names a file that does not exist: {name!r}")
    return path


def _external_names(model: Path) -> set[str]:
    try:
        with model.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return set(_find_locations(data))
    except (ValueError, IndexError) as error:  # an empty file, a field past the end, a name that is not UTF-8
        raise SetupError(f"{model.name} is not an ONNX model") from error


def _find_locations(data: mmap.mmap) -> Iterator[str]:
    spans: list[tuple[str, Span]] = [("model", (0, len(data)))]
    budget = _MAX_FIELDS
    while spans:
        message, span = spans.pop()
        texts: dict[str, str] = {}
        for number, (start, end) in _iter_fields(data, span):
            budget -= 1
            if budget < 0:
                raise ValueError("too many fields")
            child_message = _CHILD_MESSAGES[message].get(number)
            if message == "entry" and child_message is not None:
                texts[child_message] = data[start:end].decode()
            elif child_message is not None:
                spans.append((child_message, (start, end)))
        if texts.get("key") == "location":
            yield texts.get("value", "")


def _iter_fields(data: mmap.mmap, span: Span) -> Iterator[tuple[int, Span]]:
    """Yield each length-delimited field of a message: its number and the span of its bytes."""
    offset, end = span
    while offset < end:
        key, offset = _read_varint(data, offset)
        match key & 7:
            case 0:
                _, offset = _read_varint(data, offset)
            case 1:
                offset += 8
            case 5:
                offset += 4
            case 2:
                length, offset = _read_varint(data, offset)
                yield key >> 3, (offset, min(offset + length, end))
                offset += length
            case _:
                raise ValueError("wire type not used by ONNX")
        if offset > end:
            raise ValueError("field exceeds its message")


def _read_varint(data: mmap.mmap, offset: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = data[offset]
        offset += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, offset
    raise ValueError("varint longer than ten bytes")
