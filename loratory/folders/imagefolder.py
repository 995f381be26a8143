"""Hugging Face's imagefolder: `metadata.jsonl` or `metadata.csv` beside the pictures, read line by line. Pure.

Datasets, "Create an image dataset": `file_name`, relative to the file, and free columns, of which `text`, `caption`
and `tags` are read.
"""

import csv
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import msgspec

from loratory.folders.texts import NO_TEXTS, Texts, from_fields

FILE_NAMES = frozenset({"metadata.jsonl", "metadata.csv"})
MAX_LINE_BYTES = 1 << 20


@dataclass(frozen=True)
class Row:
    """One line: the texts of an image, or a sentence about why it is not read."""

    line: int
    file_name: str = ""
    texts: Texts = NO_TEXTS
    problem: str | None = None


class _Columns(msgspec.Struct, frozen=True):
    file_name: str
    text: object = None
    caption: object = None
    tags: object = None


def read_jsonl(lines: Iterable[tuple[int, bytes | None]]) -> Iterator[Row]:
    decode = msgspec.json.Decoder(_Columns).decode
    for number, line in lines:
        if line is None:
            yield Row(number, problem=f"it is longer than {MAX_LINE_BYTES >> 20} MiB")
        elif line.strip():
            try:
                row = decode(line.removeprefix(b"\xef\xbb\xbf"))
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                yield Row(number, problem=f"it is no JSON object with a file_name ({error})")
            else:
                yield Row(number, row.file_name, from_fields(row.text, row.caption, row.tags))


def read_csv(lines: Iterable[tuple[int, bytes | None]], encoding: str | None = None) -> Iterator[Row]:
    """A record can have several lines. What cannot be read ends it, since it is not clear where the next one begins."""
    reader = csv.DictReader(_decoded(lines, encoding or "utf-8"), strict=True)
    try:
        if "file_name" not in (reader.fieldnames or ()):
            yield Row(1, problem="it has no column file_name")
            return
        for row in reader:
            texts = from_fields(row.get("text"), row.get("caption"), row.get("tags"))
            yield Row(reader.line_num, row["file_name"] or "", texts)
    except (csv.Error, UnicodeDecodeError) as error:
        yield Row(reader.line_num + 1, problem=f"from here on it cannot be read ({error})")


def _decoded(lines: Iterable[tuple[int, bytes | None]], encoding: str) -> Iterator[str]:
    for number, line in lines:
        if line is None:
            raise csv.Error(f"a line is longer than {MAX_LINE_BYTES >> 20} MiB")
        yield (line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line).decode(encoding) + "\n"
