"""Commits of data sets, as the tests of the log append them."""

from contracts.commits import Commit, CommitLog, RecordedCommit, StreamRevision, build_commit, revision_of
from contracts.errors import Conflict
from contracts.events.base import Event
from contracts.events.datasets import DatasetCreated, DatasetRenamed
from tests.conftest import command_metadata

Drafts = list[tuple[Commit, StreamRevision]]
START = StreamRevision()


def build_draft(
    aggregate_id: str, event: Event, revision: StreamRevision = START, command: str | None = None, fingerprint: str = ""
) -> tuple[Commit, StreamRevision]:
    metadata = command_metadata(command, fingerprint=fingerprint)
    return build_commit("dataset", aggregate_id, [event], expected_revision=revision, metadata=metadata), revision


def build_creation(aggregate_id: str, command: str = "c1", fingerprint: str = "") -> tuple[Commit, StreamRevision]:
    return build_draft(aggregate_id, DatasetCreated(name="cats"), command=command, fingerprint=fingerprint)


def build_rename(aggregate_id: str, previous: RecordedCommit, command: str) -> tuple[Commit, StreamRevision]:
    return build_draft(aggregate_id, DatasetRenamed(name="dogs"), revision_of(previous), command)


class DatasetWriter:
    """The only writer of one data set: it knows the revision without reading the log."""

    def __init__(self, log: CommitLog, aggregate_id: str = "ds_1", revision: StreamRevision = START) -> None:
        self._log, self._aggregate_id, self.revision = log, aggregate_id, revision

    async def rename(self, *names: str) -> int:
        """The sequence of the last commit."""
        for name in names:
            draft = build_draft(self._aggregate_id, DatasetRenamed(name=name), self.revision)
            self.revision = revision_of(await self._log.append(*draft))
        return self.revision.sequence


async def append_renames(log: CommitLog, aggregate_id: str, *names: str) -> int:
    """Appends to a data set, on top of what it has, whoever else does the same; the sequence of the last commit."""
    sequence = 0
    for name in names:
        draft = build_draft(aggregate_id, DatasetRenamed(name=name), (await log.load("dataset", aggregate_id)).revision)
        try:
            sequence = (await log.append(*draft)).sequence
        except Conflict:
            sequence = await append_renames(log, aggregate_id, name)
    return sequence
