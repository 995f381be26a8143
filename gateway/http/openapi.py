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

from gateway.http.problems import MEDIA_TYPE, Problem

REF = "#/components/schemas/"
_GENERIC = re.compile(r"(\w+)_(?:\w+\.)+(\w+)_")


class Document:
    """The description of an app, made when first asked for.

    `described` builds the same app once more, with a description: on the served one Litestar would add pages that load
    scripts from the internet.
    """

    def __init__(self, described: Callable[[], Litestar]) -> None:
        self._described = described
        self._making = asyncio.Lock()
        self._text = b""

    async def text(self) -> bytes:
        """OpenAPI 3.1 as JSON."""
        async with self._making:
            if not self._text:
                self._text = await asyncio.to_thread(_written, self._described)
        return self._text


def _written(described: Callable[[], Litestar]) -> bytes:
    app = described()
    schema = app.openapi_schema.to_schema()
    schema["components"]["schemas"] = _components(app)
    for operations in schema["paths"].values():
        for operation in operations.values():
            _tidy(operation)
    return msgspec.json.encode(_renamed(schema))


def _components(app: Litestar) -> dict[str, Any]:
    kinds = {Problem}
    for route in app.routes:
        if isinstance(route, HTTPRoute):
            for handler in route.route_handlers:
                kinds.update(_structs(handler))
    _, components = msgspec.json.schema_components(
        sorted(kinds, key=str), ref_template=REF + "{name}", schema_hook=_anything
    )
    return dict(sorted(components.items()))


def _anything(kind: type) -> dict[str, Any]:
    """`object` is any JSON value."""
    if kind is not object:
        raise NotImplementedError(kind.__name__)
    return {"description": "any JSON value"}


def _structs(handler: HTTPRouteHandler) -> list[Any]:
    """The structs a route takes and gives, also those that are only named in `responses`."""
    found: list[Any] = [spec.data_container for spec in (handler.responses or {}).values()]
    found.append(handler.parsed_fn_signature.return_type.annotation)
    if handler.parsed_data_field is not None:
        found.append(handler.parsed_data_field.annotation)
    return [part for kind in found for part in _parts(kind) if _is_struct(get_origin(part) or part)]


def _parts(kind: Any) -> tuple[Any, ...]:
    """What an answer wraps, and what there is to choose from: a body that may be left out is a union with None."""
    inner = get_args(kind)[0] if get_origin(kind) is Response else kind
    return get_args(inner) if get_origin(inner) in {Union, UnionType} else (inner,)


def _is_struct(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


def _tidy(operation: dict[str, Any]) -> None:
    """Every refusal is a problem document, also those that Litestar describes by itself."""
    operation["responses"].get("204", {}).pop("content", None)
    for status, answer in operation["responses"].items():
        content = answer.get("content", {})
        if int(status) >= 400 and not any(_is_ref(one) for one in content.values()):
            answer["content"] = {MEDIA_TYPE: {"schema": {"$ref": f"{REF}Problem"}}}


def _is_ref(content: dict[str, Any]) -> bool:
    return "$ref" in content.get("schema", {})


def _renamed(node: Any) -> Any:
    """Litestar names generic structs by module; msgspec does not."""
    if isinstance(node, dict):
        return {key: _name(value) if key == "$ref" else _renamed(value) for key, value in node.items()}
    return [_renamed(one) for one in node] if isinstance(node, list) else node


def _name(ref: str) -> str:
    return REF + _GENERIC.sub(r"\1_\2_", ref.removeprefix(REF))
