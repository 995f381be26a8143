"""What every question has in common, and every answer."""

from datetime import datetime
from typing import Annotated, Generic, TypeVar, get_args

import msgspec
from msgspec import Meta

T = TypeVar("T")
Limit = Annotated[int, Meta(ge=1, le=500)]


class Query(msgspec.Struct, Generic[T], frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A question whose answer is a T."""

    min_seq: int = 0


class QueryAt(Query[T], Generic[T], frozen=True, kw_only=True):
    """A question about now, or about the past: as of a sequence of the log, or as of a time. Not both.

    Rejected: the log has not come so far yet. NotFound: it was not there yet.
    """

    at_seq: Annotated[int, Meta(ge=1)] | None = None
    at_time: datetime | None = None


class View(msgspec.Struct, frozen=True, kw_only=True):
    """Rows as somebody sees them. `etag` is the sequence of the last fact that touched the thing."""


class Page(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """A piece of a list. `total` counts the whole list; `next` is the cursor of the piece after this one."""

    items: tuple[T, ...]
    total: int
    next: str | None = None


def name_of(query: type[Query[T]]) -> str:
    """The last token of its subject: `GetJob` → `get_job`."""
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in query.__name__).lstrip("_")


def answer_of(query: type[Query[T]]) -> type[T]:
    """The type of its answer: `GetJob` is a `Query[JobView]`."""
    (answer,) = get_args(query.__orig_bases__[0])  # type: ignore[attr-defined]  # every generic subclass has it
    return answer  # type: ignore[no-any-return]
