"""Which other files an ONNX file asks for, read before any runtime opens it.

A model may name files for its weights, by any path: `../../secrets` too. The walk knows just enough of protobuf and of
onnx.proto (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto) to find those names; it skips the weights.
"""

import mmap
from collections.abc import Iterator
from pathlib import Path

from contracts.errors import SetupError

MAX_BYTES = 16 << 30
"""All files of one model together."""

_MAX_FIELDS = 20_000_000
_PARTS: dict[str, dict[int, str]] = {
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
    """The model file and, by name, those its weights lie in. SetupError: one is outside the folder, or missing."""
    folder = model.parent.resolve()
    others = {_inside(folder, name) for name in _external_names(model)}
    files = (model, *sorted(others))
    if sum(file.stat().st_size for file in files) > MAX_BYTES:
        raise SetupError(f"the files of {model.name} are together larger than {MAX_BYTES >> 30} GiB")
    return files


def _inside(folder: Path, name: str) -> Path:
    path = (folder / name).resolve() if "\0" not in name else folder
    if path == folder or not path.is_relative_to(folder):
        raise SetupError(f"the model asks for a file outside its folder, {name!r}; that is refused")
    if not path.is_file():
        raise SetupError(f"the model asks for a file that is not there: {name!r}")
    return path


def _external_names(model: Path) -> set[str]:
    try:
        with model.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return set(_locations(data))
    except (ValueError, IndexError) as error:  # an empty file, a field past the end, a name that is no text
        raise SetupError(f"{model.name} is not an ONNX model") from error


def _locations(data: mmap.mmap) -> Iterator[str]:
    spans: list[tuple[str, Span]] = [("model", (0, len(data)))]
    budget = _MAX_FIELDS
    while spans:
        part, span = spans.pop()
        texts: dict[str, str] = {}
        for number, (start, end) in _fields(data, span):
            budget -= 1
            if budget < 0:
                raise ValueError("too many fields")
            child = _PARTS[part].get(number)
            if part == "entry" and child is not None:
                texts[child] = data[start:end].decode()
            elif child is not None:
                spans.append((child, (start, end)))
        if texts.get("key") == "location":
            yield texts.get("value", "")


def _fields(data: mmap.mmap, span: Span) -> Iterator[tuple[int, Span]]:
    """Each field of a message that holds bytes: its number, and where the bytes are."""
    at, end = span
    while at < end:
        key, at = _varint(data, at)
        match key & 7:
            case 0:
                _, at = _varint(data, at)
            case 1:
                at += 8
            case 5:
                at += 4
            case 2:
                length, at = _varint(data, at)
                yield key >> 3, (at, min(at + length, end))
                at += length
            case _:
                raise ValueError("a wire type that ONNX does not use")
        if at > end:
            raise ValueError("a field past the end of its message")


def _varint(data: mmap.mmap, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise ValueError("a number without an end")
