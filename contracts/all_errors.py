"""All errors of a value that is to be decoded, where msgspec stops at the first: people fill in forms. Pure."""

import types
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Annotated, Any, Union, get_args, get_origin

import msgspec

from contracts.errors import FieldError
from contracts.validation import describe_decode_error, describe_message

MAX_ERRORS = 100
MAX_INSPECTED = 1000
"""Items of a list, or entries of an object, that are looked at one by one: a long list must not keep others waiting."""
_UNIONS = (Union, types.UnionType)
_LISTS = (list, tuple, set, frozenset)
Place = tuple[str | int, ...]


def find_errors(value: object, expected: Any) -> list[FieldError]:
    """What is wrong with a value of JSON, as `msgspec.convert` to this type would find it, at most MAX_ERRORS.

    In the order of the type's fields; of errors after MAX_INSPECTED items only the first. Something about a whole
    object is only said when nothing is wrong inside of it.
    """
    return list(islice(_errors(value, expected, ()), MAX_ERRORS))


def pointer_to(place: Place) -> str:
    """`("prompts", 0, "text")` → `/prompts/0/text` (RFC 6901)."""
    return "".join(f"/{str(part).replace('~', '~0').replace('/', '~1')}" for part in place)


def _errors(value: object, expected: Any, place: Place) -> Iterator[FieldError]:
    inside = False
    for error in _errors_inside(value, _plain(expected), place):
        inside = True
        yield error
    if inside:
        return
    try:
        msgspec.convert(value, expected)
    except msgspec.ValidationError as error:
        sentence = describe_decode_error(error, parent=_name(place), whole="the body")
        yield FieldError(pointer=pointer_to(place), message=sentence)


def _errors_inside(value: object, expected: Any, place: Place) -> Iterator[FieldError]:
    """Of the members of an object or the items of a list, as far as their types are known."""
    if isinstance(value, dict):
        struct = _struct_for(value, expected)
        if struct is not None:
            yield from _errors_of_members(value, struct, place)
        elif get_origin(expected) in (dict, Mapping):
            kind = get_args(expected)[1]
            for name, member in islice(value.items(), MAX_INSPECTED):
                yield from _errors(member, kind, (*place, name))
    elif isinstance(value, list) and (kind := _item_type(expected)) is not None:
        for index, item in enumerate(islice(value, MAX_INSPECTED)):
            yield from _errors(item, kind, (*place, index))


def _errors_of_members(value: dict[str, object], struct: type[msgspec.Struct], place: Place) -> Iterator[FieldError]:
    config, fields = struct.__struct_config__, msgspec.structs.fields(struct)
    for field in fields:
        if field.encode_name in value:
            yield from _errors(value[field.encode_name], field.type, (*place, field.encode_name))
        elif field.required:
            yield _member_error(place, field.encode_name, "missing required")
    if config.forbid_unknown_fields:
        known = {field.encode_name for field in fields} | {config.tag_field}
        for name in value:
            if name not in known:
                yield _member_error(place, name, "contains unknown")


def _member_error(place: Place, member: str, verb: str) -> FieldError:
    """In the words for the first error, which msgspec finds."""
    message = describe_message(f"Object {verb} field `{member}`", field=_name(place))
    return FieldError(pointer=pointer_to((*place, member)), message=message)


def _struct_for(value: dict[str, object], expected: Any) -> type[msgspec.Struct] | None:
    """The struct that the object is to become; of a union the one with its tag."""
    kinds = [_plain(one) for one in get_args(expected)] if get_origin(expected) in _UNIONS else [expected]
    structs = [one for one in kinds if isinstance(one, type) and issubclass(one, msgspec.Struct)]
    if len(structs) == 1:
        return structs[0]
    for struct in structs:
        config = struct.__struct_config__
        if config.tag_field is not None and value.get(config.tag_field) == config.tag:
            return struct
    return None


def _item_type(expected: Any) -> Any:
    """Of a list, or of a tuple of any length; None if it is neither."""
    kinds = [_plain(one) for one in get_args(expected)] if get_origin(expected) in _UNIONS else [expected]
    for kind in kinds:
        arguments = get_args(kind)
        if get_origin(kind) in _LISTS and (len(arguments) == 1 or arguments[1:] == (Ellipsis,)):
            return arguments[0]
    return None


def _plain(expected: Any) -> Any:
    """Without the constraints of `Annotated`."""
    return get_args(expected)[0] if get_origin(expected) is Annotated else expected


def _name(place: Place) -> str:
    """`("prompts", 0, "text")` → `prompts[0].text`."""
    name = ""
    for part in place:
        name += f"[{part}]" if isinstance(part, int) else f".{part}" if name else part
    return name
