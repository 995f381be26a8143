"""The chains, as pure arithmetic: what is forged is found, however well."""

from collections.abc import Sequence

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from catalog.archive.chain import Row, Walk, link, walk
from contracts import events as e
from contracts.events import Stored
from tests.catalog.histories import Scribe, everything

HISTORY = everything().commits


def rows_of(commits: Sequence[Stored]) -> list[Row]:
    """As the archive would hold them, with a chain computed over what they are now."""
    rows: list[Row] = []
    chain = b""
    for stored in commits:
        commit = stored.commit
        chain = link(chain, stored.sequence, f"evt.{commit.kind}.{commit.thing}", stored.body)
        rows.append((stored.sequence, commit.kind, commit.thing, commit.id, stored.body, chain))
    return rows


def walked(rows: Sequence[Row]) -> Walk:
    found = Walk()
    walk(rows, found)
    return found


def forged(sequence: int) -> list[Stored]:
    """Another actor, and all hashes of the log's chain after it computed anew."""
    victim = HISTORY[sequence - 1]
    body = victim.body.replace(b'"user:ann"', b'"user:bob"').replace(b"svc:tagger/t1", b"svc:tagger/t9")
    assert body != victim.body
    return [*HISTORY[: sequence - 1], msgspec.structs.replace(victim, body=body), *HISTORY[sequence:]]


def test_what_was_never_touched_is_whole() -> None:
    found = walked(rows_of(HISTORY))
    assert found.damage is None
    assert found.tail.sequence == len(HISTORY)
    assert set(found.things) == {(stored.commit.kind, stored.commit.thing) for stored in HISTORY}


@given(st.integers(0, len(HISTORY) - 1), st.data())
def test_any_byte_of_any_body_counts(place: int, data: st.DataObject) -> None:
    rows = rows_of(HISTORY)
    sequence, kind, thing, commit, body, chain = rows[place]
    where = data.draw(st.integers(0, len(body) - 1))
    changed = body[:where] + bytes([body[where] ^ data.draw(st.integers(1, 255))]) + body[where + 1 :]
    rows[place] = (sequence, kind, thing, commit, changed, chain)
    damage = walked(rows).damage
    assert damage is not None
    assert (damage.kind, damage.first_bad) == ("changed", place + 1)


def test_who_computes_the_log_s_chain_anew_is_betrayed_by_the_next_commit_of_the_thing() -> None:
    last_of = {(stored.commit.kind, stored.commit.thing): stored.sequence for stored in HISTORY}
    for stored in HISTORY:
        thing = stored.commit.kind, stored.commit.thing
        damage = walked(rows_of(forged(stored.sequence))).damage
        if stored.sequence == last_of[thing]:
            assert damage is None  # nobody builds on it: only the log itself, or a head, can tell
        else:
            assert damage is not None
            assert (damage.kind, damage.first_bad) == ("rewritten", stored.sequence)


def test_facts_that_were_left_out_are_missed_by_the_next_version() -> None:
    scribe = Scribe()
    scribe.dataset()
    skipped = scribe.edit(0, add=["a"])
    commit = msgspec.structs.replace(skipped.commit, version=skipped.commit.version + 1)
    body = msgspec.json.encode(commit)
    rows = rows_of([*scribe.commits[:2], msgspec.structs.replace(skipped, commit=commit, body=body)])
    damage = walked(rows).damage
    assert damage is not None
    assert (damage.kind, damage.first_bad) == ("rewritten", 2)


def test_a_void_in_place_of_a_lost_commit_lets_its_thing_go_on() -> None:
    scribe = Scribe()
    scribe.dataset()
    scribe.edit(0, add=["lost"])
    scribe.edit(0, add=["kept"])
    scribe.edit(0, add=["after"])
    void = Scribe()
    void.commits = scribe.commits[:2]
    void.write("log", "void-3", e.LogVoided(reason="no copy has it"))
    commits = [*void.commits, *scribe.commits[3:]]
    assert walked(rows_of(commits)).damage is None
