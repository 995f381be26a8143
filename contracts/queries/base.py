"""Base classes of queries, views and pages."""

from datetime import datetime
from typing import Annotated, Generic, TypeAlias, TypeVar, get_args

import msgspec
from msgspec import Meta

T = TypeVar("T")
Limit = Annotated[int, Meta(ge=1, le=500)]
AtSequence = Annotated[int, Meta(ge=1)]


class Query(msgspec.Struct, Generic[T], frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A query whose result is a T."""

    min_seq: int = 0


class QueryAt(Query[T], Generic[T], frozen=True, kw_only=True):
    """A query about the present, or about the past: as of a sequence of the log, or as of a time, not both.

    Rejected: the log has not reached that sequence or time. NotFound: the object did not exist then. Gone: it was
    removed then, or has been erased since.
    """

    at_seq: AtSequence | None = None
    at_time: datetime | None = None

    @property
    def is_past(self) -> bool:
        return self.at_seq is not None or self.at_time is not None


class QueryPage(Query[T], Generic[T], frozen=True, kw_only=True):
    """A query whose result is a page."""

    cursor: str | None = None
    limit: Limit = 100


class View(msgspec.Struct, frozen=True, kw_only=True):
    """Rows as shown to clients. `etag` is the sequence of the last event that changed the object."""


class Page(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """One page of a list. `total` counts the whole list; `next` is the cursor of the following page."""

    items: tuple[T, ...]
    total: int
    next: str | None = None


EncodedPage: TypeAlias = Page[msgspec.Raw]
"""A page whose items are JSON as the service encoded them, to be passed on as they are."""


def query_name_of(query: type[Query[T]]) -> str:
    """The last token of a query's subject: `GetJob` → `get_job`."""
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in query.__name__).lstrip("_")


def result_type_of(query: type[Query[T]]) -> type[T]:
    """The type of a query's result: JobView for `GetJob(Query[JobView])`."""
    (result_type,) = get_args(query.__orig_bases__[0])  # type: ignore[attr-defined]  # every generic subclass has it
    return result_type  # type: ignore[no-any-return]
