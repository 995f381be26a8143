"""What every commit log does: the one on a real nats-server, and its double in memory."""

import asyncio

import pytest

from contracts.commits import (
    MAX_ATOMIC_COMMITS,
    CommitLog,
    revision_of,
)
from contracts.errors import Conflict, KeyReused, TooLarge
from contracts.events.datasets import DatasetCreated, DatasetRenamed
from contracts.testing import MemoryLog
from contracts.wire.log.event_log import EventLog
from contracts.wire.service.bus import Bus
from tests.conftest import BusOf
from tests.contracts.builders import append_renames, build_creation, build_draft, build_rename


@pytest.fixture
async def bus(bus_of: BusOf) -> Bus:
    return await bus_of("catalog")


@pytest.fixture(params=["jetstream", "memory"])
def log(request: pytest.FixtureRequest) -> CommitLog:
    return EventLog(request.getfixturevalue("bus")) if request.param == "jetstream" else MemoryLog()


async def end_of(log: CommitLog) -> int:
    """A log on a server begins with a commit of the migrate step."""
    return (await log.end())[1]


async def test_appended_commits_are_loaded(log: CommitLog) -> None:
    created, renamed = DatasetCreated(name="cats"), DatasetRenamed(name="dogs")
    first = await log.append(*build_draft("ds_1", created))
    await log.append(*build_draft("ds_1", renamed, revision_of(first)))
    history = await log.load("dataset", "ds_1")
    assert [event for event, _ in history.events()] == [created, renamed]
    assert history.revision.version == 2
    assert history.commits[1].commit.previous_hash == revision_of(history.commits[0]).digest


async def test_a_history_is_continued_from_what_is_known_of_it(log: CommitLog) -> None:
    await append_renames(log, "ds_1", "one", "two")
    known = await log.load("dataset", "ds_1")
    await append_renames(log, "ds_2", "another")
    assert (await log.load("dataset", "ds_1", since=known)).commits == known.commits
    await append_renames(log, "ds_1", "three")
    newer = await log.load("dataset", "ds_1", since=known)
    assert [event for event, _ in newer.events()] == [DatasetRenamed(name=name) for name in ("one", "two", "three")]
    assert newer == await log.load("dataset", "ds_1")


async def test_a_commit_is_found_at_its_sequence_and_the_newest_at_the_end(log: CommitLog) -> None:
    log_id, start = await log.end()
    recorded = await log.append(*build_creation("ds_1"))
    found = await log.commit_at(recorded.sequence)
    assert found is not None
    assert (found.sequence, found.commit, found.body) == (recorded.sequence, recorded.commit, recorded.body)
    assert await log.end() == (log_id, recorded.sequence) == (log_id, start + 1)
    assert await log.commit_at(recorded.sequence + 1) is None


async def test_an_append_at_an_old_revision_is_a_conflict(log: CommitLog) -> None:
    first = await log.append(*build_creation("ds_1"))
    with pytest.raises(Conflict):
        await log.append(*build_creation("ds_1", "c2"))
    with pytest.raises(Conflict):
        await log.append(*build_draft("ds_2", DatasetRenamed(name="dogs"), revision_of(first)))
    assert await end_of(log) == first.sequence


async def test_a_repeated_commit_returns_its_first_sequence(log: CommitLog) -> None:
    draft = build_creation("ds_1")
    first = await log.append(*draft)
    await log.append(*build_rename("ds_1", first, "c2"))
    assert (await log.append(*draft)).sequence == first.sequence


async def test_a_repeated_command_returns_its_first_commit_even_if_decided_differently_now(log: CommitLog) -> None:
    first = await log.append(*build_creation("ds_1"))
    again = await log.append(*build_draft("ds_1", DatasetCreated(name="cats again"), command="c1"))
    assert (again.sequence, again.body, again.commit) == (first.sequence, first.body, first.commit)
    assert revision_of(again) == revision_of(first)


async def test_a_command_id_reused_by_another_request_is_refused(log: CommitLog) -> None:
    await log.append(*build_creation("ds_1", fingerprint="one"))
    with pytest.raises(KeyReused):
        await log.append(*build_creation("ds_1", fingerprint="another"))


async def test_one_command_may_append_to_two_aggregates(log: CommitLog) -> None:
    first, second = [await log.append(*build_creation(name)) for name in ("ds_1", "ds_2")]
    assert second.sequence == first.sequence + 1
    assert len((await log.load("dataset", "ds_2")).commits) == 1


