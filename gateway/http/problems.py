"""Errors as problem documents (RFC 9457), the same on every route."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import msgspec
import structlog
from litestar import Request, Response
from litestar.exceptions import HTTPException, ValidationException
from litestar.openapi.datastructures import ResponseSpec
from litestar.types import Send

from contracts import errors
from contracts.all_errors import find_errors, pointer_to
from contracts.errors import FieldError, LoratoryError
from contracts.validation import describe_message, split_message
from contracts.wire.service import request_ids

Responses = dict[int, ResponseSpec]

MEDIA_TYPE = "application/problem+json"
TYPE = "/docs/problems/"
"""Of a problem's `type`, with its code after it: the address of a page of this gateway that says what it means."""

BODY_STATE = "body"
"""The key of a request's state with the JSON body as it was received."""

_log = structlog.get_logger()


class Unauthorized(LoratoryError):
    """An API key is required: send it as `Authorization: Bearer <key>`."""

    code = "unauthorized"


class Forbidden(LoratoryError):
    """Requests from other sites are refused."""

    code = "forbidden"


class UnsupportedMedia(LoratoryError):
    """This route does not accept that Content-Type."""

    code = "unsupported-media-type"


class RangeNotSatisfiable(LoratoryError):
    """The file ends before that range begins."""

    code = "range-not-satisfiable"


class MethodNotAllowed(LoratoryError):
    """This path does not support that method."""

    code = "method-not-allowed"


class HeadersTooLarge(LoratoryError):
    """The headers of the request are too large."""

    code = "headers-too-large"


class TooManyAttempts(LoratoryError):
    """Too many wrong API keys came from this address; try again later."""

    code = "too-many-attempts"


class RequestTimeout(LoratoryError):
    """The request did not arrive in time."""

    code = "request-timeout"


STATUS_BY_ERROR: dict[type[LoratoryError], int] = {
    errors.Invalid: 400,
    Unauthorized: 401,
    Forbidden: 403,
    errors.NotFound: 404,
    MethodNotAllowed: 405,
    RequestTimeout: 408,
    errors.Conflict: 409,
    errors.IllegalTransition: 409,
    errors.InUse: 409,
    errors.BlobMissing: 409,
    errors.KeyMissing: 409,
    errors.Gone: 410,
    errors.Lost: 410,
    errors.StaleVersion: 412,
    errors.TooLarge: 413,
    UnsupportedMedia: 415,
    RangeNotSatisfiable: 416,
    errors.Rejected: 422,
    errors.KeyReused: 422,
    TooManyAttempts: 429,
    HeadersTooLarge: 431,
    errors.Unavailable: 503,
    errors.Behind: 503,
    errors.LogDamaged: 503,
    errors.LogFull: 507,
}
ERROR_BY_STATUS = {
    STATUS_BY_ERROR[kind]: kind
    for kind in (Unauthorized, Forbidden, errors.NotFound, MethodNotAllowed, errors.TooLarge, UnsupportedMedia)
}
"""The errors with a status that Litestar answers with too."""
HEADERS_BY_STATUS = {401: {"WWW-Authenticate": 'Bearer realm="loratory"'}, 503: {"Retry-After": "1"}}


class Problem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An error (RFC 9457). `code` is stable, for programs to match on; `errors` names the invalid fields, as pointers.

    `request_id` is also in the response's `X-Request-ID` and in the log. Some problems have further members, such as
    `allowed` (possible actions) or `service` (the one not available).
    """

    type: str
    title: str
    status: int
    detail: str
    instance: str
    code: str
    request_id: str = ""
    errors: tuple[FieldError, ...] = ()


def status_of(error: LoratoryError) -> int:
    return _status_of(type(error))


def _status_of(error: type[LoratoryError]) -> int:
    return next((STATUS_BY_ERROR[kind] for kind in error.__mro__ if kind in STATUS_BY_ERROR), 500)


_KINDS: tuple[type[LoratoryError], ...] = (LoratoryError, *STATUS_BY_ERROR)
PROBLEMS = {kind.code: (_status_of(kind), " ".join((kind.__doc__ or "").split())) for kind in _KINDS}
"""Status and meaning of each code."""


def encode_problem(error: LoratoryError, instance: str) -> bytes:
    """The document. The error's extra members are added to the standard ones and never replace them."""
    status = status_of(error)
    problem = Problem(
        type=TYPE + error.code,
        title=HTTPStatus(status).phrase,
        status=status,
        detail=error.detail,
        instance=instance,
        code=error.code,
        request_id=request_ids.current(),
    )
    return msgspec.json.encode({**error.extra, **msgspec.to_builtins(problem)})


