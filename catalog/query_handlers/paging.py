"""Keyset pagination: opaque cursors, and pages cut to fit in one message."""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import msgspec

from contracts.errors import Invalid
from contracts.queries.base import EncodedPage, Page, QueryPage

Key = TypeVar("Key", bound=tuple[int | float | str, ...])
R = TypeVar("R")
V = TypeVar("V")

MAX_PAGE_BYTES = 700_000
"""Maximum size of a page, which continues at `next`. A message of the bus holds 1 MB."""


def encode_cursor(key: tuple[int | float | str, ...]) -> str:
    return urlsafe_b64encode(msgspec.json.encode(key)).decode().rstrip("=")


def decode_cursor(cursor: str | None, start: Key) -> Key:
    """The sort key in a cursor, of the same shape as `start`, the key before the first page. Invalid for any other."""
    if cursor is None:
        return start
    try:
        content = urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        shape: Any = tuple.__class_getitem__(tuple(type(part) for part in start))
        key: Key = msgspec.json.decode(content, type=shape)
        return key
    except (Error, ValueError, msgspec.DecodeError) as error:
        raise Invalid("the cursor is not one of this list") from error


def build_page(
    query: QueryPage[Any], rows: Sequence[R], view: Callable[[R], V], key: Callable[[R], Key], total: int
) -> Page[V]:
    """The page of these rows. Pass one row more than the limit, if there is one: it shows that the list continues."""
    items: list[V] = []
    size = 0
    for row in rows[: query.limit]:
        item = view(row)
        size += len(item if isinstance(item, msgspec.Raw) else msgspec.json.encode(item))
        if items and size > MAX_PAGE_BYTES:
            break
        items.append(item)
    more = len(items) < len(rows)
    return Page(items=tuple(items), total=total, next=encode_cursor(key(rows[len(items) - 1])) if more else None)


def build_encoded_page(
    query: QueryPage[Any], rows: Sequence[R], view: Callable[[R], object], key: Callable[[R], Key], total: int
) -> EncodedPage:
    """The same with items that are encoded once, where they are large."""
    return build_page(query, rows, lambda row: msgspec.Raw(msgspec.json.encode(view(row))), key, total)
