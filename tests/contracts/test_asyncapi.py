"""The AsyncAPI document is consistent; it was also validated once against the JSON Schema of AsyncAPI 3.0.0."""

import re
from typing import Any, get_args

import pytest

from contracts import subjects
from contracts.aggregates import REGISTRY, AnyEvent
from contracts.asyncapi import asyncapi
from contracts.queries.base import Query, query_name_of
from contracts.queries.jobs import GetJob
from contracts.queries.log import ListEvents
from contracts.telemetry import TELEMETRY

QUERIES: list[type[Query[Any]]] = [GetJob, ListEvents]
DOCUMENT = asyncapi("1.2.3")


def resolve(reference: str) -> Any:
    part = DOCUMENT
    for step in reference.removeprefix("#/").split("/"):
        part = part[step]
    return part


def find_references(part: Any) -> list[str]:
    if isinstance(part, dict):
        own = [part["$ref"]] if "$ref" in part else []
        return own + [found for value in part.values() for found in find_references(value)]
    return [found for value in part for found in find_references(value)] if isinstance(part, list) else []


def test_every_reference_can_be_resolved() -> None:
    references = find_references(DOCUMENT)
    assert len(references) > 300
    assert all(resolve(reference) for reference in references)


def test_every_message_is_on_a_channel_and_every_channel_is_used() -> None:
    on_channels = {ref for channel in DOCUMENT["channels"].values() for ref in find_references(channel["messages"])}
    assert on_channels == {f"#/components/messages/{name}" for name in DOCUMENT["components"]["messages"]}
    used = {operation["channel"]["$ref"] for operation in DOCUMENT["operations"].values()}
    used |= {one["reply"]["channel"]["$ref"] for one in DOCUMENT["operations"].values() if "reply" in one}
    assert used == {f"#/channels/{name}" for name in DOCUMENT["channels"]}


def test_channels_declare_the_parameters_of_their_addresses() -> None:
    for channel in DOCUMENT["channels"].values():
        assert set(re.findall(r"\{(\w+)\}", channel["address"] or "")) == set(channel.get("parameters", {}))


def test_every_operation_that_receives_replies_with_a_result_or_an_error() -> None:
    for operation in DOCUMENT["operations"].values():
        if operation["action"] == "receive":
            result, error = operation["reply"]["messages"]
            assert result["$ref"].startswith("#/channels/replies/")
            assert error["$ref"] == "#/channels/replies/messages/error"


def test_all_aggregate_kinds_commands_and_queries_have_a_channel() -> None:
    addresses = {channel["address"] for channel in DOCUMENT["channels"].values()}
    assert {subjects.aggregate(kind.name, "{id}") for kind in REGISTRY.kinds} <= addresses
    assert {subjects.command(kind.owner, kind.name) for kind in REGISTRY.kinds if kind.commands} <= addresses
    assert {subjects.query("catalog", query_name_of(query)) for query in QUERIES} <= addresses
    assert {kind.address for kind in TELEMETRY} <= addresses
    assert {"met.job.{id}", "ctl.{class}.{id}"} <= addresses


@pytest.mark.parametrize("event_type", get_args(AnyEvent))
def test_every_event_is_on_the_channel_of_its_aggregate_kind(event_type: Any) -> None:
    kind = str(event_type.__struct_config__.tag).partition(".")[0]
    assert f"#/components/schemas/{event_type.__name__}" in find_references(
        DOCUMENT["components"]["messages"][f"commit.{kind}"]
    )
