"""What became of each wish and each piece of work: asked of the log, the archive and the read model.

kept: acknowledged, and its commit stands where the answer said. lost: acknowledged, and it is not there. doubled: it is
there twice. unknown: nobody answered; it may be there or not, and neither is wrong.
"""

import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from catalog import views
from catalog.archive import Archive
from catalog.projection import catch_up
from catalog.store import Store
from contracts.events import DatasetCreated, ImageAdded, Stored, TagsEdited
from contracts.ids import keyed_command_id
from tests.drill.wishes import Wish
from tests.drill.works import Watch

CHANGES_NOTHING = frozenset({"cancel"})
"""Wishes that may be answered without a commit: somebody else was quicker."""
SHOWN = 5


@dataclass
class Verdict:
    """Counts by name, and the first few of what is wrong, in words."""

    counts: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def note(self, name: str, what: str = "") -> None:
        self.counts[name] += 1
        if what:
            self.wrong.append(f"{name}: {what}")


def judged_wishes(wishes: Sequence[Wish], commits: Sequence[Stored], actor: str) -> Verdict:
    """Each wish by the commits its command left, and each effect that only one wish can have had."""
    verdict = Verdict()
    of_command: dict[str, list[Stored]] = defaultdict(list)
    for stored in commits:
        of_command[stored.commit.command].append(stored)
    for wish in wishes:
        left = of_command[keyed_command_id(actor, wish.key)]
        # An upload becomes several commands; where its pictures are taken in twice, the effects say so.
        _judge(wish, _added(wish, commits) if wish.what == "import" else left, verdict)
    for effect, times in _effects(commits).items():
        if times > 1:
            verdict.note("doubled", f"{effect} happened {times} times")
    return verdict


def _added(wish: Wish, commits: Sequence[Stored]) -> list[Stored]:
    """The commit an upload was answered with, if it added pictures. Sequences are dense from 1."""
    there = wish.sequence is not None and 0 < wish.sequence <= len(commits)
    stored = [commits[wish.sequence - 1]] if there and wish.sequence else []
    return [one for one in stored if any(isinstance(fact, ImageAdded) for fact in one.commit.facts)]


def _judge(wish: Wish, left: Sequence[Stored], verdict: Verdict) -> None:
    named = f"{wish.what} {wish.value} ({wish.key}, answered {wish.sequence})"
    things = Counter((stored.commit.kind, stored.commit.thing, stored.commit.id) for stored in left)
    subjects = Counter((stored.commit.kind, stored.commit.thing) for stored in left)
    if wish.unlike:
        verdict.note("answered otherwise", named)
    if wish.refused:
        verdict.note("refused", f"{named}: {wish.refused}")
    elif max([*things.values(), *subjects.values()], default=0) > 1:
        verdict.note("doubled", f"{named}: {[stored.sequence for stored in left]}")
    elif wish.sequence is None:
        verdict.note("unknown, kept" if left else "unknown, not there")
    elif wish.sequence in {stored.sequence for stored in left} or wish.what in CHANGES_NOTHING:
        verdict.note("kept")
    else:
        verdict.note("lost", f"{named}: {[stored.sequence for stored in left]}")


def _effects(commits: Iterable[Stored]) -> Counter[str]:
    """How often happened what was asked for once."""
    effects: Counter[str] = Counter()
    for stored in commits:
        for fact in stored.commit.facts:
            match fact:
                case DatasetCreated(name=name):
                    effects[f"the data set {name}"] += 1
                case TagsEdited(asserted=tags):
                    effects.update(f"the tag {tag}" for tag in tags)
                case ImageAdded(picture=picture):
                    effects[f"the picture {picture}"] += 1
                case _:
                    pass
    return effects


def judged_works(asked: Iterable[str], watch: Watch, cancelled: set[str]) -> Verdict:
    """Does each end once, completed or cancelled as asked?"""
    verdict = Verdict()
    for thing in asked:
        state, ends = watch.works[thing].state, watch.ends[thing]
        if len(ends) > 1:
            verdict.note("doubled", f"{thing} ended as {ends}")
        elif not ends:
            verdict.note("stuck", f"{thing} is {state}")
        elif state == "completed":
            verdict.note("completed")
        elif state == "cancelled" and thing in cancelled:
            verdict.note("cancelled as asked")
        else:
            verdict.note("failed", f"{thing} is {state} ({watch.reasons.get(thing, 'nobody asked for that')})")
    return verdict


async def differences(catalog: Path, scratch: Path, commits: Sequence[Stored]) -> list[str]:
    """Between live read model and one made anew from the archive, and between log and archive. The stack is down."""
    archive = Archive(catalog)
    try:
        await archive.verify()
        kept = {stored.sequence: stored.body for stored in await archive.commits(0, len(commits) + 1)}
        found = [
            f"commit {stored.sequence} is not archived as it stands in the log"
            for stored in commits
            if kept.get(stored.sequence) != stored.body
        ]
        found += [f"the archive has {len(kept)} commits, the log {len(commits)}"] if len(kept) != len(commits) else []
        log_id = (catalog / "log_id").read_text()
        store = Store(scratch / "read.db", log_id, views)
        try:
            await catch_up(store, archive)
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
        return {name: Counter(connection.execute(f'SELECT * FROM "{name}"')) for (name,) in tables.fetchall()}  # noqa: S608 - a name of our own
