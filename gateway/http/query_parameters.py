"""Refuses query parameters that a route does not have, and those given twice: nothing is ignored without a word."""

from collections import Counter
from collections.abc import Set
from dataclasses import dataclass
from typing import Any

import msgspec
from litestar import Litestar, Request
from litestar.routes import HTTPRoute

from contracts.all_errors import pointer_to
from contracts.errors import FieldError, Invalid

_OPT = "query_parameters"
"""The key of a handler's `opt` with the names of its query parameters, those of its dependencies among them."""
_OF_EVERY_READ = frozenset({"min_seq"})
"""Clients send it with each read after a write; what does not come from the log is as new as any sequence."""
_CHECKED = "/api/"
"""Elsewhere are the page and the documentation, to whose addresses others may add something (`/?from=mail`)."""


@dataclass(frozen=True)
class Parameters:
    """The query parameters of a route; `lists`: those that may be given several times."""

    names: Set[str]
    lists: Set[str]


def record_parameters(app: Litestar) -> None:
    """Note with each handler which query parameters it has, and which of them are lists."""
    for route in app.routes:
        if isinstance(route, HTTPRoute):
            for method, (handler, parameters) in route.route_handler_map.items():
                names = {one.field_alias for one in parameters.expected_query_params}
                names |= _OF_EVERY_READ if method in {"GET", "HEAD"} else set()
                handler.opt[_OPT] = Parameters(names, frozenset(parameters.sequence_query_parameter_names))


def check_parameters(request: Request[Any, Any, Any]) -> None:
    """Invalid: a query parameter is unknown, or is given more than once and is no list."""
    if not request.url.path.startswith(_CHECKED):
        return
    known: Parameters = request.route_handler.opt[_OPT]
    given = Counter(name for name, _ in request.query_params.multi_items())
    unknown = {name: _unknown(name, known.names) for name in given if name not in known.names}
    repeated = {name: _repeated(name, n) for name, n in given.items() if n > 1 and name not in known.lists}
    problems = [
        FieldError(pointer=pointer_to((name,)), message=text) for name, text in sorted((repeated | unknown).items())
    ]
    if problems:
        raise Invalid("; ".join(one.message for one in problems), errors=msgspec.to_builtins(problems))


def _unknown(name: str, known: Set[str]) -> str:
    there_are = f"; there are {', '.join(f'`{one}`' for one in sorted(known))}" if known else ""
    return f"this route has no query parameter `{name}`{there_are}"


def _repeated(name: str, count: int) -> str:
    return f"the query parameter `{name}` is given {count} times"