def problem_headers(error: LoratoryError) -> dict[str, str]:
    headers = HEADERS_BY_STATUS.get(status_of(error), {})
    return headers | {"Retry-After": str(error.extra["retry_after"])} if "retry_after" in error.extra else headers


def problem_response(
    request: Request[Any, Any, Any], error: LoratoryError, headers: Mapping[str, str] | None = None
) -> Response[bytes]:
    all_headers = {**problem_headers(error), **(headers or {})}
    body = encode_problem(error, request.url.path)
    return Response(body, status_code=status_of(error), media_type=MEDIA_TYPE, headers=all_headers)


async def send_problem(error: LoratoryError, scope: Any, send: Send) -> None:
    """The same for ASGI apps around the routes."""
    headers = {"content-type": MEDIA_TYPE, **problem_headers(error)}
    encoded = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status_of(error), "headers": encoded})
    await send({"type": "http.response.body", "body": encode_problem(error, scope["path"]), "more_body": False})


def on_http_error(request: Request[Any, Any, Any], error: HTTPException) -> Response[bytes]:
    """Litestar's own errors: unknown paths and methods, invalid bodies and parameters."""
    kind = ERROR_BY_STATUS.get(error.status_code, errors.Invalid if error.status_code < 500 else LoratoryError)
    if isinstance(error, ValidationException):
        fields = _all_body_errors(request) or _field_errors(error)
        detail = "; ".join(field.message for field in fields) or error.detail
        return problem_response(request, kind(detail, errors=msgspec.to_builtins(fields)))
    detail = describe_message(error.detail) if kind is errors.Invalid else ""
    return problem_response(request, kind(detail), error.headers)


def on_deep_body(request: Request[Any, Any, Any], _error: RecursionError) -> Response[bytes]:
    """Raised by msgspec for thousands of nested brackets; nothing else here recurses as deep as its input."""
    return problem_response(request, errors.Invalid("the body is nested too deeply"))


def on_any_error(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """Any other exception: logged with its traceback; the client gets no details."""
    _log.error("request_failed", method=request.method, path=request.url.path, exc_info=error)
    return problem_response(request, LoratoryError("internal error; see the gateway's log"))


def _all_body_errors(request: Request[Any, Any, Any]) -> list[FieldError]:
    """All errors of a JSON body; empty if it has none, is no JSON, or was not read."""
    body, data = request.state.get(BODY_STATE), request.route_handler.parsed_fn_signature.parameters.get("data")
    if body is None or data is None:
        return []
    try:
        return find_errors(msgspec.json.decode(body), data.annotation)
    except (msgspec.DecodeError, RecursionError):
        return []


def _field_errors(error: ValidationException) -> list[FieldError]:
    """Litestar's messages as sentences: about parameters, and about a body that is no JSON."""
    entries = [entry for entry in error.extra if isinstance(entry, dict)] if isinstance(error.extra, list) else []
    first_field, _ = split_message(str(error.__cause__))
    found: list[FieldError] = []
    for index, entry in enumerate(entries):
        field, message = str(entry.get("key", "")), str(entry.get("message", ""))
        if index == 0 and first_field:
            field = first_field  # Litestar takes a parameter whose limits are not kept for the body, without a name
        elif entry.get("source") == "body":
            field = ""
        if entry.get("source") != "body":
            # Parameters are always text and cannot be null, so neither their type nor `null` is worth mentioning.
            message = message.partition(", got ")[0].replace(" | null`", "`")
        sentence = describe_message(message, field=field, whole="the body")
        found.append(FieldError(pointer=pointer_to((field,)) if field else "", message=sentence))
    return found


def response_spec(status: int, body: Any, description: str, media_type: str = "application/json") -> Responses:
    """For the OpenAPI document: a response of a route besides the one that its return type describes."""
    return {status: ResponseSpec(body, description=description, media_type=media_type, generate_examples=False)}


def not_shown_response(body: Any) -> Responses:
    """For the OpenAPI document: 202 of a write."""
    return response_spec(202, body, "It is in the log for good, but not shown yet; a read with `min_seq` waits for it")


def problem_responses(*statuses: int) -> Responses:
    """For the OpenAPI document: the errors of a route. The errors that every route has are always included.

    404 implies 410 (removed) and 422 (an invalid name).
    """
    implied = {410, 422} if 404 in statuses else set()
    specs: Responses = {}
    for status in sorted({400, 401, 403, 429, 500, 503, *statuses} | implied):
        specs |= response_spec(status, Problem, HTTPStatus(status).phrase, MEDIA_TYPE)
    return specs


HANDLERS: dict[int | type[Exception], Any] = {
    LoratoryError: problem_response,
    HTTPException: on_http_error,
    RecursionError: on_deep_body,
    Exception: on_any_error,
}
