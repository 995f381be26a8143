"""What a request says beside its body: who asks, with which key, for how much of a list, and as of when."""

import hashlib
import hmac
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
from litestar import Request
from litestar.params import HeaderParameter, QueryParameter

from contracts.commands import Origin
from contracts.errors import Invalid, Rejected, StaleVersion
from contracts.ids import CommandId, keyed_command_id, new_command_id
from gateway.http.problems import UnsupportedMedia

JSON = "application/json"
FORM = "multipart/form-data"
TAKES = "takes"
"""A route's `opt`: the Content-Type its body must have; JSON where it says nothing."""

IdempotencyKey = Annotated[
    str | None,
    HeaderParameter(
        name="Idempotency-Key",
        max_length=255,
        description="Sent again with the same key, a request asks for the same thing, not for another one.",
    ),
]
TraceParent = Annotated[
    str | None,
    HeaderParameter(name="traceparent", max_length=128, description="W3C Trace Context; kept with the event."),
]
IfMatch = Annotated[
    str | None,
    HeaderParameter(
        name="If-Match", description="The ETag you saw; 412 when it has changed since and cannot be merged."
    ),
]
MinSeq = Annotated[
    int,
    QueryParameter(
        ge=0,
        le=2**53,
        description="Answer as of this sequence of the log or later (a write's `Loratory-Seq`); 503 until then.",
    ),
]
AtSeq = Annotated[
    int | None,
    QueryParameter(
        ge=1, le=2**53, description="As it was at this sequence of the log; 404 where it was not there yet."
    ),
]
AtTime = Annotated[
    datetime | None,
    QueryParameter(description="As it was at this time, by the log's clock (RFC 3339, with its offset or Z)."),
]
Cursor = Annotated[
    str | None, QueryParameter(max_length=500, description="Where the list goes on: `next` of the page before.")
]
PageLimit = Annotated[int, QueryParameter(ge=1, le=500, description="So many items at most.")]


class Listing(msgspec.Struct, frozen=True, kw_only=True):
    """Which piece of a list is asked for; `asked` are the arguments that all list queries share."""

    cursor: str | None
    limit: int
    min_seq: int

    @property
    def asked(self) -> dict[str, Any]:
        return msgspec.structs.asdict(self)


async def listing(cursor: Cursor = None, limit: PageLimit = 100, min_seq: MinSeq = 0) -> Listing:
    return Listing(cursor=cursor, limit=limit, min_seq=min_seq)


class Moment(msgspec.Struct, frozen=True, kw_only=True):
    """As of when a thing is asked for; none of both = now. `asked` are the arguments such queries share."""

    at_seq: int | None
    at_time: datetime | None
    min_seq: int

    @property
    def asked(self) -> dict[str, Any]:
        return msgspec.structs.asdict(self)

    @property
    def past(self) -> bool:
        return self.at_seq is not None or self.at_time is not None


async def moment(at_seq: AtSeq = None, at_time: AtTime = None, min_seq: MinSeq = 0) -> Moment:
    return Moment(at_seq=at_seq, at_time=passed(at_time, "at_time"), min_seq=min_seq)


def passed(time: datetime | None, name: str) -> datetime | None:
    """A time that is over. Invalid: it has no offset. Rejected: it is yet to come."""
    if time is None:
        return None
    if time.tzinfo is None:
        raise Invalid(f"{name} needs an offset or Z, as in 2026-11-21T12:00:00Z")
    if time > datetime.now(UTC):
        raise Rejected(f"{name} is yet to come: nobody knows how it will be then")
    return time


async def origin(
    request: Request[Any, Any, Any], idempotency_key: IdempotencyKey = None, traceparent: TraceParent = None
) -> Origin:
    """Where a wish comes from, with the fingerprint of the request: method, path and body."""
    fingerprint = hashlib.sha256(f"{request.method} {request.url.path}\n".encode() + await request.body()).hexdigest()
    return origin_of(request, idempotency_key, fingerprint, traceparent)


def origin_of(
    request: Request[Any, Any, Any], key: str | None, fingerprint: str, traceparent: str | None = None
) -> Origin:
    actor: str = request.scope["state"]["actor"]
    if key is not None and (not key.isprintable() or not key.strip()):
        raise Invalid("Idempotency-Key must be 1 to 255 printable characters")
    command = new_command_id() if key is None else keyed_command_id(actor, key)
    return Origin(
        command=CommandId(command),
        actor=actor,
        at=datetime.now(UTC),
        fingerprint=blinded(fingerprint, key),
        traceparent=traceparent,
    )


def blinded(fingerprint: str, key: str | None) -> str:
    """As the log keeps it for ever: who does not know the key cannot try out which name or caption was sent.

    Nothing where there is no key: such a request is never sent again.
    """
    return "" if key is None else hmac.digest(key.encode(), fingerprint.encode(), "sha256").hex()


def seen(if_match: str | None) -> int | None:
    """The sequence in an ETag. `*` and none: whatever is there. What is no ETag of ours cannot match."""
    if if_match is None or if_match.strip() == "*":
        return None
    text = if_match.strip()
    if len(text) < 3 or text[0] != '"' or text[-1] != '"' or not (text[1:-1].isascii() and text[1:-1].isdecimal()):
        raise StaleVersion("If-Match names no version of this thing; take the ETag of a GET")
    return int(text[1:-1])


async def check_content_type(request: Request[Any, Any, Any]) -> None:
    """415 before the body is read: a form of another site can send text/plain, but never JSON without our leave."""
    if request.method in ("GET", "HEAD", "OPTIONS"):
        return
    given = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    has_body = request.headers.get("content-length", "0") != "0" or "transfer-encoding" in request.headers
    wanted = request.route_handler.opt.get(TAKES, JSON)
    if given != wanted and (given or has_body):
        raise UnsupportedMedia(f"this route takes {wanted}, not {given or 'a body without Content-Type'}")
