"""The disk format: facts of yesterday still read, and wishes refuse what they do not know.

`tests/golden/` holds one line for each fact, written once and never changed; a new fact gets a new line.
"""

import json
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest

from contracts import commands, events
from contracts.commands import Command, Receipt
from contracts.errors import LogDamaged
from contracts.events import FACTS_OF, AnyFact, Fact, commit_id
from contracts.events.evolution import upcast
from contracts.subjects import Kind
from contracts.wire.log import decode
from tests.contracts.samples import AT, sample_of

GOLDEN = Path(__file__).parent.parent / "golden"
KINDS: tuple[Kind, ...] = get_args(Kind)
ANY = msgspec.json.Decoder(AnyFact)


def lines(name: str) -> list[str]:
    return (GOLDEN / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()


def classes(kind: Kind) -> tuple[type[Fact], ...]:
    union: Any = FACTS_OF[kind]
    return get_args(union) or (union,)


def tag_of(kind: type[msgspec.Struct]) -> str:
    return str(kind.__struct_config__.tag)


FACT_LINES = [(kind, line) for kind in KINDS for line in lines(kind)]


@pytest.mark.parametrize("kind", KINDS)
def test_every_fact_has_its_golden_line(kind: Kind) -> None:
    assert {json.loads(line)["type"] for line in lines(kind)} == {tag_of(one) for one in classes(kind)}
    assert all(tag_of(one).split(".")[0] == kind for one in classes(kind))


def test_no_fact_is_in_no_union() -> None:
    concrete = {
        one for one in vars(events).values() if isinstance(one, type) and issubclass(one, Fact) and "." in tag_of(one)
    }
    assert concrete == set(get_args(AnyFact))


def holds(now: object, written: object) -> bool:
    """Is all that was written there still, at every depth?"""
    if isinstance(written, dict) and isinstance(now, dict):
        return all(name in now and holds(now[name], part) for name, part in written.items())
    return now == written


@pytest.mark.parametrize(("kind", "line"), FACT_LINES)
def test_a_golden_line_still_says_what_it_said(kind: Kind, line: str) -> None:
    written = upcast(json.loads(line), 1)
    fact = ANY.decode(json.dumps(written))
    assert isinstance(fact, classes(kind))
    # What was written then is there now, word for word; newer fields stand at their defaults.
    now = json.loads(msgspec.json.encode(fact))
    assert holds(now, written)
    defaults = {each.encode_name for each in msgspec.structs.fields(type(fact)) if not each.required}
    assert set(now) - set(written) <= defaults
    assert ANY.decode(msgspec.json.encode(fact)) == fact


@pytest.mark.parametrize(("kind", "line"), FACT_LINES)
def test_facts_of_tomorrow_are_read_without_what_is_new(kind: Kind, line: str) -> None:
    written = upcast(json.loads(line), 1)
    newer = written | {"invented_later": {"deep": [1, 2]}}
    assert ANY.decode(json.dumps(newer)) == ANY.decode(json.dumps(written))


def test_an_envelope_still_reads() -> None:
    (line,) = lines("commit")
    stored = decode(7, AT, line.encode())
    commit = stored.commit
    assert commit.id == commit_id(commit.command, commit.kind, commit.thing)
    assert [type(fact) for fact in commit.facts] == [events.DatasetCreated, events.ImageAdded]
    assert msgspec.json.decode(commit.answer, type=Receipt).id == commit.thing
    assert json.loads(msgspec.json.encode(commit)) == json.loads(line)
    newer = json.dumps(json.loads(line) | {"invented_later": 1}, separators=(",", ":"))
    assert decode(7, AT, newer.encode()).commit == commit


def test_an_envelope_without_what_may_be_left_out_reads() -> None:
    (line,) = lines("commit")
    written = json.loads(line)
    needed = ("id", "kind", "thing", "version", "at", "actor", "command", "facts")
    bare = decode(7, AT, json.dumps({name: written[name] for name in needed}).encode()).commit
    assert (bare.fingerprint, bare.previous, bytes(bare.answer)) == ("", "", b"null")


@pytest.mark.parametrize(
    "change", [{"facts": [{"type": "dataset.exploded"}]}, {"kind": "spaceship"}, {"version": "one"}, {"id": None}]
)
def test_a_commit_that_is_not_understood_stops_whoever_reads_it(change: dict[str, object]) -> None:
    (line,) = lines("commit")
    with pytest.raises(LogDamaged):
        decode(7, AT, json.dumps(json.loads(line) | change).encode())


def test_the_commits_of_two_things_of_one_command_have_two_ids() -> None:
    command = decode(7, AT, lines("commit")[0].encode()).commit.command
    assert commit_id(command, "job", "x") != commit_id(command, "dataset", "x") != commit_id(command, "dataset", "y")
    assert commit_id(command, "job", "x", 1) != commit_id(command, "job", "x")


WISHES = [
    wish
    for union in (commands.DatasetWish, commands.TaggingWish, commands.PresetWish, commands.JobWish)
    for wish in get_args(union)
]


@pytest.mark.parametrize("wish", WISHES)
def test_a_wish_comes_over_the_wire_as_it_was_but_not_with_more(wish: type[msgspec.Struct]) -> None:
    family = next(kind for kind in get_args(Command) if wish in get_args(kind.__annotations__["wish"]))
    sent = msgspec.json.encode(family(origin=sample_of(commands.Origin), wish=sample_of(wish)))
    assert msgspec.json.encode(msgspec.json.decode(sent, type=family)) == sent
    for place in ("wish", "origin", None):
        body = json.loads(sent)
        (body if place is None else body[place])["more"] = 1
        with pytest.raises(msgspec.ValidationError, match="unknown field"):
            msgspec.json.decode(json.dumps(body), type=family)
