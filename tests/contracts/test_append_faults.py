"""Any schedule of appends and faults, on a real server behind a proxy: nothing acknowledged is lost or doubled."""

import asyncio
import itertools
import os
import shutil
import signal
import tempfile
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any, TypeVar
from unittest import mock

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from contracts.errors import Conflict, Unavailable
from contracts.events import Commit, DatasetRenamed, Stored
from contracts.ids import CommandId
from contracts.wire import log as log_module
from contracts.wire import publishing
from contracts.wire.bus import Bus, connect
from contracts.wire.log import EventLog, Head, draw_up, head_of
from contracts.wire.server import EmbeddedServer
from contracts.wire.streams import migrate
from tests.conftest import NOW, origin
from tests.proxy import Direction, Proxy

T = TypeVar("T")
THINGS = ("ds_1", "ds_2", "ds_3")
things = st.sets(st.sampled_from(THINGS), min_size=1).map(sorted)
directions = st.sampled_from(("up", "down"))


class Appends(RuleBasedStateMachine):
    """One writer on a bad line, one on a good one, and what was acknowledged to them."""

    @initialize()
    def open(self) -> None:
        self.runner = asyncio.Runner()
        self.folder = Path(tempfile.mkdtemp())
        self.patches = [mock.patch.object(publishing, "PUBLISH_SECONDS", 0.25)]
        self.patches.append(mock.patch.object(log_module, "GIVE_UP_SECONDS", 1.5))
        for patch in self.patches:
            patch.start()
        self.acknowledged: dict[str, Stored] = {}
        self.unknown: dict[str, list[tuple[Commit, Head]]] = {}
        """Commands that got no answer, with what they wanted to store."""
        self.heads = dict.fromkeys(THINGS, Head())
        self.numbers = itertools.count()
        self.run(self._open())

    async def _open(self) -> None:
        self.server = EmbeddedServer(self.folder / "nats")
        await self.server.start()
        admin = await connect(self.server.url, *self.server.credentials("admin"), "test")
        await migrate(admin, at=NOW, lease=2, duplicate_window=0.5)
        await admin.close()
        self.proxy = await Proxy(int(self.server.url.rpartition(":")[2])).__aenter__()
        self.good = await connect(self.server.url, *self.server.credentials("catalog"), "good")
        self.bad = await connect(f"nats://127.0.0.1:{self.proxy.port}", *self.server.credentials("catalog"), "bad")

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    def drafts(self, things: Sequence[str]) -> list[tuple[Commit, Head]]:
        command = f"c{next(self.numbers)}"
        return [
            (draw_up("dataset", thing, [DatasetRenamed(name=command)], after=head, origin=origin(command)), head)
            for thing in things
            for head in (self.heads[thing],)
        ]

    async def append(self, bus: Bus, drafts: list[tuple[Commit, Head]]) -> None:
        command = drafts[0][0].command
        try:
            stored = await EventLog(bus).append_together(drafts)
        except Unavailable:
            self.unknown[command] = drafts
            return
        except Conflict:
            # Somebody was first. That can only be one of our own of which we have heard nothing yet.
            assert self.unknown
            await self.look()
            return
        self.unknown.pop(command, None)
        self.believe(stored)

    def believe(self, answer: Sequence[Stored]) -> None:
        for stored in answer:
            self.acknowledged[stored.commit.id] = stored
            if stored.sequence > self.heads[stored.commit.thing].sequence:
                self.heads[stored.commit.thing] = head_of(stored)

    async def look(self) -> None:
        """The heads as they are; what of the unknown is there counts as stored."""
        for thing in THINGS:
            self.heads[thing] = (await EventLog(self.good).load("dataset", thing)).head

    @rule(things=things)
    def say(self, things: list[str]) -> None:
        self.run(self.append(self.bad, self.drafts(things)))

    @rule(things=things)
    def another_says(self, things: list[str]) -> None:
        self.run(self.append(self.good, self.drafts(things)))

    @rule(things=things, direction=directions, held=st.sampled_from((0.0, 0.05, 0.6)))
    def say_while_the_line_breaks(self, things: list[str], direction: Direction, held: float) -> None:
        """Before the server hears it, or before its answer is heard."""

        async def both() -> None:
            self.proxy.hold(direction)
            saying = asyncio.create_task(self.append(self.bad, self.drafts(things)))
            await asyncio.sleep(held)
            self.proxy.cut()
            self.proxy.release()
            await saying

        self.run(both())

    @rule(things=things, held=st.sampled_from((0.3, 0.8)))
    def say_late(self, things: list[str], held: float) -> None:
        """All tries wait on the line, and arrive together."""

        async def both() -> None:
            self.proxy.hold("up")
            saying = asyncio.create_task(self.append(self.bad, self.drafts(things)))
            await asyncio.sleep(held)
            self.proxy.release()
            await saying

        self.run(both())

    @rule(things=things, delay=st.sampled_from((0.0, 0.02)))
    def say_while_the_server_is_killed(self, things: list[str], delay: float) -> None:
        async def both() -> None:
            saying = asyncio.create_task(self.append(self.good, self.drafts(things)))
            await asyncio.sleep(delay)
            assert self.server.pid is not None
            os.kill(self.server.pid, signal.SIGKILL)
            await self.server.wait_died()
            await self.server.restart()
            await saying

        self.run(both())

    @precondition(lambda self: self.unknown)
    @rule()
    def ask_again(self) -> None:
        """With what was never answered, on a good line: it is stored now if it was not, and nobody was first."""

        async def again() -> None:
            for drafts in list(self.unknown.values()):
                await self.append(self.good, drafts)
            self.unknown.clear()

        self.run(again())

    @rule()
    def let_the_server_forget(self) -> None:
        self.run(asyncio.sleep(0.6))

    @invariant()
    def nothing_is_lost_or_doubled(self) -> None:
        self.run(self._compared())

    async def _compared(self) -> None:
        log, found = EventLog(self.good), list[Stored]()
        for thing in THINGS:
            history = await log.load("dataset", thing)
            assert [stored.commit.version for stored in history.commits] == list(range(1, len(history.commits) + 1))
            digests = ["", *(head_of(stored).digest for stored in history.commits)]
            assert [stored.commit.previous for stored in history.commits] == digests[:-1]
            found += history.commits
        by_id = {stored.commit.id: stored for stored in found}
        assert len(by_id) == len(found)
        for known in self.acknowledged.values():
            assert (by_id[known.commit.id].sequence, by_id[known.commit.id].body) == (known.sequence, known.body)
        for name in by_id.keys() - self.acknowledged.keys():
            assert CommandId(name.partition("/")[0]) in self.unknown
        for drafts in self.unknown.values():
            stored = [by_id[commit.id].sequence for commit, _ in drafts if commit.id in by_id]
            assert not stored or stored == list(range(stored[0], stored[0] + len(drafts)))
        assert (await log.end())[1] == 1 + len(found)

    def teardown(self) -> None:
        if not hasattr(self, "runner"):
            return
        self.run(self._close())
        self.runner.close()
        for patch in self.patches:
            patch.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    async def _close(self) -> None:
        await self.bad.close()
        await self.good.close()
        await self.proxy.__aexit__(None, None, None)
        await self.server.stop()


class TestAppends(Appends.TestCase):  # type: ignore[misc]  # made by hypothesis
    settings = settings(
        max_examples=6,
        stateful_step_count=12,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],  # making a failure smaller would take minutes
        suppress_health_check=list(HealthCheck),
    )
