"""The JSON Schema of all events, generated from the types. Pure.

`make schemas` writes it to `docs/events.schema.json`; a test compares.
"""

from typing import Any, get_args

import msgspec

from contracts.events import AnyEvent, Commit
from contracts.events.evolution import Raw, breaking_changes, schema_version_of

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


def as_json(document: Raw) -> Raw:
    """The document as plain JSON values: msgspec leaves tuples in it."""
    return msgspec.json.decode(msgspec.json.encode(document), type=dict[str, Any])


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
