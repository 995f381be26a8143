"""Schema evolution: reading commits of older schemas. Pure.

A new field with a default needs nothing: older readers skip it, newer ones fill in the default. Any other change to the
shape of an event needs: SCHEMA incremented, an upcaster from the previous shape, a golden line of the new shape, and
`make schemas`. A type's name is never reused, and events of an unknown type stop the reader.

A recipe in an event has a version and upcasters of its own, because recipes change more often than anything else.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from contracts.events.base import SCHEMA
from contracts.recipe import RECIPE_VERSION

Raw = dict[str, Any]
"""JSON as written, before it is converted to a type."""
Upcasters = Mapping[tuple[str, int], Callable[[Raw], Raw]]

UPCASTERS: Upcasters = {}
"""(type, n) → a function that converts an event of this type from schema n to schema n + 1."""


RecipeUpcasters = Mapping[int, Callable[[Raw], Raw]]
_CURRENT_RECIPE = re.compile(rb'"recipe":\s*\{\s*"version":\s*%d[,}]' % RECIPE_VERSION)


def _name_builtin_base(recipe: Raw) -> Raw:
    """A builtin base without a name was the one with random weights."""
    base = recipe["base"]
    return recipe | {"base": {"name": "tiny-random", **base} if base["type"] == "builtin" else base}


RECIPE_UPCASTERS: RecipeUpcasters = {1: _name_builtin_base}
"""n → a function that converts a recipe of version n to n + 1. Version 1 has no field `version`."""


def upcast(event: Raw, written: int, upcasters: Upcasters = UPCASTERS, schema: int = SCHEMA) -> Raw:
    """Converts an event from schema `written` to the current shape, and its recipe from the version that it names."""
    for version in range(written, schema):
        upcaster = upcasters.get((event["type"], version))
        event = event if upcaster is None else upcaster(event)
    return event | {"recipe": upcast_recipe(event["recipe"])} if "recipe" in event else event


def upcast_recipe(recipe: Raw, upcasters: RecipeUpcasters = RECIPE_UPCASTERS, current: int = RECIPE_VERSION) -> Raw:
    """Converts a recipe to the current version. ValidationError: it is of a newer one."""
    written = recipe.get("version", 1)
    if written > current:
        raise msgspec.ValidationError(
            f"its recipe was written with version {written}, but this version of Loratory knows up to {current}; "
            "upgrade Loratory"
        )
    for version in range(written, current):
        recipe = upcasters[version](recipe)
    return recipe | {"version": current}


def has_other_recipe(body: bytes) -> bool:
    """Whether a commit has a recipe that may be of another version. Those written now begin with their version."""
    return b'"recipe":' in body and len(_CURRENT_RECIPE.findall(body)) < body.count(b'"recipe":')


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
    except msgspec.ValidationError:  # a kind of ValueError that says what is wrong
        raise
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        message = f"its events of schema {written} cannot be upcast: {error!r}"
        raise msgspec.ValidationError(message) from error
    return msgspec.json.encode(commit | {"events": events})
