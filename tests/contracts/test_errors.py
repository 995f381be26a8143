"""The table of errors in the docstring of `contracts.errors` is complete, and agrees with the gateway's."""

import re
from typing import NamedTuple

import pytest

from contracts import errors
from contracts.errors import BY_CODE, ErrorReply, LoratoryError
from gateway.http.problems import STATUS_BY_ERROR, status_of

NEVER_OVER_HTTP = "-"


class DocumentedError(NamedTuple):
    """One line of the table: class, code, HTTP status."""

    name: str
    code: str
    status: str


PATTERN = re.compile(r"^ +(?:[├└]── )?(\w+) +([\w-]+) +\[(\d+|-)\]", re.MULTILINE)


def documented_errors() -> list[DocumentedError]:
    return [DocumentedError(*found) for found in PATTERN.findall(errors.__doc__ or "")]


def test_the_table_lists_exactly_the_error_classes_with_their_codes() -> None:
    assert sorted((documented.name, documented.code) for documented in documented_errors()) == sorted(
        (kind.__name__, code) for code, kind in BY_CODE.items()
    )


def test_the_tree_of_the_table_is_the_class_hierarchy() -> None:
    assert documented_errors()[0].name == LoratoryError.__name__
    for documented in documented_errors()[1:]:
        assert BY_CODE[documented.code].__bases__ == (LoratoryError,)


@pytest.mark.parametrize("documented", documented_errors(), ids=lambda documented: documented.name)
def test_the_table_has_the_http_status_of_the_gateway(documented: DocumentedError) -> None:
    kind = BY_CODE[documented.code]
    if documented.status == NEVER_OVER_HTTP:
        assert kind not in STATUS_BY_ERROR
    else:
        assert status_of(kind()) == int(documented.status)


@pytest.mark.parametrize("kind", BY_CODE.values(), ids=lambda kind: kind.__name__)
def test_errors_keep_type_detail_and_extra_members_over_the_bus(kind: type[LoratoryError]) -> None:
    sent = kind("a reason", service="nats")
    received = ErrorReply.from_error(sent).to_error()
    assert (type(received), received.detail, received.extra) == (kind, "a reason", {"service": "nats"})


@pytest.mark.parametrize("kind", BY_CODE.values(), ids=lambda kind: kind.__name__)
def test_the_docstring_of_a_class_is_its_default_message(kind: type[LoratoryError]) -> None:
    assert kind().detail == str(kind()) == kind.__doc__
