"""Schema evolution of events: a change that would break existing logs is detected here, before a release."""

import copy
import json
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec
import pytest

from contracts.asyncapi import asyncapi
from contracts.commands.base import CommandMetadata
from contracts.commits import Commit, StreamRevision, build_commit, decode, decode_commit, decode_event
from contracts.errors import LogDamaged
from contracts.events.base import SCHEMA
from contracts.events.datasets import DatasetRenamed
from contracts.events.jobs import JobCreated
from contracts.events.presets import PresetSaved
from contracts.evolution import (
    RECIPE_UPCASTERS,
    UPCASTERS,
    Raw,
    RecipeUpcasters,
    has_other_recipe,
    upcast,
    upcast_recipe,
)
from contracts.ids import CommandId
from contracts.recipe import RECIPE_VERSION, Recipe
from tests.contracts.samples import AT
from tests.contracts.test_events import ANY, GOLDEN, tag_of
from tools.event_schema import breaking_changes, events_schema, schema_version_of, shapes, undeclared_changes

DOCS = Path(__file__).parents[2] / "docs"
NOW = events_schema()


def read_document(name: str) -> Any:
    return json.loads((DOCS / name).read_text(encoding="utf-8"))


# --- declared versions


def test_no_event_has_changed_without_a_new_schema_version() -> None:
    assert undeclared_changes(read_document("events.schema.json"), NOW) == []


def test_the_documents_match_the_types() -> None:
    assert read_document("events.schema.json") == NOW, "run `make schemas`"
    assert read_document("asyncapi.json") == asyncapi(version("loratory")), "run `make schemas`"


def test_every_version_of_every_event_has_a_golden_line_that_decodes() -> None:
    """Version 1 is in `<kind>.jsonl`, a later one in `<kind>.<version>.jsonl`."""
    for name in shapes(NOW):
        kind = name.partition(".")[0]
        for number in {1, *(before + 1 for known, before in UPCASTERS if known == name)}:
            file = GOLDEN / (f"{kind}.jsonl" if number == 1 else f"{kind}.{number}.jsonl")
            lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
            lines_of_type = [line for line in lines if line["type"] == name]
            assert lines_of_type, f"{file.name} has no line of {name}"
            for line in lines_of_type:
                assert tag_of(type(ANY.decode(json.dumps(upcast(line, number))))) == name


def test_every_upcaster_belongs_to_an_existing_event_and_an_earlier_schema() -> None:
    assert all(name in shapes(NOW) and 1 <= before < SCHEMA for name, before in UPCASTERS)


# --- compatibility of changes


def faults_after(change: Callable[[Raw], object], part: str = "ImageAdded") -> list[str]:
    """The faults reported after a change of one part of the schema."""
    now = copy.deepcopy(NOW)
    change(now["$defs"][part])
    return undeclared_changes(NOW, now)


def without_field(name: str) -> Callable[[Raw], object]:
    def change(part: Raw) -> None:
        del part["properties"][name]
        part["required"] = [one for one in part["required"] if one != name]

    return change


def with_field(name: str, schema: Raw, *, required: bool = False) -> Callable[[Raw], object]:
    def change(part: Raw) -> None:
        part["properties"][name] = schema
        part["required"] = [*part["required"], *([name] if required else [])]

    return change


def test_compatible_changes_are_no_faults() -> None:
    assert not faults_after(with_field("place", {"type": "string", "default": ""}))
    assert not faults_after(lambda part: part.update(description="worded better", title="Picture"))
    assert not faults_after(lambda part: part["properties"]["priority"]["enum"].append("urgent"), "JobQueued")
    assert not faults_after(with_field("note", {"type": "string", "default": ""}), "Artifact")


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        ("ImageAdded", without_field("width"), "dataset.image_added.width was removed"),
        ("ImageAdded", with_field("width", {"type": "string"}), "type was 'integer' and is 'string'"),
        ("ImageAdded", with_field("place", {"type": "string"}, required=True), "is new and has no default"),
        ("ImageAdded", with_field("animated", {"type": "boolean"}, required=True), "became required"),
        ("ImageAdded", with_field("animated", {"type": "boolean", "default": True}), "its default was False"),
        (
            "JobQueued",
            with_field("priority", {"enum": ["high", "low"]}, required=True),
            "'normal' is no longer allowed",
        ),
        ("Artifact", without_field("tensors"), "job.succeeded.artifacts[].tensors was removed"),
        ("Prediction", with_field("probability", {"type": "integer"}), "tagging.predicted"),
        ("CaptionSet", with_field("caption", {"type": "string"}), "dataset.caption_set.caption"),
        ("LoRA", without_field("rank"), "job.created.recipe"),
    ],
)
def test_incompatible_changes_are_reported(part: str, change: Callable[[Raw], object], message: str) -> None:
    faults = faults_after(change, part)
    assert any(message in fault for fault in faults), faults


