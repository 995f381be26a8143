"""Responses with their headers: ETag, Loratory-Seq, Location, Link."""

from typing import Any, TypeVar
from urllib.parse import quote, urlencode

from litestar import Request, Response

from contracts.commands.base import R
from contracts.queries.base import Page

T = TypeVar("T")

API_ROOT = "/api/v1"
SEQUENCE_HEADER = "Loratory-Seq"


def with_etag(view: T, etag: int) -> Response[T]:
    """One resource; its ETag is the sequence of the last event that changed it."""
    return Response(view, headers={"ETag": f'"{etag}"', "Cache-Control": "no-cache"})


def next_link(request: Request[Any, Any, Any], next_cursor: str | None, parameter: str) -> dict[str, str]:
    """The Link header (RFC 8288) to the same address with another cursor; none on the last page."""
    if next_cursor is None:
        return {}
    others = [(key, value) for key, value in request.query_params.multi_items() if key != parameter]
    return {"Link": f'<{request.url.path}?{urlencode([*others, (parameter, next_cursor)])}>; rel="next"'}


def ok(result: R, *location: object, status: int = 200) -> Response[R]:
    """An executed command, with the sequence that reads can pass as `min_seq`, and the path of a new resource.

    202 instead of `status` if it is in the log for good, but not shown yet.
    """
    headers = {SEQUENCE_HEADER: str(result.sequence)}
    if location:
        headers["Location"] = API_ROOT + "".join(f"/{quote(str(part), safe='')}" for part in location)
    return Response(result, status_code=status if result.shown else 202, headers=headers)


def created(result: R, *location: object, status: int = 201) -> Response[R]:
    """A new resource: 201 (or 202 if the work happens later) and its path; 200 if it existed already."""
    return ok(result, *location, status=status if result.changed else 200)


def accepted(result: R) -> Response[R]:
    """Work to be done or stopped later: 202, or 200 if nothing changed."""
    return created(result, status=202)


def single_page(items: tuple[T, ...]) -> Page[T]:
    """A short list that is not paged."""
    return Page(items=items, total=len(items))
