"""Builds an object from the fields of others. Pure."""

from functools import cache
from typing import Any, TypeVar

import msgspec

T = TypeVar("T", bound=msgspec.Struct)


def compose(struct: type[T], *sources: object, **fields: Any) -> T:
    """An object with these fields; every other field is the attribute of that name of the first source that has it.

    Fields with a default have to come from somewhere too, so that none is forgotten. TypeError: there are some left.
    """
    for source, names in zip(sources, _plan(struct, tuple(map(type, sources)), tuple(fields)), strict=True):
        for name in names:
            fields[name] = getattr(source, name)
    return struct(**fields)


@cache
def _plan(struct: type[T], source_types: tuple[type, ...], given: tuple[str, ...]) -> list[list[str]]:
    """The names of the fields that each source has to give."""
    plan, left = [], [name for name in struct.__struct_fields__ if name not in given]
    for source_type in source_types:
        attributes = {*dir(source_type), *getattr(source_type, "__dataclass_fields__", ())}
        plan.append([name for name in left if name in attributes])
        left = [name for name in left if name not in attributes]
    if left:
        raise TypeError(f"nothing gives {struct.__name__} its {', '.join(left)}")
    return plan
