"""What several route files share: dependencies, query parameters, and bodies."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from litestar import Request
from litestar.di import NamedDependency
from litestar.params import QueryParameter

from contracts.commands.base import RESERVED_NAMES, CommandMetadata
from contracts.errors import Rejected
from contracts.filter_parser import MAX_FILTER_CHARACTERS
from contracts.filter_text import parse_sort, read_filter
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


@dataclass(frozen=True)
class SelectionRequest:
    """Which images are listed, and in which order; `query_args` are the arguments of the query."""

    query_args: dict[str, Any]


Selected: TypeAlias = NamedDependency[SelectionRequest]

DatasetFilter = Annotated[str | None, QueryParameter(max_length=200, description="Only of this data set (name or id).")]
TagFilter = Annotated[str | None, QueryParameter(max_length=200, description="Only images with this tag.")]
ImageFilter = Annotated[
    str | None,
    QueryParameter(
        max_length=MAX_FILTER_CHARACTERS,
        description=(
            "Only images that this selects, as in "
            '`1girl -solo (hat | cap) caption:"red" aspect>1.5 conf:hat>=0.6 untagged`; or the same as JSON.'
        ),
    ),
]
ImageSort = Annotated[
    str | None,
    QueryParameter(
        max_length=300,
        description="`added`, `name`, `size`, `changed`, `tags` or `conf:TAG`; with a minus before it: descending.",
    ),
]
Prefix = Annotated[str, QueryParameter(max_length=200, description="Only tags with this prefix.")]


class Body(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A request body. Unknown fields are refused."""


class ServiceHealth(msgspec.Struct, frozen=True, kw_only=True):
    status: Literal["healthy", "unhealthy"]
    service: str
    detail: str = ""


async def selected_images(
    tag: TagFilter = None,
    filter: ImageFilter = None,
    sort: ImageSort = None,
) -> SelectionRequest:
    """Invalid: the filter or the sort order cannot be read; it says where."""
    return SelectionRequest(
        {
            "tag": tag,
            "filter": None if filter is None else read_filter(filter),
            "sort": None if sort is None else parse_sort(sort),
        }
    )


def refuse_reserved_name(name: str) -> str:
    """The same name; Rejected when it is part of a route."""
    if name.lower() in RESERVED_NAMES:
        raise Rejected(f"{name!r} is a reserved name; choose another", reserved=sorted(RESERVED_NAMES))
    return name