def test_a_removed_or_renamed_event_is_reported() -> None:
    now = copy.deepcopy(NOW)
    now["$defs"]["ImageAdded"]["properties"]["type"]["enum"] = ["dataset.picture_added"]
    assert undeclared_changes(NOW, now) == [
        "dataset.image_added was removed, but events of this type remain in existing logs"
    ]


def test_a_change_with_a_new_version_is_declared() -> None:
    def change(part: Raw) -> None:
        without_field("width")(part)
        part["x-version"] = 2

    assert not faults_after(change)


def test_unchanged_shapes_have_no_breaking_changes() -> None:
    assert all(not breaking_changes(shape, shape) for shape in shapes(NOW).values())


def test_a_recipe_of_a_new_version_is_declared_by_its_own_number() -> None:
    def change(part: Raw) -> None:
        without_field("seed")(part)
        part["properties"]["version"] = {"enum": [RECIPE_VERSION + 1], "default": RECIPE_VERSION + 1}

    assert not faults_after(change, "Recipe")
    assert any("recipe.seed was removed" in fault for fault in faults_after(without_field("seed"), "Recipe"))


# --- recipes

RECIPE_LINES = [
    (version, json.loads(line))
    for version in range(1, RECIPE_VERSION)
    for line in (GOLDEN / f"recipe.{version}.jsonl").read_text(encoding="utf-8").splitlines()
]


def recipe_commit(event: Raw) -> bytes:
    kind = event["type"].partition(".")[0]
    return encode_commit(event, SCHEMA, kind, others=[])


@pytest.mark.parametrize(("version", "event"), RECIPE_LINES)
def test_a_recipe_of_an_older_version_reads(version: int, event: Raw) -> None:
    assert event["recipe"].get("version", 1) == version
    recipes = [
        one.recipe
        for written in (recipe_commit(event), json.dumps(json.loads(recipe_commit(event)), separators=(",", ":")))
        for one in decode(7, AT, written if isinstance(written, bytes) else written.encode()).commit.events
        if isinstance(one, PresetSaved | JobCreated)
    ]
    recipes += [one.recipe for one in [decode_event(json.dumps(event).encode(), 1)] if isinstance(one, PresetSaved)]
    for recipe in recipes:
        assert recipe.version == RECIPE_VERSION
        assert recipe.seed == event["recipe"]["seed"]
        base = {"name": "tiny-random"} | event["recipe"]["base"]
        assert msgspec.to_builtins(recipe.base) == (base if base["type"] == "builtin" else event["recipe"]["base"])


def test_there_is_an_upcaster_and_a_golden_line_for_each_older_recipe() -> None:
    older = set(range(1, RECIPE_VERSION))
    assert set(RECIPE_UPCASTERS) == older == {version for version, _ in RECIPE_LINES}


def test_a_recipe_passes_the_upcasters_from_its_version_on() -> None:
    upcasters: RecipeUpcasters = {
        1: lambda recipe: recipe | {"seen": [1]},
        2: lambda recipe: recipe | {"seen": [*recipe.get("seen", ()), 2]},
    }
    assert upcast_recipe({}, upcasters, 3) == {"seen": [1, 2], "version": 3}
    assert upcast_recipe({"version": 2}, upcasters, 3) == {"seen": [2], "version": 3}
    assert upcast_recipe({"version": 3}, upcasters, 3) == {"version": 3}


def test_a_recipe_of_a_newer_version_stops_the_reader_with_a_reason() -> None:
    event = RECIPE_LINES[0][1]
    newer = event | {"recipe": event["recipe"] | {"version": RECIPE_VERSION + 1}}
    with pytest.raises(LogDamaged, match=r"commit 7 cannot be read: its recipe was written with version .* upgrade"):
        decode(7, AT, recipe_commit(newer))


