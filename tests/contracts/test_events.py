"""The disk and wire formats: events written earlier still decode, and commands refuse unknown fields.

`tests/golden/` has a line for each event type, written once and never changed; a new type gets a new line.
"""

import importlib
import json
import pkgutil
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest

from contracts import events
from contracts.aggregates import REGISTRY, AggregateKind, AnyCommandResult, AnyEvent, CommandEnvelope, Registry
from contracts.commands.base import Command, CommandMetadata, CommandResult, result_type_of
from contracts.commits import commit_id, decode
from contracts.errors import LogDamaged, SetupError
from contracts.events.base import Event
from contracts.events.datasets import DatasetCreated, ImageAdded
from contracts.events.presets import PresetRetired
from contracts.evolution import upcast
from tests.contracts.samples import AT, sample_of

GOLDEN = Path(__file__).parent.parent / "golden"
KINDS = tuple(REGISTRY.by_name)
ANY = msgspec.json.Decoder(AnyEvent)


def lines(name: str) -> list[str]:
    return (GOLDEN / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()


def classes(kind: str) -> tuple[type[Event], ...]:
    return REGISTRY.by_name[kind].event_types


def tag_of(kind: type[msgspec.Struct]) -> str:
    return str(kind.__struct_config__.tag)


EVENT_LINES = [(kind, line) for kind in KINDS for line in lines(kind)]


@pytest.mark.parametrize("kind", KINDS)
def test_every_event_type_has_a_golden_line(kind: str) -> None:
    assert {json.loads(line)["type"] for line in lines(kind)} == {tag_of(one) for one in classes(kind)}
    assert all(tag_of(one).split(".")[0] == kind for one in classes(kind))


def test_every_event_type_is_in_a_union() -> None:
    modules = pkgutil.iter_modules(events.__path__, "contracts.events.")
    defined = [one for module in modules for one in vars(importlib.import_module(module.name)).values()]
    concrete = {one for one in defined if isinstance(one, type) and issubclass(one, Event) and "." in tag_of(one)}
    assert concrete == set(get_args(AnyEvent))


def test_a_kind_an_event_or_a_command_registered_twice_is_refused() -> None:
    log, job = REGISTRY.by_name["log"], REGISTRY.by_name["job"]
    with pytest.raises(SetupError, match="the aggregate kind 'log' is registered twice"):
        Registry((log, log))
    with pytest.raises(SetupError, match=r"the event 'log.created' is registered twice, by the kinds 'log' and 'book'"):
        Registry((log, AggregateKind("book", log.events)))
    with pytest.raises(SetupError, match="the command CreateJob is registered twice"):
        Registry((job, AggregateKind("work", PresetRetired, job.commands)))


def test_a_command_of_no_kind_is_refused_by_name() -> None:
    class DoNothing(Command[CommandResult], frozen=True):
        pass

    with pytest.raises(SetupError, match=r"no aggregate kind of contracts/aggregates.py has the command DoNothing"):
        REGISTRY.kind_of(DoNothing)


def test_a_commit_of_an_unknown_kind_is_not_read() -> None:
    body = json.loads(lines("commit")[0]) | {"aggregate_kind": "book"}
    with pytest.raises(LogDamaged, match=r"commit 7 cannot be read: no aggregate kind .* is called 'book'"):
        decode(7, AT, json.dumps(body).encode())


def includes(now: object, written: object) -> bool:
    """Whether all that was written is still present, at every depth."""
    if isinstance(written, dict) and isinstance(now, dict):
        return all(name in now and includes(now[name], part) for name, part in written.items())
    return now == written


@pytest.mark.parametrize(("kind", "line"), EVENT_LINES)
def test_golden_lines_decode_without_loss(kind: str, line: str) -> None:
    written = upcast(json.loads(line), 1)
    event = ANY.decode(json.dumps(written))
    assert isinstance(event, classes(kind))
    # All that was written is unchanged; newer fields have their defaults.
    now = json.loads(msgspec.json.encode(event))
    assert includes(now, written)
    defaults = {each.encode_name for each in msgspec.structs.fields(type(event)) if not each.required}
    assert set(now) - set(written) <= defaults
    assert ANY.decode(msgspec.json.encode(event)) == event


@pytest.mark.parametrize(("kind", "line"), EVENT_LINES)
def test_unknown_fields_of_newer_events_are_ignored(kind: str, line: str) -> None:
    written = upcast(json.loads(line), 1)
    newer = written | {"invented_later": {"deep": [1, 2]}}
    assert ANY.decode(json.dumps(newer)) == ANY.decode(json.dumps(written))


def test_the_golden_commit_decodes() -> None:
    (line,) = lines("commit")
    recorded = decode(7, AT, line.encode())
    commit = recorded.commit
    assert commit.id == commit_id(commit.command_id, commit.aggregate_kind, commit.aggregate_id)
    assert [type(event) for event in commit.events] == [DatasetCreated, ImageAdded]
    assert msgspec.json.decode(commit.result, type=AnyCommandResult).id == commit.aggregate_id
    assert json.loads(msgspec.json.encode(commit)) == json.loads(line)
    newer = json.dumps(json.loads(line) | {"invented_later": 1}, separators=(",", ":"))
    assert decode(7, AT, newer.encode()).commit == commit


def test_a_commit_with_only_its_required_fields_decodes() -> None:
    (line,) = lines("commit")
    written = json.loads(line)
    needed = ("id", "aggregate_kind", "aggregate_id", "version", "at", "actor", "command_id", "events")
    bare = decode(7, AT, json.dumps({name: written[name] for name in needed}).encode()).commit
    assert (bare.fingerprint, bare.previous_hash, bytes(bare.result)) == ("", "", b"null")


@pytest.mark.parametrize(
    "change",
    [{"events": [{"type": "dataset.exploded"}]}, {"aggregate_kind": "spaceship"}, {"version": "one"}, {"id": None}],
)
def test_an_undecodable_commit_stops_the_reader(change: dict[str, object]) -> None:
    (line,) = lines("commit")
    with pytest.raises(LogDamaged):
        decode(7, AT, json.dumps(json.loads(line) | change).encode())


def test_commits_of_one_command_in_different_aggregates_have_different_ids() -> None:
    command = decode(7, AT, lines("commit")[0].encode()).commit.command_id
    assert commit_id(command, "job", "x") != commit_id(command, "dataset", "x") != commit_id(command, "dataset", "y")
    assert commit_id(command, "job", "x", 1) != commit_id(command, "job", "x")


COMMAND_TYPES = list(REGISTRY.by_command)
RESULT_TYPES: tuple[type[CommandResult], ...] = get_args(AnyCommandResult)


@pytest.mark.parametrize("command_type", COMMAND_TYPES)
def test_commands_round_trip_and_unknown_fields_are_refused(command_type: type[msgspec.Struct]) -> None:
    commands: Any = REGISTRY.by_command[command_type].commands
    envelope_type: Any = CommandEnvelope[commands]
    sent = msgspec.json.encode(envelope_type(metadata=sample_of(CommandMetadata), command=sample_of(command_type)))
    assert msgspec.json.encode(msgspec.json.decode(sent, type=envelope_type)) == sent
    for place in ("command", "metadata", None):
        body = json.loads(sent)
        (body if place is None else body[place])["more"] = 1
        with pytest.raises(msgspec.ValidationError, match="unknown field"):
            msgspec.json.decode(json.dumps(body), type=envelope_type)


@pytest.mark.parametrize("command_type", COMMAND_TYPES)
def test_every_command_names_a_result_type_of_the_union(command_type: type[Command[Any]]) -> None:
    assert result_type_of(command_type) in RESULT_TYPES


def test_every_result_type_belongs_to_a_command() -> None:
    assert {result_type_of(command_type) for command_type in COMMAND_TYPES} == set(RESULT_TYPES)


@pytest.mark.parametrize("result_type", RESULT_TYPES)
def test_results_round_trip_through_the_union(result_type: type[CommandResult]) -> None:
    sent = sample_of(result_type)
    received = msgspec.json.decode(msgspec.json.encode(sent), type=AnyCommandResult)
    assert type(received) is result_type
    assert received == sent


def test_every_result_type_has_a_golden_line_and_decodes_without_loss() -> None:
    """Results are stored in commits, so their format is as permanent as that of events."""
    written = [json.loads(line) for line in lines("result")]
    assert {line["type"] for line in written} == {tag_of(result_type) for result_type in RESULT_TYPES}
    for line in written:
        result = msgspec.json.decode(json.dumps(line), type=AnyCommandResult)
        assert includes(json.loads(msgspec.json.encode(result)), line)
