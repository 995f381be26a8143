"""The OpenAPI document: Litestar's paths, with msgspec's own schemas.

Litestar 2.25 leaves out `additionalProperties: false` and the discriminators of tagged unions; msgspec writes both.
"""

import asyncio
import re
from collections.abc import Callable
from types import UnionType
from typing import Any, Union, get_args, get_origin

import msgspec
from litestar import Litestar, Response
from litestar.handlers import HTTPRouteHandler
from litestar.routes import HTTPRoute

from contracts.asyncapi import any_json
from gateway.http.problems import MEDIA_TYPE, Problem

REF = "#/components/schemas/"
_GENERIC = re.compile(r"(\w+)_(?:\w+\.)+(\w+)_")


class OpenApiDocument:
    """The description of an app, rendered on first use.

    `build_app` builds the same app once more, with OpenAPI enabled: on the served app Litestar would add pages that
    load scripts from the internet.
    """

    def __init__(self, build_app: Callable[[], Litestar]) -> None:
        self._build_app = build_app
        self._lock = asyncio.Lock()
        self._text = b""

    async def text(self) -> bytes:
        """OpenAPI 3.1 as JSON."""
        async with self._lock:
            if not self._text:
                self._text = await asyncio.to_thread(_render, self._build_app)
        return self._text


def _render(build_app: Callable[[], Litestar]) -> bytes:
    app = build_app()
    schema = app.openapi_schema.to_schema()
    schema["components"]["schemas"] = _components(app)
    for operations in schema["paths"].values():
        for operation in operations.values():
            _add_problem_schemas(operation)
    return msgspec.json.encode(_fix_refs(schema))


def _components(app: Litestar) -> dict[str, Any]:
    kinds = {Problem}
    for route in app.routes:
        if isinstance(route, HTTPRoute):
            for handler in route.route_handlers:
                kinds.update(_structs(handler))
    _, components = msgspec.json.schema_components(
        sorted(kinds, key=str), ref_template=REF + "{name}", schema_hook=any_json
    )
    return dict(sorted(components.items()))


def _structs(handler: HTTPRouteHandler) -> list[Any]:
    """The structs that a route accepts and returns, also those that only `responses` names."""
    found: list[Any] = [spec.data_container for spec in (handler.responses or {}).values()]
    found.append(handler.parsed_fn_signature.return_type.annotation)
    if handler.parsed_data_field is not None:
        found.append(handler.parsed_data_field.annotation)
    return [part for kind in found for part in _unwrap(kind) if _is_struct(get_origin(part) or part)]


def _unwrap(kind: Any) -> tuple[Any, ...]:
    """The body type of a Response, or the members of a union (an optional body is a union with None)."""
    inner = get_args(kind)[0] if get_origin(kind) is Response else kind
    return get_args(inner) if get_origin(inner) in {Union, UnionType} else (inner,)


def _is_struct(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


def _add_problem_schemas(operation: dict[str, Any]) -> None:
    """Make every error response a problem document, also those that Litestar describes differently."""
    operation["responses"].get("204", {}).pop("content", None)
    for status, response in operation["responses"].items():
        content = response.get("content", {})
        if int(status) >= 400 and not any(_is_ref(one) for one in content.values()):
            response["content"] = {MEDIA_TYPE: {"schema": {"$ref": f"{REF}Problem"}}}


def _is_ref(content: dict[str, Any]) -> bool:
    return "$ref" in content.get("schema", {})


def _fix_refs(node: Any) -> Any:
    """Litestar names generic structs by module; msgspec does not."""
    if isinstance(node, dict):
        return {key: _fix_ref(value) if key == "$ref" else _fix_refs(value) for key, value in node.items()}
    return [_fix_refs(one) for one in node] if isinstance(node, list) else node


def _fix_ref(ref: str) -> str:
    return REF + _GENERIC.sub(r"\1_\2_", ref.removeprefix(REF))