def test_a_recipe_is_recorded_with_its_version_first_so_that_it_is_decoded_once() -> None:
    saved = msgspec.to_builtins(PresetSaved(name="mine", recipe=Recipe()))
    assert not has_other_recipe(msgspec.json.encode(saved))
    assert has_other_recipe(msgspec.json.encode(saved | {"recipe": {"base": {}}}))
    assert not has_other_recipe(b'{"name":"a \\"recipe\\": {"}')


# --- decoding and upcasting


def rename_title(event: Raw) -> Raw:
    """`name` was called `title` in schema 1."""
    return {"name": event["title"], **{name: value for name, value in event.items() if name != "title"}}


def strip_name(event: Raw) -> Raw:
    """Names were not stripped in schema 2."""
    return event | {"name": event["name"].strip()}


UPCASTERS_TO_3 = {("dataset.renamed", 1): rename_title, ("dataset.renamed", 2): strip_name}


def encode_commit(
    event: Raw, schema: int | None, kind: str = "dataset", others: Sequence[Raw] = ({"type": "dataset.removed"},)
) -> bytes:
    metadata = CommandMetadata(command_id=CommandId("c1"), actor="user:ann", at=AT)
    template = build_commit(
        "dataset", "ds_1", [DatasetRenamed(name="x")], expected_revision=StreamRevision(), metadata=metadata
    )
    commit = json.loads(msgspec.json.encode(template)) | {"aggregate_kind": kind, "events": [event, *others]}
    return json.dumps(commit if schema is None else commit | {"schema": schema}).encode()


def new_name(commit: Commit) -> str:
    (event, _) = commit.events
    assert isinstance(event, DatasetRenamed)
    return event.name


@pytest.mark.parametrize("schema", [None, 1])
def test_an_event_of_the_first_schema_passes_every_upcaster(schema: int | None) -> None:
    commit = decode_commit(encode_commit({"type": "dataset.renamed", "title": " cats "}, schema), UPCASTERS_TO_3, 3)
    assert (new_name(commit), commit.schema) == ("cats", 1)


def test_an_event_of_a_middle_schema_passes_only_later_upcasters() -> None:
    assert (
        new_name(decode_commit(encode_commit({"type": "dataset.renamed", "name": " cats "}, 2), UPCASTERS_TO_3, 3))
        == "cats"
    )


def test_an_event_of_the_current_schema_passes_no_upcaster() -> None:
    assert (
        new_name(decode_commit(encode_commit({"type": "dataset.renamed", "name": " cats "}, 3), UPCASTERS_TO_3, 3))
        == " cats "
    )


def test_the_version_of_a_type_is_that_of_its_last_change() -> None:
    assert [schema_version_of(name, UPCASTERS_TO_3) for name in ("dataset.renamed", "dataset.removed")] == [3, 1]


@pytest.mark.parametrize("event", [{"type": "dataset.renamed"}, {"type": "dataset.exploded"}])
def test_an_event_that_cannot_be_upcast_stops_the_reader(event: Raw) -> None:
    with pytest.raises(msgspec.ValidationError):
        decode_commit(encode_commit(event, 3), UPCASTERS_TO_3, 3)
    with pytest.raises(msgspec.ValidationError):
        decode_commit(encode_commit(event | {"title": 3}, 1), UPCASTERS_TO_3, 3)
    with pytest.raises(msgspec.ValidationError):
        decode_commit(b'{"schema": 1}', UPCASTERS_TO_3, 3)


@pytest.mark.parametrize("event", [{"type": "dataset.renamed", "name": "cats"}, {"type": "dataset.exploded"}])
def test_a_commit_of_a_newer_schema_stops_the_reader_with_a_reason(event: Raw) -> None:
    with pytest.raises(LogDamaged, match=r"commit 7 .* upgrade Loratory"):
        decode(7, AT, encode_commit(event, SCHEMA + 1))


def test_commits_name_their_schema_unless_it_is_the_first() -> None:
    metadata = CommandMetadata(command_id=CommandId("c1"), actor="user:ann", at=AT)
    commit = build_commit(
        "dataset", "ds_1", [DatasetRenamed(name="x")], expected_revision=StreamRevision(), metadata=metadata
    )
    assert commit.schema == SCHEMA
    assert json.loads(msgspec.json.encode(msgspec.structs.replace(commit, schema=2)))["schema"] == 2
    assert msgspec.json.decode(encode_commit({"type": "dataset.removed"}, None), type=Commit).schema == 1
