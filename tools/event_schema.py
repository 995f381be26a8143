"""The JSON Schema of all events, generated from the types, and which changes of it need a new schema version.

A new field with a default needs nothing: older readers skip it, newer ones fill in the default. Any other change to the
shape of an event needs a new SCHEMA and an upcaster (`contracts.evolution`). Pure.
"""

from typing import Any, get_args

import msgspec

from contracts.aggregates import AnyEvent
from contracts.asyncapi import as_json
from contracts.commits import Commit
from contracts.evolution import UPCASTERS, Raw, Upcasters

DIALECT = "https://json-schema.org/draft/2020-12/schema"
HERE = "#/$defs/{name}"


def events_schema() -> Raw:
    """The disk format: all events, each with the schema version since which it has this shape (`x-version`)."""
    kinds: tuple[Any, ...] = get_args(AnyEvent)
    (*events, commit), parts = msgspec.json.schema_components([*kinds, Commit], ref_template=HERE)
    for kind, reference in zip(kinds, events, strict=True):
        part = parts[reference["$ref"].rpartition("/")[2]]
        part["x-version"] = schema_version_of(str(kind.__struct_config__.tag))
    document = {
        "$schema": DIALECT,
        "title": "Events of Loratory",
        "description": "One message of the stream EVT is one commit; its events are the disk format.",
        "oneOf": [commit],
        "$defs": dict(sorted(parts.items())),
    }
    return as_json(document)


def schema_version_of(type_name: str, upcasters: Upcasters = UPCASTERS) -> int:
    """The schema version since which events of this type have their current shape."""
    return max((before + 1 for name, before in upcasters if name == type_name), default=1)


def shapes(schema: Raw) -> dict[str, Raw]:
    """The schema of each event in an `events_schema` by type name, with references resolved."""
    found = {}
    for part in schema["$defs"].values():
        if "x-version" in part:
            found[part["properties"]["type"]["enum"][0]] = _resolve(part, schema["$defs"])
    return found


def undeclared_changes(before: Raw, now: Raw) -> list[str]:
    """Incompatible changes of events between two `events_schema` documents that have no new schema version."""
    new, faults = shapes(now), []
    for name, old in shapes(before).items():
        if name not in new:
            faults.append(f"{name} was removed, but events of this type remain in existing logs")
        elif new[name]["x-version"] == old["x-version"]:
            faults += [f"{name}{fault}" for fault in breaking_changes(old, new[name])]
    return faults


def _resolve(part: Any, parts: dict[str, Raw]) -> Any:
    if isinstance(part, dict):
        if "$ref" in part:
            return _resolve(parts[part["$ref"].rpartition("/")[2]], parts)
        return {key: _resolve(value, parts) for key, value in part.items()}
    return [_resolve(value, parts) for value in part] if isinstance(part, list) else part


# --- compatibility of changes


def breaking_changes(before: Raw, now: Raw, path: str = "") -> list[str]:
    """The places where events written with JSON Schema `before` cannot be read, or change meaning, with schema `now`.

    Both schemas must be free of references. Compatible: new fields with a default, new members of unions and enums,
    changed titles and descriptions.
    """
    if _has_new_recipe_version(before, now):
        return []
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


def _has_new_recipe_version(before: Raw, now: Raw) -> bool:
    """Recipes have a version of their own: its upcasters read what was written with the old one."""
    versions = [part.get("properties", {}).get("version", {}).get("enum") for part in (before, now)]
    return before.get("title") == now.get("title") == "Recipe" and versions[0] != versions[1]


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
