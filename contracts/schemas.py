"""What travels and what is kept, as documents made from the types: a JSON Schema of every fact. Pure.

`make schemas` writes them into `docs/`; a test compares.
"""

from typing import Any, get_args

import msgspec

from contracts.events import AnyFact, Commit
from contracts.events.evolution import Raw, broken, version_of

DIALECT = "https://json-schema.org/draft/2020-12/schema"
HERE = "#/$defs/{name}"


def facts_schema() -> Raw:
    """The disk format: `oneOf` all facts, each with the schema version since which it looks so (`x-version`)."""
    kinds: tuple[Any, ...] = get_args(AnyFact)
    (*facts, commit), parts = msgspec.json.schema_components([*kinds, Commit], ref_template=HERE)
    for kind, reference in zip(kinds, facts, strict=True):
        part = parts[reference["$ref"].rpartition("/")[2]]
        part["x-version"] = version_of(str(kind.__struct_config__.tag))
    document = {
        "$schema": DIALECT,
        "title": "Facts of Loratory",
        "description": "One message of the stream EVT is one commit; its facts are the disk format.",
        "oneOf": [commit],
        "$defs": dict(sorted(parts.items())),
    }
    return as_json(document)


def as_json(document: Raw) -> Raw:
    """As it comes back from a file: msgspec leaves tuples in it."""
    return msgspec.json.decode(msgspec.json.encode(document), type=dict[str, Any])


def shapes(schema: Raw) -> dict[str, Raw]:
    """Every fact of a `facts_schema` by its type name, whole: without references to other parts."""
    found = {}
    for part in schema["$defs"].values():
        if "x-version" in part:
            found[part["properties"]["type"]["enum"][0]] = _whole(part, schema["$defs"])
    return found


def undeclared(before: Raw, now: Raw) -> list[str]:
    """What changed between two `facts_schema` in a way that needs a new version of the fact, and has none."""
    new, faults = shapes(now), []
    for name, old in shapes(before).items():
        if name not in new:
            faults.append(f"{name} is gone; facts of it stand in logs for ever")
        elif new[name]["x-version"] == old["x-version"]:
            faults += [f"{name}{fault}" for fault in broken(old, new[name])]
    return faults


def _whole(part: Any, parts: dict[str, Raw]) -> Any:
    if isinstance(part, dict):
        if "$ref" in part:
            return _whole(parts[part["$ref"].rpartition("/")[2]], parts)
        return {key: _whole(value, parts) for key, value in part.items()}
    return [_whole(value, parts) for value in part] if isinstance(part, list) else part
