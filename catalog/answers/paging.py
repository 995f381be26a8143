"""Keyset pages: opaque cursors, and the cut where a page would not fit in one message."""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import msgspec

from contracts.errors import Invalid
from contracts.queries import Page

Key = TypeVar("Key", bound=tuple[int | str, ...])
R = TypeVar("R")
V = TypeVar("V")

PAGE_BYTES = 700_000
"""A page ends before it gets larger than this; `next` goes on from there. A message of the bus holds 1 MB."""


def cursor_of(key: tuple[int | str, ...]) -> str:
    return urlsafe_b64encode(msgspec.json.encode(key)).decode().rstrip("=")


def key_of(cursor: str | None, start: Key) -> Key:
    """The key in a cursor, of the same shape as `start`, which is the key before the first page. Invalid for others."""
    if cursor is None:
        return start
    try:
        content = urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        shape: Any = tuple.__class_getitem__(tuple(type(part) for part in start))
        key: Key = msgspec.json.decode(content, type=shape)
        return key
    except (Error, ValueError, msgspec.DecodeError) as error:
        raise Invalid("the cursor is not one of this list") from error


def paged(
    rows: Sequence[R], view: Callable[[R], V], key: Callable[[R], tuple[int | str, ...]], *, total: int, limit: int
) -> Page[V]:
    """The page of these rows. Give one row more than `limit`: that it is there means that the list goes on."""
    items: list[V] = []
    size = 0
    for row in rows[:limit]:
        item = view(row)
        size += len(msgspec.json.encode(item))
        if items and size > PAGE_BYTES:
            break
        items.append(item)
    more = len(items) < len(rows)
    return Page(items=tuple(items), total=total, next=cursor_of(key(rows[len(items) - 1])) if more else None)
