"""What a module defines: a new event, command or query is registered by being written down in its module."""

import sys
from typing import Any, TypeVar, Union

T = TypeVar("T")


def defined_in(module: str, base: type[T]) -> list[type[T]]:
    """The subclasses of `base` that a module defines, in their order."""
    found = vars(sys.modules[module]).values()
    return [one for one in found if isinstance(one, type) and issubclass(one, base) and one.__module__ == module]


def union_in(module: str, base: type) -> Any:
    """All of them as one tagged union."""
    return Union[tuple(defined_in(module, base))]  # noqa: UP007 - built at run time
