"""Random schedules of appends and faults, on a real server behind a proxy: no commit is lost or duplicated."""

import asyncio
import itertools
import os
import shutil
import signal
import tempfile
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from contracts.commits import RecordedCommit, StreamRevision, revision_of
from contracts.errors import Conflict, Unavailable
from contracts.events.datasets import DatasetRenamed
from contracts.ids import CommandId
from contracts.retry import RetryPolicy
from contracts.wire.log.event_log import EventLog, LogTimings
from contracts.wire.log.migration import migrate
from contracts.wire.server.embedded import EmbeddedServer
from contracts.wire.service.bus import Bus, connect
from tests.conftest import NOW
from tests.contracts.builders import Drafts, build_draft
from tests.proxy import Direction, Proxy

T = TypeVar("T")
TIMINGS = LogTimings(publish=0.1, retries=RetryPolicy(first_delay=0.02, jitter=0.08, time_limit=0.6))
AGGREGATE_IDS = ("ds_1", "ds_2", "ds_3")
aggregate_ids = st.sets(st.sampled_from(AGGREGATE_IDS), min_size=1).map(sorted)
directions = st.sampled_from(("up", "down"))


class Appends(RuleBasedStateMachine):
    """Two writers, one on a bad connection and one on a good one, and the commits acknowledged to them."""

    @initialize()
    def open(self) -> None:
        self.runner = asyncio.Runner()
        self.folder = Path(tempfile.mkdtemp())
        self.acknowledged: dict[str, RecordedCommit] = {}
        self.unacknowledged: dict[str, Drafts] = {}
        """Commands without an acknowledgement, with the commits they were to store."""
        self.revisions = dict.fromkeys(AGGREGATE_IDS, StreamRevision())
        self.numbers = itertools.count()
        self.run(self._open())

    async def _open(self) -> None:
        self.server = EmbeddedServer(self.folder / "nats")
        await self.server.start()
        admin = await connect(self.server.url, *self.server.credentials("admin"), "test")
        await migrate(admin, at=NOW, lease=2)
        await admin.close()
        self.proxy = await Proxy(int(self.server.url.rpartition(":")[2])).__aenter__()
        self.good_bus = await connect(self.server.url, *self.server.credentials("catalog"), "good")
        self.bad_bus = await connect(f"nats://127.0.0.1:{self.proxy.port}", *self.server.credentials("catalog"), "bad")

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    def drafts(self, aggregate_ids: Sequence[str]) -> Drafts:
        command = f"c{next(self.numbers)}"
        event = DatasetRenamed(name=command)
        return [
            build_draft(aggregate_id, event, self.revisions[aggregate_id], command) for aggregate_id in aggregate_ids
        ]

    async def append(self, bus: Bus, drafts: Drafts) -> None:
        command = drafts[0][0].command_id
        try:
            recorded = await EventLog(bus, timings=TIMINGS).append_atomically(drafts)
        except Unavailable:
            self.unacknowledged[command] = drafts
            return
        except Conflict:
            # Another commit came first. It can only be one of ours that was not acknowledged.
            assert self.unacknowledged
            await self.reload_revisions()
            return
        self.unacknowledged.pop(command, None)
        self.note_acknowledged(recorded)

    def note_acknowledged(self, recorded_commits: Sequence[RecordedCommit]) -> None:
        for recorded in recorded_commits:
            self.acknowledged[recorded.commit.id] = recorded
            if recorded.sequence > self.revisions[recorded.commit.aggregate_id].sequence:
                self.revisions[recorded.commit.aggregate_id] = revision_of(recorded)

    async def reload_revisions(self) -> None:
        """Reads the current revisions, including those of commits that were stored without an acknowledgement."""
        for aggregate_id in AGGREGATE_IDS:
            self.revisions[aggregate_id] = (await EventLog(self.good_bus).load("dataset", aggregate_id)).revision

    @rule(aggregate_ids=aggregate_ids)
    def append_on_bad_connection(self, aggregate_ids: list[str]) -> None:
        self.run(self.append(self.bad_bus, self.drafts(aggregate_ids)))

    @rule(aggregate_ids=aggregate_ids)
    def append_on_good_connection(self, aggregate_ids: list[str]) -> None:
        self.run(self.append(self.good_bus, self.drafts(aggregate_ids)))

    @rule(aggregate_ids=aggregate_ids, direction=directions, delay=st.sampled_from((0.0, 0.05, 0.25)))
    def append_while_the_connection_breaks(self, aggregate_ids: list[str], direction: Direction, delay: float) -> None:
        """Before the server receives the commit, or before its acknowledgement arrives."""

        async def run_both() -> None:
            self.proxy.hold(direction)
            appending = asyncio.create_task(self.append(self.bad_bus, self.drafts(aggregate_ids)))
            await asyncio.sleep(delay)
            self.proxy.cut()
            self.proxy.release()
            await appending

        self.run(run_both())

    @rule(aggregate_ids=aggregate_ids, delay=st.sampled_from((0.12, 0.32)))
    def append_with_delay(self, aggregate_ids: list[str], delay: float) -> None:
        """All attempts are held, and arrive together."""

        async def run_both() -> None:
            self.proxy.hold("up")
            appending = asyncio.create_task(self.append(self.bad_bus, self.drafts(aggregate_ids)))
            await asyncio.sleep(delay)
            self.proxy.release()
            await appending

        self.run(run_both())

    @rule(aggregate_ids=aggregate_ids, delay=st.sampled_from((0.0, 0.02)))
    def append_while_the_server_is_killed(self, aggregate_ids: list[str], delay: float) -> None:
        async def run_both() -> None:
            appending = asyncio.create_task(self.append(self.good_bus, self.drafts(aggregate_ids)))
            await asyncio.sleep(delay)
            assert self.server.pid is not None
            os.kill(self.server.pid, signal.SIGKILL)
            await self.server.wait_died()
            await self.server.restart()
            await appending

        self.run(run_both())

    @precondition(lambda self: self.unacknowledged)
    @rule()
    def repeat_unacknowledged(self) -> None:
        """On the good connection: each is stored now unless it was already, and never a conflict."""

        async def repeat_all() -> None:
            for drafts in list(self.unacknowledged.values()):
                await self.append(self.good_bus, drafts)
            self.unacknowledged.clear()

        self.run(repeat_all())

    @invariant()
    def nothing_is_lost_or_duplicated(self) -> None:
        self.run(self._compare_with_the_log())

    async def _compare_with_the_log(self) -> None:
        log, commits = EventLog(self.good_bus), list[RecordedCommit]()
        for aggregate_id in AGGREGATE_IDS:
            history = await log.load("dataset", aggregate_id)
            assert [recorded.commit.version for recorded in history.commits] == list(range(1, len(history.commits) + 1))
            digests = ["", *(revision_of(recorded).digest for recorded in history.commits)]
            assert [recorded.commit.previous_hash for recorded in history.commits] == digests[:-1]
            commits += history.commits
        by_id = {recorded.commit.id: recorded for recorded in commits}
        assert len(by_id) == len(commits)
        for known in self.acknowledged.values():
            assert (by_id[known.commit.id].sequence, by_id[known.commit.id].body) == (known.sequence, known.body)
        for name in by_id.keys() - self.acknowledged.keys():
            assert CommandId(name.partition("/")[0]) in self.unacknowledged
        for drafts in self.unacknowledged.values():
            sequences = [by_id[commit.id].sequence for commit, _ in drafts if commit.id in by_id]
            assert not sequences or sequences == list(range(sequences[0], sequences[0] + len(drafts)))
        assert (await log.end())[1] == 1 + len(commits)

    def teardown(self) -> None:
        if not hasattr(self, "runner"):
            return
        self.run(self._close())
        self.runner.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    async def _close(self) -> None:
        await self.bad_bus.close()
        await self.good_bus.close()
        await self.proxy.__aexit__(None, None, None)
        await self.server.stop()


@pytest.mark.slow
class TestAppends(Appends.TestCase):  # type: ignore[misc,valid-type]  # made by hypothesis
    settings = settings(
        max_examples=6,
        stateful_step_count=12,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],  # shrinking a failure would take minutes
        suppress_health_check=list(HealthCheck),
    )
