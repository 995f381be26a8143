"""Schema evolution: reading commits of older schemas. Pure.

A new field with a default needs nothing: older readers skip it, newer ones fill in the default. Any other change to the
shape of an event needs: SCHEMA incremented, an upcaster from the previous shape, a golden line of the new shape, and
`make schemas`. A type's name is never reused, and events of an unknown type stop the reader.
"""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from contracts.events.base import SCHEMA

Raw = dict[str, Any]
"""JSON as written, before it is converted to a type."""
Upcasters = Mapping[tuple[str, int], Callable[[Raw], Raw]]

UPCASTERS: Upcasters = {}
"""(type, n) → a function that converts an event of this type from schema n to schema n + 1."""


def upcast(event: Raw, written: int, upcasters: Upcasters = UPCASTERS, schema: int = SCHEMA) -> Raw:
    """Converts an event from schema `written` to the current shape."""
    for version in range(written, schema):
        upcaster = upcasters.get((event["type"], version))
        event = event if upcaster is None else upcaster(event)
    return event


def upcast_commit(body: bytes, upcasters: Upcasters, schema: int) -> bytes:
    """The body of a commit written with another schema, with its events converted to `schema`."""
    commit = msgspec.json.decode(body)
    written = commit.get("schema", 1)
    if written > schema:
        raise msgspec.ValidationError(
            f"it was written with schema {written}, but this version of Loratory knows up to {schema}; upgrade Loratory"
        )
    try:
        events = [upcast(event, written, upcasters, schema) for event in commit["events"]]
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        message = f"its events of schema {written} cannot be upcast: {error!r}"
        raise msgspec.ValidationError(message) from error
    return msgspec.json.encode(commit | {"events": events})
