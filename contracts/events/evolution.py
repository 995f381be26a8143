"""Facts of yesterday: how a commit of an older schema is read, and which changes of a fact need a new one. Pure.

A new field with a default needs nothing: readers of before skip it, readers of now fill it in. Whatever else changes
the shape of a fact needs: SCHEMA one higher, an upcaster from the shape before, a golden line of the new shape, and
`make schemas`. A type's name is never used for something else, and facts of a type nobody knows stop the reader.
"""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from contracts.events.commits import Commit
from contracts.events.facts import SCHEMA

Raw = dict[str, Any]
"""JSON as it was written, before it becomes a type."""
Upcasters = Mapping[tuple[str, int], Callable[[Raw], Raw]]

UPCASTERS: Upcasters = {}
"""(type, n): makes a fact of this type, written in a commit of schema n, one of schema n + 1."""

_commits = msgspec.json.Decoder(Commit)


class _Written(msgspec.Struct):
    schema: int = 1


_written = msgspec.json.Decoder(_Written)


def read(body: bytes, upcasters: Upcasters = UPCASTERS, schema: int = SCHEMA) -> Commit:
    """A message of the log as a commit, its facts as they look in `schema`; msgspec.DecodeError where it is none.

    What was written with today's schema costs one decoding. `commit.schema` stays what was written.
    """
    try:
        commit = _commits.decode(body)
    except msgspec.ValidationError:
        written = _written.decode(body).schema
        if written == schema:
            raise
    else:
        written = commit.schema
        if written == schema:
            return commit
    if written > schema:
        raise msgspec.ValidationError(
            f"it was written with schema {written}, and this version of Loratory knows {schema} only; upgrade it"
        )
    try:
        raw = _lifted(msgspec.json.decode(body), written, upcasters, schema)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        said = f"its facts, of schema {written}, cannot be brought up to date: {error!r}"
        raise msgspec.ValidationError(said) from error
    return _commits.decode(msgspec.json.encode(raw))


def version_of(type_name: str, upcasters: Upcasters = UPCASTERS) -> int:
    """The schema since which facts of this type look as they do now."""
    return max((before + 1 for name, before in upcasters if name == type_name), default=1)


def upcast(fact: Raw, written: int, upcasters: Upcasters = UPCASTERS, schema: int = SCHEMA) -> Raw:
    """A fact from a commit of schema `written`, as it would be written now."""
    for version in range(written, schema):
        lift = upcasters.get((fact["type"], version))
        fact = fact if lift is None else lift(fact)
    return fact


def _lifted(commit: Raw, written: int, upcasters: Upcasters, schema: int) -> Raw:
    return commit | {"facts": [upcast(fact, written, upcasters, schema) for fact in commit["facts"]]}


# --- what may change


def broken(before: Raw, now: Raw, path: str = "") -> list[str]:
    """Where facts written with the JSON Schema `before` would not be read, or would mean something else, with `now`.

    Both without references. Harmless: new fields with a default, new members of unions and enumerations, other words.
    """
    if "properties" in before and "properties" in now:
        return _fields(before, now, path)
    if "anyOf" in before:
        options = now.get("anyOf", [now])
        return [fault for old in before["anyOf"] for fault in min((broken(old, new, path) for new in options), key=len)]
    if "anyOf" in now:
        return min((broken(before, new, path) for new in now["anyOf"]), key=len)
    if "enum" in before or "enum" in now:
        gone = [value for value in before.get("enum", [None]) if value not in now.get("enum", [])]
        return [f"{path}: {gone[0]!r} is not allowed any more"] if gone else []
    faults = [
        f"{path}: {key} was {before.get(key)!r} and is {now.get(key)!r}"
        for key in sorted((before.keys() | now.keys()) - _WORDS)
        if before.get(key) != now.get(key)
    ]
    for key in _INSIDE & before.keys() & now.keys():
        if isinstance(before[key], dict) and isinstance(now[key], dict):
            faults += broken(before[key], now[key], f"{path}[]")
    return faults


_INSIDE = frozenset(("items", "additionalProperties"))
_WORDS = frozenset(("title", "description", "default", "discriminator", "x-version")) | _INSIDE


def _fields(before: Raw, now: Raw, path: str) -> list[str]:
    faults: list[str] = []
    for name, old in before["properties"].items():
        new, place = now["properties"].get(name), f"{path}.{name}"
        if new is None:
            faults.append(f"{place} is gone")
        elif name not in before["required"] and name in now["required"]:
            faults.append(f"{place} must be given now")
        elif old.get("default") != new.get("default") or (name in before["required"]) != (name in now["required"]):
            # A field at its default is not written, so its default is part of what was written.
            faults.append(f"{place}: its default was {old.get('default')!r} and is {new.get('default')!r}")
        else:
            faults += broken(old, new, place)
    added = now["properties"].keys() - before["properties"].keys()
    return faults + [f"{path}.{name} is new and has no default" for name in sorted(added & set(now["required"]))]
