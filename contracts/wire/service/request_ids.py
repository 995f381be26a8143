"""Request ids: one id joins an HTTP response, the log lines of all services, and the commits that a request caused.

It is bound to the log context of the task; requests over the bus pass it on in a header, commits in `correlation_id`.
"""

import re
from collections.abc import Mapping
from contextlib import AbstractContextManager

from structlog.contextvars import bound_contextvars, get_contextvars

from contracts.ids import ulid

BUS_HEADER = "Loratory-Request-Id"
_TOKEN = re.compile(r"[0-9A-Za-z][0-9A-Za-z._:/+=@-]{0,127}\Z")


def accept(given: str | None) -> str:
    """The id that the client sent, if it is a token of at most 128 characters; else a new one."""
    return given if given is not None and _TOKEN.match(given) else ulid()


def bind(request_id: str) -> AbstractContextManager[None]:
    """Log lines and requests over the bus have this id meanwhile."""
    return bound_contextvars(request_id=request_id)


def bind_from_bus(headers: Mapping[str, str] | None) -> AbstractContextManager[None]:
    """The same with the id of a request that arrived over the bus."""
    return bind(accept((headers or {}).get(BUS_HEADER)))


def current() -> str:
    """The id of the request or work that this task is for; empty if it is for none."""
    return str(get_contextvars().get("request_id", ""))