async def test_a_commit_that_is_too_large_is_refused(log: CommitLog) -> None:
    huge = DatasetCreated(name="cats", description="x" * 300_000)
    with pytest.raises(TooLarge, match="bytes is more than"):
        await log.append(*build_draft("ds_1", huge))
    assert not (await log.load("dataset", "ds_1")).commits


async def test_concurrent_writers_neither_lose_nor_duplicate_commits(log: CommitLog) -> None:
    names = {writer: [f"{writer}-{number}" for number in range(10)] for writer in "abc"}
    await asyncio.gather(*(append_renames(log, "ds_1", *names[writer]) for writer in names))
    history = await log.load("dataset", "ds_1")
    appended = [event.name for event, _ in history.events() if isinstance(event, DatasetRenamed)]
    assert sorted(appended) == sorted(name for own in names.values() for name in own)
    assert history.revision.version == 30


async def test_a_process_that_may_no_longer_write_appends_nothing(
    log: CommitLog, request: pytest.FixtureRequest
) -> None:
    class LeaseLost(Exception):
        pass

    def fence() -> None:
        raise LeaseLost

    fenced: CommitLog = (
        MemoryLog(fence) if isinstance(log, MemoryLog) else EventLog(request.getfixturevalue("bus"), fence)
    )
    before = await end_of(fenced)
    for append in (fenced.append(*build_creation("ds_1")), fenced.append_atomically([build_creation("ds_2")])):
        with pytest.raises(LeaseLost):
            await append
    assert await end_of(fenced) == before


# --- several aggregates at once


async def test_a_batch_conflicts_as_a_whole(log: CommitLog) -> None:
    first = await log.append(*build_creation("ds_1"))
    with pytest.raises(Conflict):
        await log.append_atomically([build_creation(name, "c2") for name in ("ds_2", "ds_1", "ds_3")])
    assert await end_of(log) == first.sequence
    recorded = await log.append_atomically(
        [build_creation("ds_2", "c2"), build_rename("ds_1", first, "c2"), build_creation("ds_3", "c2")]
    )
    assert [one.sequence for one in recorded] == [first.sequence + 1, first.sequence + 2, first.sequence + 3]


async def test_a_repeated_batch_returns_its_first_commits(log: CommitLog) -> None:
    batch = [build_creation(name) for name in ("ds_1", "ds_2")]
    recorded = await log.append_atomically(batch)
    await log.append(*build_rename("ds_1", recorded[0], "c2"))
    again = await log.append_atomically(batch)
    assert [(one.sequence, one.body) for one in again] == [(one.sequence, one.body) for one in recorded]
    with pytest.raises(Conflict):  # decided again on top of its own commits
        await log.append_atomically(
            [
                build_draft(d, DatasetCreated(name="x"), revision_of(r), "c1")
                for d, r in zip(("ds_1", "ds_2"), recorded, strict=True)
            ]
        )
    with pytest.raises(KeyReused):
        await log.append_atomically([build_creation(name, fingerprint="another") for name in ("ds_1", "ds_2")])
    assert await end_of(log) == recorded[1].sequence + 1


async def test_a_batch_that_is_partly_stored_already_is_a_conflict(log: CommitLog) -> None:
    first = await log.append(*build_creation("ds_1"))
    with pytest.raises(Conflict):
        await log.append_atomically([build_creation("ds_1"), build_creation("ds_2")])
    assert await end_of(log) == first.sequence


async def test_a_batch_with_two_commits_of_one_aggregate_is_refused(log: CommitLog) -> None:
    with pytest.raises(ValueError, match="one commit"):
        await log.append_atomically([build_creation("ds_1"), build_creation("ds_1", "c2")])


async def test_a_batch_larger_than_the_server_accepts_is_refused(log: CommitLog) -> None:
    before = await end_of(log)
    with pytest.raises(TooLarge):
        await log.append_atomically([build_creation(f"ds_{number}") for number in range(MAX_ATOMIC_COMMITS + 1)])
    assert await end_of(log) == before


async def test_a_batch_of_the_maximum_size_is_stored(log: CommitLog) -> None:
    start = await end_of(log)
    recorded = await log.append_atomically([build_creation(f"ds_{number}") for number in range(MAX_ATOMIC_COMMITS)])
    assert [one.sequence for one in recorded] == list(range(start + 1, start + MAX_ATOMIC_COMMITS + 1))
    assert await end_of(log) == start + MAX_ATOMIC_COMMITS
