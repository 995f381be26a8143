"""Responses with their headers: ETag, Loratory-Seq, Location, Link."""

from typing import Any, TypeVar
from urllib.parse import quote, urlencode

import msgspec
from litestar import Request, Response

from contracts.commands import R
from contracts.queries import HistoryPage, Page

T = TypeVar("T")

API_ROOT = "/api/v1"
SEQUENCE_HEADER = "Loratory-Seq"


def with_etag(view: T, etag: int) -> Response[T]:
    """One resource; its ETag is the sequence of the last event that changed it."""
    return Response(view, headers={"ETag": f'"{etag}"', "Cache-Control": "no-cache"})


def page(request: Request[Any, Any, Any], found: Page[T]) -> Response[Page[T]]:
    """One page of a list, with a link to the next one (RFC 8288)."""
    return Response(found, headers={"Cache-Control": "no-cache", **next_link(request, found.next, "cursor")})


def history_page(request: Request[Any, Any, Any], found: HistoryPage) -> Response[HistoryPage]:
    """One page of a history, with a link to the next one."""
    return Response(found, headers={"Cache-Control": "no-cache", **next_link(request, found.next, "cursor")})


def next_link(request: Request[Any, Any, Any], next_cursor: str | None, parameter: str) -> dict[str, str]:
    """The Link header to the same address with another cursor; none on the last page."""
    if next_cursor is None:
        return {}
    others = [(key, value) for key, value in request.query_params.multi_items() if key != parameter]
    return {"Link": f'<{request.url.path}?{urlencode([*others, (parameter, next_cursor)])}>; rel="next"'}


def ok(result: R, status: int = 200, location: str | None = None) -> Response[R]:
    """An executed command, with the sequence that reads can pass as `min_seq`."""
    headers = {SEQUENCE_HEADER: str(result.sequence)}
    if location is not None:
        headers["Location"] = API_ROOT + location
    return Response(result, status_code=status, headers=headers)


def created(result: R, location: str, *, status: int = 201) -> Response[R]:
    """A new resource: 201 (or 202 if the work happens later) and its location; 200 if it existed already."""
    return ok(result, status if result.changed else 200, location)


def accepted(result: R) -> Response[R]:
    """Work to be done or stopped later: 202, or 200 if nothing changed."""
    return ok(result, 202 if result.changed else 200)


def url_path(*parts: object) -> str:
    return "".join(f"/{quote(str(part), safe='')}" for part in parts)


def single_page(items: tuple[T, ...]) -> Page[T]:
    """A short list that is not paged."""
    return Page(items=items, total=len(items))


def to_builtins(value: object) -> Any:
    return msgspec.to_builtins(value)
