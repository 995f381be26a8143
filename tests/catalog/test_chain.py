"""The hash chains: every forged history is detected."""

from collections.abc import Sequence

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from catalog.archive.chain import ArchiveRow, ChainVerification, chain_hash, verify_chains
from contracts.commits import RecordedCommit
from contracts.events.log import LogVoided
from tests.catalog.log_builder import LogBuilder, full_history

HISTORY = full_history().commits
SIGNATURE = "key.signature"


def build_rows(commits: Sequence[RecordedCommit]) -> list[ArchiveRow]:
    """Rows as in the archive, with the chain computed over the commits as they are now."""
    rows: list[ArchiveRow] = []
    chain = b""
    for recorded in commits:
        commit = recorded.commit
        chain = chain_hash(chain, recorded.sequence, recorded.subject, SIGNATURE, recorded.body)
        columns = (commit.aggregate_kind, commit.aggregate_id, commit.id)
        rows.append((recorded.sequence, *columns, recorded.body, chain, SIGNATURE, ""))
    return rows


def verify(rows: Sequence[ArchiveRow]) -> ChainVerification:
    verification = ChainVerification()
    verify_chains(rows, verification)
    return verification


def forge(sequence: int) -> list[RecordedCommit]:
    """The history with another actor in one commit; `build_rows` recomputes the log's chain after it."""
    original = HISTORY[sequence - 1]
    body = original.body.replace(b'"user:ann"', b'"user:bob"').replace(b"svc:tagger/t1", b"svc:tagger/t9")
    assert body != original.body
    return [*HISTORY[: sequence - 1], msgspec.structs.replace(original, body=body), *HISTORY[sequence:]]


def test_an_unchanged_history_is_intact() -> None:
    verification = verify(build_rows(HISTORY))
    assert verification.damage is None
    assert verification.tail.sequence == len(HISTORY)
    assert set(verification.chain_heads) == {
        (recorded.commit.aggregate_kind, recorded.commit.aggregate_id) for recorded in HISTORY
    }


@given(st.integers(0, len(HISTORY) - 1), st.data())
def test_a_change_of_any_byte_of_any_body_is_detected(index: int, data: st.DataObject) -> None:
    rows = build_rows(HISTORY)
    sequence, kind, aggregate_id, commit_id, body, chain, *rest = rows[index]
    offset = data.draw(st.integers(0, len(body) - 1))
    changed = body[:offset] + bytes([body[offset] ^ data.draw(st.integers(1, 255))]) + body[offset + 1 :]
    rows[index] = (sequence, kind, aggregate_id, commit_id, changed, chain, rest[0], rest[1])
    damage = verify(rows).damage
    assert damage is not None
    assert (damage.kind, damage.first_bad) == ("changed", index + 1)


def test_recomputing_the_logs_chain_is_detected_by_the_aggregates_next_commit() -> None:
    """Only the log itself, or a head, can show a change of a commit that no later one refers to.

    That holds before a void commit, too, which replaces a lost one of any aggregate.
    """
    void = next(one.sequence for one in HISTORY if isinstance(one.commit.events[0], LogVoided))
    for recorded in HISTORY:
        later = (one for one in HISTORY[recorded.sequence :] if aggregate_of(one) == aggregate_of(recorded))
        following = next(later, None)
        damage = verify(build_rows(forge(recorded.sequence))).damage
        if following is None or recorded.sequence < void < following.sequence:
            assert damage is None
        else:
            assert damage is not None
            assert (damage.kind, damage.first_bad) == ("rewritten", recorded.sequence)


def aggregate_of(recorded: RecordedCommit) -> tuple[str, str]:
    return recorded.commit.aggregate_kind, recorded.commit.aggregate_id


def test_a_skipped_version_is_detected() -> None:
    builder = LogBuilder()
    builder.create_dataset()
    skipped = builder.edit_tags(0, add=["a"])
    commit = msgspec.structs.replace(skipped.commit, version=skipped.commit.version + 1)
    body = msgspec.json.encode(commit)
    rows = build_rows([*builder.commits[:2], msgspec.structs.replace(skipped, commit=commit, body=body)])
    damage = verify(rows).damage
    assert damage is not None
    assert (damage.kind, damage.first_bad) == ("rewritten", 2)


def test_a_void_commit_in_place_of_a_lost_one_keeps_the_history_valid() -> None:
    builder = LogBuilder()
    builder.create_dataset()
    builder.edit_tags(0, add=["lost"])
    builder.edit_tags(0, add=["kept"])
    builder.edit_tags(0, add=["after"])
    with_void = LogBuilder()
    with_void.commits = builder.commits[:2]
    with_void.append("log", "void-3", LogVoided(reason="no copy has it"))
    commits = [*with_void.commits, *builder.commits[3:]]
    assert verify(build_rows(commits)).damage is None
