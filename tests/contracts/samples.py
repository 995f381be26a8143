"""One sample of each struct, made from its types: every field filled with something that is not its default."""

from datetime import UTC, datetime
from typing import Any, TypeVar

from msgspec import inspect

from contracts.recipe import BuiltinBase, Recipe

T = TypeVar("T")
AT = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)


def sample_of(kind: type[T]) -> T:
    """All fields filled, also those that have defaults; a recipe is the plain one."""
    fields = inspect.type_info(kind)
    assert isinstance(fields, inspect.StructType)
    return kind(**{field.name: _value(field.type, field.name) for field in fields.fields})


def _value(kind: inspect.Type, name: str) -> Any:  # noqa: PLR0911, PLR0912 - one arm for each kind of field
    match kind:
        case inspect.StructType(cls=cls):
            return Recipe(base=BuiltinBase(name="tiny-random")) if cls is Recipe else sample_of(cls)
        case inspect.StrType():
            return "0" * 64 if name in DIGESTS else TEXTS.get(name, name)
        case inspect.IntType():
            return NUMBERS.get(name, 7)
        case inspect.FloatType():
            return 0.25
        case inspect.BoolType():
            return True
        case inspect.BytesType():
            return b"\x00\xff" + name.encode()
        case inspect.DateTimeType():
            return AT
        case inspect.LiteralType(values=values):
            return values[0]
        case inspect.UnionType(types=types):
            return _value(next(one for one in types if not isinstance(one, inspect.NoneType)), name)
        case inspect.VarTupleType(item_type=item):
            return (_value(item, name),)
        case inspect.DictType(key_type=inspect.LiteralType(values=(key, *_)), value_type=value):
            return {key: _value(value, name)}
        case inspect.DictType(value_type=inspect.FloatType()):
            return {"hat": 0.25}
        case inspect.DictType():
            return {"torch": "2.11"}
        case _:
            raise NotImplementedError(kind)


TEXTS = {"separator": ", "}
NUMBERS = {"template": 2}
"""Values of fields that may not have any."""
DIGESTS = frozenset(
    (
        *("source", "picture", "thumbnail", "pixels", "cut", "manifest", "pages", "base"),
        *("checkpoint", "digest", "tensors", "model", "tags", "blobs", "blob"),
    )
)
