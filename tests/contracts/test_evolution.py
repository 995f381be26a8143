"""How facts may change: a change that old logs would not survive is noticed here, before it is released."""

import copy
import json
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec
import pytest

from contracts.asyncapi import asyncapi
from contracts.commands import Origin
from contracts.errors import LogDamaged
from contracts.events import SCHEMA, Commit, DatasetRenamed
from contracts.events.evolution import UPCASTERS, Raw, broken, read, upcast, version_of
from contracts.ids import CommandId
from contracts.schemas import facts_schema, shapes, undeclared
from contracts.wire.log import Head, decode, draw_up
from tests.contracts.samples import AT
from tests.contracts.test_events import ANY, GOLDEN, tag_of

DOCS = Path(__file__).parents[2] / "docs"
NOW = facts_schema()


def kept(name: str) -> Any:
    return json.loads((DOCS / name).read_text(encoding="utf-8"))


# --- what is declared


def test_no_fact_has_changed_without_a_new_version() -> None:
    assert undeclared(kept("facts.schema.json"), NOW) == []


def test_the_documents_say_what_the_types_say() -> None:
    assert kept("facts.schema.json") == NOW, "run `make schemas`"
    assert kept("asyncapi.json") == asyncapi(version("loratory")), "run `make schemas`"


def test_every_version_of_every_fact_has_a_golden_line_that_reads_today() -> None:
    """Version 1 stands in `<kind>.jsonl`, a later one in `<kind>.<version>.jsonl`."""
    for name in shapes(NOW):
        kind = name.partition(".")[0]
        for number in {1, *(before + 1 for known, before in UPCASTERS if known == name)}:
            file = GOLDEN / (f"{kind}.jsonl" if number == 1 else f"{kind}.{number}.jsonl")
            lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
            mine = [line for line in lines if line["type"] == name]
            assert mine, f"{file.name} has no line of {name}"
            for line in mine:
                assert tag_of(type(ANY.decode(json.dumps(upcast(line, number))))) == name


def test_every_upcaster_is_of_a_fact_there_is_and_of_a_schema_before_this_one() -> None:
    assert all(name in shapes(NOW) and 1 <= before < SCHEMA for name, before in UPCASTERS)


# --- what counts as a change


def changed(change: Callable[[Raw], object], part: str = "ImageAdded") -> list[str]:
    """What is wrong with the facts after somebody changed one of their parts."""
    now = copy.deepcopy(NOW)
    change(now["$defs"][part])
    return undeclared(NOW, now)


def without(name: str) -> Callable[[Raw], object]:
    def change(part: Raw) -> None:
        del part["properties"][name]
        part["required"] = [one for one in part["required"] if one != name]

    return change


def with_field(name: str, schema: Raw, *, required: bool = False) -> Callable[[Raw], object]:
    def change(part: Raw) -> None:
        part["properties"][name] = schema
        part["required"] = [*part["required"], *([name] if required else [])]

    return change


def test_what_old_facts_survive_is_no_change() -> None:
    assert not changed(with_field("place", {"type": "string", "default": ""}))
    assert not changed(lambda part: part.update(description="said better", title="Picture"))
    assert not changed(lambda part: part["properties"]["priority"]["enum"].append("urgent"), "JobQueued")
    assert not changed(with_field("note", {"type": "string", "default": ""}), "Artifact")


@pytest.mark.parametrize(
    ("part", "change", "told"),
    [
        ("ImageAdded", without("width"), "dataset.image_added.width is gone"),
        ("ImageAdded", with_field("width", {"type": "string"}), "type was 'integer' and is 'string'"),
        ("ImageAdded", with_field("place", {"type": "string"}, required=True), "is new and has no default"),
        ("ImageAdded", with_field("animated", {"type": "boolean"}, required=True), "must be given now"),
        ("ImageAdded", with_field("animated", {"type": "boolean", "default": True}), "its default was False"),
        ("JobQueued", with_field("priority", {"enum": ["high", "low"]}, required=True), "'normal' is not allowed"),
        ("Artifact", without("tensors"), "job.succeeded.artifacts[].tensors is gone"),
        ("Prediction", with_field("probability", {"type": "integer"}), "tagging.predicted"),
        ("CaptionSet", with_field("caption", {"type": "string"}), "dataset.caption_set.caption"),
        ("LoRA", without("rank"), "job.created.recipe"),
    ],
)
def test_what_old_facts_do_not_survive_is_told(part: str, change: Callable[[Raw], object], told: str) -> None:
    faults = changed(change, part)
    assert any(told in fault for fault in faults), faults


