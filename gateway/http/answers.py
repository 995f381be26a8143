"""Answers with the headers they owe: ETag, Loratory-Seq, Location, Link."""

from typing import Any, TypeVar
from urllib.parse import quote, urlencode

import msgspec
from litestar import Request, Response

from contracts.commands import Receipt
from contracts.queries import History, Page

T = TypeVar("T")

ROOT = "/api/v1"
SEQUENCE = "Loratory-Seq"


def viewed(view: T, etag: int) -> Response[T]:
    """One thing, with the sequence of the last fact that touched it as ETag."""
    return Response(view, headers={"ETag": f'"{etag}"', "Cache-Control": "no-cache"})


def listed(request: Request[Any, Any, Any], page: Page[T]) -> Response[Page[T]]:
    """A piece of a list, and where the next one is (RFC 8288)."""
    return Response(page, headers={"Cache-Control": "no-cache", **link_to(request, page.next, "cursor")})


def narrated(request: Request[Any, Any, Any], story: History) -> Response[History]:
    """A piece of a story, and where it goes on."""
    return Response(story, headers={"Cache-Control": "no-cache", **link_to(request, story.next, "cursor")})


def link_to(request: Request[Any, Any, Any], following: str | None, name: str) -> dict[str, str]:
    if following is None:
        return {}
    asked = [(key, value) for key, value in request.query_params.multi_items() if key != name]
    return {"Link": f'<{request.url.path}?{urlencode([*asked, (name, following)])}>; rel="next"'}


def done(receipt: Receipt, status: int = 200, location: str | None = None) -> Response[Receipt]:
    """A wish that came true, with the sequence that reads can ask for as `min_seq`."""
    headers = {SEQUENCE: str(receipt.sequence)}
    if location is not None:
        headers["Location"] = ROOT + location
    return Response(receipt, status_code=status, headers=headers)


def made(receipt: Receipt, location: str, *, status: int = 201) -> Response[Receipt]:
    """Something new: 201 (or 202 where the work comes later) and where it is; 200 when it was there already."""
    return done(receipt, status if receipt.changed else 200, location)


def asked_for(receipt: Receipt) -> Response[Receipt]:
    """Work that will be done or stopped: 202, or 200 when it was so already."""
    return done(receipt, 202 if receipt.changed else 200)


def path(*parts: object) -> str:
    return "".join(f"/{quote(str(part), safe='')}" for part in parts)


def whole(items: tuple[T, ...]) -> Page[T]:
    """A short list that is never cut in pieces."""
    return Page(items=items, total=len(items))


def builtins(value: object) -> Any:
    return msgspec.to_builtins(value)
