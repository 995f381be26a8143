"""The outcome of each command and each job, according to the log, the archive and the read model.

kept: acknowledged, and its commit is at the acknowledged sequence. lost: acknowledged, but not there. doubled: there
twice. unknown: never answered; it may be there or not, and both are correct. not checked: the drill ended early, and
the log was not read up to there.
"""

import re
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Container, Iterable, Mapping, Sequence, Set
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from catalog import views
from catalog.archive.archive import Archive
from catalog.database import MAX_SEQUENCE
from catalog.image_sets import SetReader
from catalog.projection import catch_up
from catalog.store import Store
from contracts.commits import RecordedCommit
from contracts.events.datasets import DatasetCreated, ImageAdded, TagsEdited
from contracts.ids import keyed_command_id
from contracts.wire.blobs.store import LocalBlobs
from tests.drill.client_commands import SentCommand
from tests.drill.work_generator import LogObserver

LOST_PROBLEM = "/problems/lost"
"""In the answer about what was given up as lost."""
IMAGE_ID = re.compile(r"img_\w+")
MAY_BE_NO_OP = frozenset({"cancel"})
"""Operations that may be answered without a commit, if the job ended first."""


@dataclass
class Verdict:
    """Counts by outcome, and a line for each error."""

    counts: Counter[str] = field(default_factory=Counter)
    errors: list[str] = field(default_factory=list)

    def record(self, outcome: str, error: str = "") -> None:
        self.counts[outcome] += 1
        if error:
            self.errors.append(f"{outcome}: {error}")


def check_commands(
    commands: Sequence[SentCommand],
    commits: Sequence[RecordedCommit],
    actor: str,
    *,
    is_whole: bool = True,
    given_up: Container[str] = (),
) -> Verdict:
    """Check each command by the commits that carry its id, and each effect that only one command can have had.

    `is_whole`: these are all commits of the log. `given_up`: images whose keys were given up as lost; what is refused
    because of one of them, by name, is counted.
    """
    verdict = Verdict()
    by_sequence = {recorded.sequence: recorded for recorded in commits}
    last = max(by_sequence, default=0)
    by_command: dict[str, list[RecordedCommit]] = defaultdict(list)
    for recorded in commits:
        by_command[recorded.commit.command_id].append(recorded)
    for command in commands:
        own = by_command[keyed_command_id(actor, command.key)]
        if (
            command.operation == "import"
        ):  # becomes several commands; duplicated pictures are found by the effects below
            own = _import_commit(command, by_sequence)
        if not is_whole and command.sequence is not None and command.sequence > last:
            verdict.record("not checked")
        else:
            _check_command(command, own, verdict, given_up)
    for effect, times in _effects(commits).items():
        if times > 1:
            verdict.record("doubled", f"{effect} happened {times} times")
    return verdict


def _import_commit(command: SentCommand, by_sequence: Mapping[int, RecordedCommit]) -> list[RecordedCommit]:
    """The commit an upload was answered with, if it added pictures."""
    found = by_sequence.get(command.sequence or 0)
    return [found] if found and any(isinstance(event, ImageAdded) for event in found.commit.events) else []


def _check_command(
    command: SentCommand, own: Sequence[RecordedCommit], verdict: Verdict, given_up: Container[str]
) -> None:
    label = f"{command.operation} {command.value} ({command.key}, answered {command.sequence})"
    ids = Counter((one.commit.aggregate_kind, one.commit.aggregate_id, one.commit.id) for one in own)
    aggregates = Counter((one.commit.aggregate_kind, one.commit.aggregate_id) for one in own)
    if command.answered_differently:
        verdict.record("answered differently", label)
    if LOST_PROBLEM in command.refusal and any(image in given_up for image in IMAGE_ID.findall(command.refusal)):
        verdict.record("refused for what was lost")
    elif command.refusal:
        verdict.record("refused", f"{label}: {command.refusal}")
    elif max([*ids.values(), *aggregates.values()], default=0) > 1:
        verdict.record("doubled", f"{label}: {[one.sequence for one in own]}")
    elif command.sequence is None:
        verdict.record("unknown, kept" if own else "unknown, not there")
    elif command.sequence in {one.sequence for one in own} or command.operation in MAY_BE_NO_OP:
        verdict.record("kept")
    else:
        verdict.record("lost", f"{label}: {[one.sequence for one in own]}")


