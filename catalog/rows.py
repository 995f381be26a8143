"""Rows of a query as objects: their fields are filled from the columns of the same names, by their types.

A column without a field is left out. NULL is None. Times are ISO 8601, structured values JSON.
"""

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import is_dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from types import NoneType, UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import msgspec

T = TypeVar("T")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
"""The resolution of the archive's times."""
Parameters = Sequence[object] | Mapping[str, object]


def fetch(connection: sqlite3.Connection, row_type: type[T], query: str, parameters: Parameters = ()) -> list[T]:
    """All rows that a query finds."""
    return list(_rows(connection, row_type, query, parameters))


def fetch_one(connection: sqlite3.Connection, row_type: type[T], query: str, parameters: Parameters = ()) -> T | None:
    """The first row that a query finds."""
    return next(_rows(connection, row_type, query, parameters), None)


def fetch_value(connection: sqlite3.Connection, query: str, parameters: Parameters = ()) -> Any:
    """The first column of the first row that a query finds; None if it finds none."""
    row = connection.execute(query, parameters).fetchone()
    return None if row is None else row[0]


def tuple_cursor(connection: sqlite3.Connection) -> sqlite3.Cursor:
    """A cursor whose rows are tuples, which cost a third less than named rows."""
    cursor = connection.cursor()
    cursor.row_factory = None
    return cursor


def fetch_number(connection: sqlite3.Connection, query: str, parameters: Parameters = ()) -> int:
    """The result of a query that counts."""
    return int(connection.execute(query, parameters).fetchone()[0])


def from_microseconds(microseconds: int) -> datetime:
    """Exact: a float of today's seconds since 1970 has a resolution of a quarter of a microsecond."""
    return datetime.fromtimestamp(microseconds / 1e6, UTC)


def json_array(values: Iterable[int] | Iterable[str]) -> str:
    """The argument of `json_each`: any number of values in one parameter."""
    return msgspec.json.encode(list(values)).decode()


def _rows(connection: sqlite3.Connection, row_type: Any, query: str, parameters: Parameters) -> Iterator[Any]:
    cursor, fields = connection.execute(query, parameters), _conversions(row_type)
    columns = [column for column, *_ in cursor.description]
    unknown = [column for column in columns if column not in fields]
    conversions = [(column, convert) for column in columns if (convert := fields.get(column)) is not None]
    for row in cursor:
        values = dict(zip(columns, row, strict=True))
        for column in unknown:
            del values[column]
        for column, convert in conversions:
            if (value := values[column]) is not None:
                values[column] = convert(value)
        yield row_type(**values)


@cache
def _conversions(row_type: type[Any]) -> dict[str, Callable[[Any], object] | None]:
    return {name: _conversion(field_type) for name, field_type in get_type_hints(row_type).items()}


def _conversion(field_type: Any) -> Callable[[Any], object] | None:
    """How a stored value becomes one of this type; None: it already is."""
    if isinstance(field_type, UnionType):
        (field_type,) = (one for one in get_args(field_type) if one is not NoneType)
    if field_type is datetime:
        return datetime.fromisoformat
    if field_type is bool:
        return bool
    is_structured = is_dataclass(field_type) or get_origin(field_type) is tuple
    if is_structured or (isinstance(field_type, type) and issubclass(field_type, msgspec.Struct)):
        return msgspec.json.Decoder(field_type).decode
    return None
