"""Errors as problem documents (RFC 9457): one table, one shape, on every route."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import msgspec
import structlog
from litestar import Request, Response
from litestar.exceptions import HTTPException, ValidationException
from litestar.openapi.datastructures import ResponseSpec

from contracts import errors
from contracts.errors import FieldError, LoratoryError

MEDIA_TYPE = "application/problem+json"
TYPE = "https://loratory.invalid/problems/"
"""Problem types are names, not places: `.invalid` never resolves (RFC 2606). The docs explain each code."""

_log = structlog.get_logger()


class Unauthorized(LoratoryError):
    """This needs an API key: send it as `Authorization: Bearer <key>`."""

    code = "unauthorized"


class Forbidden(LoratoryError):
    """Requests from other sites are refused."""

    code = "forbidden"


class UnsupportedMedia(LoratoryError):
    """This route does not take that Content-Type."""

    code = "unsupported-media-type"


class RangeNotSatisfiable(LoratoryError):
    """The file ends before that range begins."""

    code = "range-not-satisfiable"


class NoSuchMethod(LoratoryError):
    """This address does not know that method."""

    code = "method-not-allowed"


STATUS: dict[type[LoratoryError], int] = {
    errors.Invalid: 400,
    Unauthorized: 401,
    Forbidden: 403,
    errors.NotFound: 404,
    NoSuchMethod: 405,
    errors.Conflict: 409,
    errors.IllegalTransition: 409,
    errors.InUse: 409,
    errors.Gone: 410,
    errors.StaleVersion: 412,
    errors.TooLarge: 413,
    UnsupportedMedia: 415,
    RangeNotSatisfiable: 416,
    errors.Rejected: 422,
    errors.KeyReused: 422,
    errors.Unavailable: 503,
    errors.Behind: 503,
    errors.LogDamaged: 503,
    errors.LogFull: 507,
}
BY_STATUS: dict[int, type[LoratoryError]] = {
    401: Unauthorized,
    403: Forbidden,
    404: errors.NotFound,
    405: NoSuchMethod,
    413: errors.TooLarge,
    415: UnsupportedMedia,
}


class Problem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What went wrong (RFC 9457). `code` is stable and what programs match on; `errors` names the fields, as pointers.

    Some problems carry further members, such as `allowed` (what may be done instead) or `service` (who is missing).
    """

    type: str
    title: str
    status: int
    detail: str
    instance: str
    code: str
    errors: tuple[FieldError, ...] = ()


def status_of(error: LoratoryError) -> int:
    return next((STATUS[kind] for kind in type(error).__mro__ if kind in STATUS), 500)


def body_of(error: LoratoryError, instance: str) -> bytes:
    """The document; the error's facts are members beside the standard ones, and never replace them."""
    status = status_of(error)
    problem = Problem(
        type=TYPE + error.code,
        title=HTTPStatus(status).phrase,
        status=status,
        detail=error.detail,
        instance=instance,
        code=error.code,
    )
    return msgspec.json.encode({**error.facts, **msgspec.to_builtins(problem)})


def headers_of(error: LoratoryError) -> dict[str, str]:
    match status_of(error):
        case 401:
            return {"WWW-Authenticate": 'Bearer realm="loratory"'}
        case 503:
            return {"Retry-After": "1"}
        case _:
            return {}


def answer(error: LoratoryError, instance: str, headers: Mapping[str, str] | None = None) -> Response[bytes]:
    return Response(
        body_of(error, instance),
        status_code=status_of(error),
        media_type=MEDIA_TYPE,
        headers={**headers_of(error), **(headers or {})},
    )


def on_loratory_error(request: Request[Any, Any, Any], error: LoratoryError) -> Response[bytes]:
    return answer(error, request.url.path)


def on_http_error(request: Request[Any, Any, Any], error: HTTPException) -> Response[bytes]:
    """What Litestar refuses by itself: unknown addresses and methods, bodies and parameters that do not fit."""
    kind = BY_STATUS.get(error.status_code, errors.Invalid if error.status_code < 500 else LoratoryError)
    if isinstance(error, ValidationException):
        fields = _fields(error.extra)
        sentence = "; ".join(f"{field.pointer} {field.message}".strip() for field in fields) or error.detail
        return answer(kind(sentence, errors=msgspec.to_builtins(fields)), request.url.path)
    detail = error.detail if kind is errors.Invalid else ""
    return answer(kind(detail), request.url.path, error.headers)


def on_deep_body(request: Request[Any, Any, Any], _error: RecursionError) -> Response[bytes]:
    """msgspec's answer to ten thousand brackets; nothing else here recurses as deep as its input."""
    return answer(errors.Invalid("the body is nested too deeply"), request.url.path)


def on_any_error(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """The gateway's edge: the client learns that it failed, the log says how."""
    _log.error("request_failed", method=request.method, path=request.url.path, exc_info=error)
    return answer(LoratoryError("an internal error; the log of the gateway says more"), request.url.path)


def _fields(extra: object) -> list[FieldError]:
    """Litestar says `data.x.y` for a member of the body, else the parameter's name; we point (RFC 6901)."""
    if not isinstance(extra, list):
        return []
    return [
        FieldError(pointer=_pointer(str(one.get("key", ""))), message=str(one.get("message", "")))
        for one in extra
        if isinstance(one, dict)
    ]


def _pointer(key: str) -> str:
    path = key.removeprefix("data").lstrip(".")
    return "/" + path.replace(".", "/") if path else ""


def problems(*statuses: int) -> dict[int, ResponseSpec]:
    """For the OpenAPI document: a route may answer with these, and with what every route may answer.

    What can be missing can also have been removed, or be named in a way the rules refuse.
    """
    implied = {410, 422} if 404 in statuses else set()
    return {
        status: ResponseSpec(
            Problem, description=HTTPStatus(status).phrase, media_type=MEDIA_TYPE, generate_examples=False
        )
        for status in sorted({400, 401, 403, 500, 503, *statuses} | implied)
    }


def also(status: int, kind: type[msgspec.Struct], description: str) -> dict[int, ResponseSpec]:
    """For the OpenAPI document: a second way a route succeeds."""
    return {status: ResponseSpec(kind, description=description, generate_examples=False)}


HANDLERS: dict[int | type[Exception], Any] = {
    LoratoryError: on_loratory_error,
    HTTPException: on_http_error,
    RecursionError: on_deep_body,
    Exception: on_any_error,
}
