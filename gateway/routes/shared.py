"""What several route files share: dependencies, query parameters, and bodies."""

from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from litestar import Request
from litestar.di import NamedDependency
from litestar.params import QueryParameter

from contracts.commands.base import RESERVED_NAMES, CommandMetadata
from contracts.errors import Rejected
from gateway.clients import CatalogClient
from gateway.http.files import BlobFiles
from gateway.http.request_context import AsOfRequest, PageRequest
from gateway.limits import HttpLimits
from gateway.live.feed import LiveFeed

AnyRequest: TypeAlias = Request[Any, Any, Any]
AsOf: TypeAlias = NamedDependency[AsOfRequest]
Files: TypeAlias = NamedDependency[BlobFiles]
Catalog: TypeAlias = NamedDependency[CatalogClient]
Feed: TypeAlias = NamedDependency[LiveFeed]
Limits: TypeAlias = NamedDependency[HttpLimits]
Metadata: TypeAlias = NamedDependency[CommandMetadata]
Paging: TypeAlias = NamedDependency[PageRequest]

DatasetFilter = Annotated[str | None, QueryParameter(max_length=200, description="Only of this data set (name or id).")]
TagFilter = Annotated[str | None, QueryParameter(max_length=200, description="Only images with this tag.")]
Prefix = Annotated[str, QueryParameter(max_length=200, description="Only tags with this prefix.")]


class Body(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A request body. Unknown fields are refused."""


class ServiceHealth(msgspec.Struct, frozen=True, kw_only=True):
    status: Literal["healthy", "unhealthy"]
    service: str
    detail: str = ""


def refuse_reserved_name(name: str) -> str:
    """The same name; Rejected when it is part of a route."""
    if name.lower() in RESERVED_NAMES:
        raise Rejected(f"{name!r} is a reserved name; choose another", reserved=sorted(RESERVED_NAMES))
    return name
