"""Schema evolution: reading commits of older schemas, and which changes of an event need a new schema. Pure.

A new field with a default needs nothing: older readers skip it, newer ones fill in the default. Any other change to the
shape of an event needs: SCHEMA incremented, an upcaster from the previous shape, a golden line of the new shape, and
`make schemas`. A type's name is never reused, and events of an unknown type stop the reader.
"""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from contracts.events.base import SCHEMA
from contracts.events.commits import Commit

Raw = dict[str, Any]
"""JSON as written, before it is converted to a type."""
Upcasters = Mapping[tuple[str, int], Callable[[Raw], Raw]]

UPCASTERS: Upcasters = {}
"""(type, n) → a function that converts an event of this type from schema n to schema n + 1."""

_commits = msgspec.json.Decoder(Commit)


class _SchemaOnly(msgspec.Struct):
    schema: int = 1


_schema_decoder = msgspec.json.Decoder(_SchemaOnly)


def decode_commit(body: bytes, upcasters: Upcasters = UPCASTERS, schema: int = SCHEMA) -> Commit:
    """Decodes a message of the log, with its events upcast to `schema`; msgspec.DecodeError if it is no commit.

    A commit of the current schema is decoded once. `commit.schema` remains the schema it was written with.
    """
    try:
        commit = _commits.decode(body)
    except msgspec.ValidationError:
        written = _schema_decoder.decode(body).schema
        if written == schema:
            raise
    else:
        written = commit.schema
        if written == schema:
            return commit
    if written > schema:
        raise msgspec.ValidationError(
            f"it was written with schema {written}, but this version of Loratory knows up to {schema}; upgrade Loratory"
        )
    try:
        raw = _upcast_commit(msgspec.json.decode(body), written, upcasters, schema)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        message = f"its events of schema {written} cannot be upcast: {error!r}"
        raise msgspec.ValidationError(message) from error
    return _commits.decode(msgspec.json.encode(raw))


def schema_version_of(type_name: str, upcasters: Upcasters = UPCASTERS) -> int:
    """The schema version since which events of this type have their current shape."""
    return max((before + 1 for name, before in upcasters if name == type_name), default=1)


def upcast(event: Raw, written: int, upcasters: Upcasters = UPCASTERS, schema: int = SCHEMA) -> Raw:
    """Converts an event from schema `written` to the current shape."""
    for version in range(written, schema):
        upcaster = upcasters.get((event["type"], version))
        event = event if upcaster is None else upcaster(event)
    return event


def _upcast_commit(commit: Raw, written: int, upcasters: Upcasters, schema: int) -> Raw:
    return commit | {"events": [upcast(event, written, upcasters, schema) for event in commit["events"]]}


# --- compatibility of changes


def breaking_changes(before: Raw, now: Raw, path: str = "") -> list[str]:
    """The places where events written with JSON Schema `before` cannot be read, or change meaning, with schema `now`.

    Both schemas must be free of references. Compatible: new fields with a default, new members of unions and enums,
    changed titles and descriptions.
    """
    if "properties" in before and "properties" in now:
        return _fields(before, now, path)
    if "anyOf" in before:
        options = now.get("anyOf", [now])
        return [
            fault
            for old in before["anyOf"]
            for fault in min((breaking_changes(old, new, path) for new in options), key=len)
        ]
    if "anyOf" in now:
        return min((breaking_changes(before, new, path) for new in now["anyOf"]), key=len)
    if "enum" in before or "enum" in now:
        gone = [value for value in before.get("enum", [None]) if value not in now.get("enum", [])]
        return [f"{path}: {gone[0]!r} is no longer allowed"] if gone else []
    faults = [
        f"{path}: {key} was {before.get(key)!r} and is {now.get(key)!r}"
        for key in sorted((before.keys() | now.keys()) - _ANNOTATIONS)
        if before.get(key) != now.get(key)
    ]
    for key in _NESTED & before.keys() & now.keys():
        if isinstance(before[key], dict) and isinstance(now[key], dict):
            faults += breaking_changes(before[key], now[key], f"{path}[]")
    return faults


_NESTED = frozenset(("items", "additionalProperties"))
_ANNOTATIONS = frozenset(("title", "description", "default", "discriminator", "x-version")) | _NESTED


def _fields(before: Raw, now: Raw, path: str) -> list[str]:
    faults: list[str] = []
    for name, old in before["properties"].items():
        new, field = now["properties"].get(name), f"{path}.{name}"
        if new is None:
            faults.append(f"{field} was removed")
        elif name not in before["required"] and name in now["required"]:
            faults.append(f"{field} became required")
        elif old.get("default") != new.get("default") or (name in before["required"]) != (name in now["required"]):
            # A field at its default value is omitted, so the default is part of the format.
            faults.append(f"{field}: its default was {old.get('default')!r} and is {new.get('default')!r}")
        else:
            faults += breaking_changes(old, new, field)
    added = now["properties"].keys() - before["properties"].keys()
    return faults + [f"{path}.{name} is new and has no default" for name in sorted(added & set(now["required"]))]
