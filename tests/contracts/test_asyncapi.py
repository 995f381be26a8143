"""The document of the bus hangs together; it was also checked once against the JSON Schema of AsyncAPI 3.0.0."""

import re
from typing import Any, get_args

import pytest

from contracts import subjects
from contracts.asyncapi import asyncapi
from contracts.commands import FAMILIES
from contracts.events import AnyFact
from contracts.queries import GetJob, ListEvents, name_of
from contracts.wire.permissions import FACTS

DOCUMENT = asyncapi("1.2.3")


def resolved(reference: str) -> Any:
    place = DOCUMENT
    for step in reference.removeprefix("#/").split("/"):
        place = place[step]
    return place


def references(part: Any) -> list[str]:
    if isinstance(part, dict):
        own = [part["$ref"]] if "$ref" in part else []
        return own + [found for value in part.values() for found in references(value)]
    return [found for value in part for found in references(value)] if isinstance(part, list) else []


def test_every_reference_leads_somewhere() -> None:
    found = references(DOCUMENT)
    assert len(found) > 300
    assert all(resolved(reference) for reference in found)


def test_every_message_is_on_a_channel_and_every_channel_is_used() -> None:
    on_channels = {ref for channel in DOCUMENT["channels"].values() for ref in references(channel["messages"])}
    assert on_channels == {f"#/components/messages/{name}" for name in DOCUMENT["components"]["messages"]}
    used = {operation["channel"]["$ref"] for operation in DOCUMENT["operations"].values()}
    used |= {one["reply"]["channel"]["$ref"] for one in DOCUMENT["operations"].values() if "reply" in one}
    assert used == {f"#/channels/{name}" for name in DOCUMENT["channels"]}


def test_addresses_name_their_parameters() -> None:
    for channel in DOCUMENT["channels"].values():
        assert set(re.findall(r"\{(\w+)\}", channel["address"] or "")) == set(channel.get("parameters", {}))


def test_what_is_asked_is_answered_or_refused() -> None:
    for operation in DOCUMENT["operations"].values():
        if operation["action"] == "receive":
            answer, refusal = operation["reply"]["messages"]
            assert answer["$ref"].startswith("#/channels/answers/")
            assert refusal["$ref"] == "#/channels/answers/messages/refused"


def test_all_kinds_of_things_commands_and_questions_are_there() -> None:
    addresses = {channel["address"] for channel in DOCUMENT["channels"].values()}
    assert {subjects.fact(kind, "{id}") for kinds in FACTS.values() for kind in kinds} <= addresses
    assert {subjects.command("catalog", family) for family in FAMILIES.values()} <= addresses
    assert {subjects.query("catalog", name_of(query)) for query in (GetJob, ListEvents)} <= addresses
    assert {subjects.NEWS, subjects.ERASED, subjects.metrics("{id}"), subjects.nudge("{class}", "{id}")} <= addresses  # type: ignore[arg-type]


@pytest.mark.parametrize("fact", get_args(AnyFact))
def test_every_fact_is_on_the_channel_of_its_kind(fact: Any) -> None:
    kind = str(fact.__struct_config__.tag).partition(".")[0]
    assert f"#/components/schemas/{fact.__name__}" in references(DOCUMENT["components"]["messages"][f"commit.{kind}"])