def _effects(commits: Iterable[RecordedCommit]) -> Counter[str]:
    """How often each effect happened that was requested once."""
    effects: Counter[str] = Counter()
    for recorded in commits:
        for event in recorded.commit.events:
            match event:
                case DatasetCreated(name=name):
                    effects[f"the data set {name}"] += 1
                case TagsEdited(asserted=tags):
                    effects.update(f"the tag {tag}" for tag in tags)
                case ImageAdded(picture=picture):
                    effects[f"the picture {picture}"] += 1
                case _:
                    pass
    return effects


def check_work(
    requested: Iterable[str],
    observer: LogObserver,
    cancelled: Set[str],
    *,
    excused: Set[str] = frozenset(),
    is_whole: bool = True,
) -> Verdict:
    """Each job or run must end exactly once, as completed, or as cancelled if that was requested.

    `excused`: it needs what was lost for good, and may fail. `is_whole`: the drill waited for their ends.
    """
    verdict = Verdict()
    for work_id in requested:
        state, ends = observer.work[work_id].state, observer.ends[work_id]
        if len(ends) > 1:
            verdict.record("doubled", f"{work_id} ended as {ends}")
        elif not ends and not is_whole:
            verdict.record("not ended yet")
        elif not ends:
            verdict.record("stuck", f"{work_id} is {state}")
        elif state == "completed":
            verdict.record("completed")
        elif state == "cancelled" and work_id in cancelled:
            verdict.record("cancelled as requested")
        elif state == "failed" and work_id in excused:
            verdict.record("failed for what was lost")
        else:
            verdict.record("failed", f"{work_id} is {state} ({observer.failure_reasons.get(work_id, 'not requested')})")
    return verdict


async def find_differences(catalog: Path, scratch: Path, commits: Sequence[RecordedCommit]) -> list[str]:
    """Compare log and archive, and the live read model with one rebuilt from the archive. The stack must be down."""
    archive = Archive(catalog)
    try:
        await archive.verify()
        entries = await archive.entries(0, MAX_SEQUENCE)
        archived = {entry.sequence: entry.body for entry in entries if isinstance(entry, RecordedCommit)}
        found = [
            f"commit {recorded.sequence} differs between archive and log"
            for recorded in commits
            if archived.get(recorded.sequence) != recorded.body
        ]
        if len(archived) != len(commits):
            found.append(f"the archive has {len(archived)} commits, the log {len(commits)}")
        log_id = (catalog / "log_id").read_text()
        store = Store(scratch / "read.db", log_id, views)
        try:
            await catch_up(store, archive, SetReader(archive, [LocalBlobs(catalog.parent / "blobs")]).read)
        finally:
            await store.close()
    finally:
        await archive.close()
    live, replayed = _rows(catalog / "read.db"), _rows(scratch / "read.db")
    for table in sorted(live.keys() | replayed.keys()):
        ours, theirs = live.get(table, Counter()), replayed.get(table, Counter())
        if ours != theirs:
            only = (ours - theirs).total(), (theirs - ours).total()
            found.append(f"{table}: {only[0]} rows only in the live read model, {only[1]} only in the replayed one")
    return found


def _rows(file: Path) -> dict[str, Counter[tuple[object, ...]]]:
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as connection:
        tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")
        return {name: Counter(connection.execute(f'SELECT * FROM "{name}"')) for (name,) in tables.fetchall()}  # noqa: S608 - our own table names
