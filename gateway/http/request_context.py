"""Request headers and query parameters: actor, idempotency key, paging, and point in time."""

import hashlib
import hmac
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, TypeVar

from litestar import Request, Response
from litestar.params import HeaderParameter, QueryParameter

from contracts.commands.base import CommandMetadata
from contracts.errors import Invalid, Rejected, StaleVersion
from contracts.ids import keyed_command_id, new_command_id
from contracts.queries.base import EncodedPage, Page
from contracts.queries.log import HistoryPage
from contracts.wire.service import request_ids, tracing
from gateway.http.problems import BODY_STATE, UnsupportedMedia
from gateway.http.query_parameters import check_parameters
from gateway.http.responses import next_link

P = TypeVar("P", bound=Page[Any] | HistoryPage)

JSON = "application/json"
FORM = "multipart/form-data"
CONTENT_TYPE_OPT = "content_type"
"""The key of a route's `opt` with the required Content-Type; JSON if absent."""

IdempotencyKey = Annotated[
    str | None,
    HeaderParameter(
        name="Idempotency-Key",
        max_length=255,
        description="A request sent again with the same key is not executed twice; it gets the same answer.",
    ),
]
TraceParent = Annotated[
    str | None,
    HeaderParameter(name="traceparent", max_length=128, description="W3C Trace Context; kept with the event."),
]
IfMatch = Annotated[
    str | None,
    HeaderParameter(
        name="If-Match", description="The ETag of your copy; 412 if there are later changes that cannot be merged."
    ),
]
MinSeq = Annotated[
    int,
    QueryParameter(
        ge=0,
        le=2**53,
        description=(
            "Read at this sequence of the log or later (a write's `Loratory-Seq`); 503 until it is reached, 400 if the "
            "log does not have it."
        ),
    ),
]
AtSeq = Annotated[
    int | None,
    QueryParameter(ge=1, le=2**53, description="The state at this sequence of the log; 404 if it did not exist yet."),
]
AtTime = Annotated[
    datetime | None,
    QueryParameter(description="The state at this time, by the log's clock (RFC 3339, with an offset or Z)."),
]
Cursor = Annotated[
    str | None, QueryParameter(max_length=500, description="Where to continue: `next` of the previous page.")
]
PageLimit = Annotated[int, QueryParameter(ge=1, le=500, description="Maximum number of items.")]


@dataclass(frozen=True)
class PageRequest:
    """The requested page of a list; `query_args` are the arguments that all list queries share."""

    request: Request[Any, Any, Any]
    query_args: dict[str, Any]

    def response(self, page: P) -> Response[P]:
        """The page of a list or history, with a link to the next one."""
        return Response(page, headers=self._headers(page.next))

    def encoded_response(self, page: EncodedPage) -> Response[Any]:
        """The same of items that are encoded already; the caller says what they are."""
        return Response(page, headers=self._headers(page.next))

    def _headers(self, next_cursor: str | None) -> dict[str, str]:
        return {"Cache-Control": "no-cache", **next_link(self.request, next_cursor, "cursor")}


async def page_request(
    request: Request[Any, Any, Any], cursor: Cursor = None, limit: PageLimit = 100, min_seq: MinSeq = 0
) -> PageRequest:
    return PageRequest(request, {"cursor": cursor, "limit": limit, "min_seq": min_seq})


@dataclass(frozen=True)
class AsOfRequest:
    """The requested point in time, or now; `query_args` are the arguments that all queries about one share."""

    query_args: dict[str, Any]
    is_past: bool


async def as_of(at_seq: AtSeq = None, at_time: AtTime = None, min_seq: MinSeq = 0) -> AsOfRequest:
    require_offset("at_time", at_time)
    if at_time is not None and at_time > datetime.now(UTC):
        raise Rejected("at_time is in the future")
    is_past = at_seq is not None or at_time is not None
    return AsOfRequest({"at_seq": at_seq, "at_time": at_time, "min_seq": min_seq}, is_past)


def require_offset(name: str, time: datetime | None) -> None:
    """Invalid: the time has no UTC offset."""
    if time is not None and time.tzinfo is None:
        raise Invalid(f"{name} needs an offset or Z, as in 2026-11-21T12:00:00Z")


async def command_metadata(
    request: Request[Any, Any, Any], idempotency_key: IdempotencyKey = None, traceparent: TraceParent = None
) -> CommandMetadata:
    """The metadata of a request's command, with the fingerprint of the request: method, path and body."""
    fingerprint = hashlib.sha256(f"{request.method} {request.url.path}\n".encode() + await request.body()).hexdigest()
    return build_metadata(request, idempotency_key, fingerprint, traceparent)


def build_metadata(
    request: Request[Any, Any, Any], key: str | None, fingerprint: str, traceparent: str | None = None
) -> CommandMetadata:
    actor: str = request.scope["state"]["actor"]
    if key is not None and (not key.isprintable() or not key.strip()):
        raise Invalid("Idempotency-Key must be 1 to 255 printable characters")
    return CommandMetadata(
        command_id=new_command_id() if key is None else keyed_command_id(actor, key),
        actor=actor,
        at=datetime.now(UTC),
        fingerprint=keyed_fingerprint(fingerprint, key),
        correlation_id=request_ids.current(),
        traceparent=tracing.traceparent() or traceparent,
    )


def keyed_fingerprint(fingerprint: str, key: str | None) -> str:
    """The fingerprint as stored in the log: without the key nobody can test which name or caption was sent.

    Empty without a key, since such a request is never sent again.
    """
    return "" if key is None else hmac.digest(key.encode(), fingerprint.encode(), "sha256").hex()


def parse_if_match(if_match: str | None) -> int | None:
    """The sequence in an ETag; None for `*` and no header: any version. StaleVersion: not an ETag of ours."""
    if if_match is None or if_match.strip() == "*":
        return None
    sequence = re.fullmatch(r'"([0-9]{1,19})"', if_match.strip())
    if sequence is None:
        raise StaleVersion("If-Match is not an ETag of this resource; use the ETag of a GET")
    return int(sequence[1])


async def check_request(request: Request[Any, Any, Any]) -> None:
    """Before the body is decoded."""
    check_parameters(request)
    _check_content_type(request)
    if request.route_handler.opt.get(CONTENT_TYPE_OPT, JSON) == JSON and has_body(request):
        request.state[BODY_STATE] = await request.body()


def has_body(request: Request[Any, Any, Any]) -> bool:
    return request.headers.get("content-length", "0") != "0" or "transfer-encoding" in request.headers


def _check_content_type(request: Request[Any, Any, Any]) -> None:
    """Another site's form can send text/plain, but not JSON (CORS would refuse it)."""
    if request.method in ("GET", "HEAD", "OPTIONS"):
        return
    given = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    required = request.route_handler.opt.get(CONTENT_TYPE_OPT, JSON)
    if given != required and (given or has_body(request)):
        raise UnsupportedMedia(f"this route accepts {required}, not {given or 'a body without Content-Type'}")