def test_a_fact_that_is_gone_or_renamed_is_told() -> None:
    now = copy.deepcopy(NOW)
    now["$defs"]["ImageAdded"]["properties"]["type"]["enum"] = ["dataset.picture_added"]
    assert undeclared(NOW, now) == ["dataset.image_added is gone; facts of it stand in logs for ever"]


def test_a_change_with_a_new_version_is_declared() -> None:
    def change(part: Raw) -> None:
        without("width")(part)
        part["x-version"] = 2

    assert not changed(change)


def test_nothing_is_broken_by_staying_as_it_is() -> None:
    assert all(not broken(shape, shape) for shape in shapes(NOW).values())


# --- how it is read


def titled(fact: Raw) -> Raw:
    """`name` was called `title` in schema 1."""
    return {"name": fact["title"], **{name: value for name, value in fact.items() if name != "title"}}


def tidied(fact: Raw) -> Raw:
    """Names were not stripped in schema 2."""
    return fact | {"name": fact["name"].strip()}


LATER = {("dataset.renamed", 1): titled, ("dataset.renamed", 2): tidied}


def body(fact: Raw, schema: int | None) -> bytes:
    origin = Origin(command=CommandId("c1"), actor="user:ann", at=AT)
    drawn = draw_up("dataset", "ds_1", [DatasetRenamed(name="x")], after=Head(), origin=origin)
    commit = json.loads(msgspec.json.encode(drawn)) | {"facts": [fact, {"type": "dataset.removed"}]}
    return json.dumps(commit if schema is None else commit | {"schema": schema}).encode()


def renamed(commit: Commit) -> str:
    (fact, _) = commit.facts
    assert isinstance(fact, DatasetRenamed)
    return fact.name


@pytest.mark.parametrize("schema", [None, 1])
def test_a_fact_of_the_first_schema_goes_through_every_upcaster(schema: int | None) -> None:
    commit = read(body({"type": "dataset.renamed", "title": " cats "}, schema), LATER, 3)
    assert (renamed(commit), commit.schema) == ("cats", 1)


def test_a_fact_of_a_schema_between_starts_there() -> None:
    assert renamed(read(body({"type": "dataset.renamed", "name": " cats "}, 2), LATER, 3)) == "cats"


def test_a_fact_of_today_meets_no_upcaster() -> None:
    assert renamed(read(body({"type": "dataset.renamed", "name": " cats "}, 3), LATER, 3)) == " cats "


def test_the_version_of_a_type_is_that_of_its_last_change() -> None:
    assert [version_of(name, LATER) for name in ("dataset.renamed", "dataset.removed")] == [3, 1]


@pytest.mark.parametrize("fact", [{"type": "dataset.renamed"}, {"type": "dataset.exploded"}])
def test_what_no_upcaster_mends_stops_the_reader(fact: Raw) -> None:
    with pytest.raises(msgspec.ValidationError):
        read(body(fact, 3), LATER, 3)
    with pytest.raises(msgspec.ValidationError):
        read(body(fact | {"title": 3}, 1), LATER, 3)
    with pytest.raises(msgspec.ValidationError):
        read(b'{"schema": 1}', LATER, 3)


@pytest.mark.parametrize("fact", [{"type": "dataset.renamed", "name": "cats"}, {"type": "dataset.exploded"}])
def test_a_commit_of_a_newer_schema_stops_the_reader_and_says_why(fact: Raw) -> None:
    with pytest.raises(LogDamaged, match=r"commit 7 .* upgrade it"):
        decode(7, AT, body(fact, SCHEMA + 1))


def test_what_is_written_now_says_its_schema_unless_that_is_the_first() -> None:
    origin = Origin(command=CommandId("c1"), actor="user:ann", at=AT)
    commit = draw_up("dataset", "ds_1", [DatasetRenamed(name="x")], after=Head(), origin=origin)
    assert commit.schema == SCHEMA
    assert json.loads(msgspec.json.encode(msgspec.structs.replace(commit, schema=2)))["schema"] == 2
    assert msgspec.json.decode(body({"type": "dataset.removed"}, None), type=Commit).schema == 1
