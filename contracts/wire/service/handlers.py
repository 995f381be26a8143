"""The table of a service: which function handles which command or query, read from the functions' own signatures."""

import inspect
from collections.abc import Awaitable, Callable
from types import ModuleType
from typing import Any, get_args

from contracts.errors import SetupError

Function = Callable[..., Awaitable[Any]]


def handlers_in(*modules: ModuleType, parameter: str) -> dict[type, Function]:
    """Message type → the public coroutine function that takes it as its last parameter, which has this name.

    A function whose parameter is a union handles all of its members. SetupError: two functions handle one type.
    """
    table: dict[type, Function] = {}
    for module in modules:
        for name, function in inspect.getmembers(module, inspect.iscoroutinefunction):
            if name.startswith("_") or [*inspect.signature(function).parameters][-1:] != [parameter]:
                continue
            if function.__module__ != module.__name__:
                continue
            accepted = inspect.get_annotations(function)[parameter]
            for message in get_args(accepted) or (accepted,):
                if message in table:
                    raise SetupError(f"{name} and {table[message].__name__} both handle {message.__name__}")
                table[message] = function
    return table
