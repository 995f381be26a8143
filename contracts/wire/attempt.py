"""One try at one piece of work, as the worker that holds it sees it: what the log says of it, and what it reports.

The log is the fence. Every report names the attempt and stands on the newest commit of the work; when somebody else's
commit came in between, it is read and folded, and only another attempt or an end stops this one.
"""

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime

from contracts.commands import Origin
from contracts.errors import Conflict, Fenced, LogFull, LoratoryError, Unavailable
from contracts.events import AnyFact, Commit, Stored
from contracts.ids import WorkerId, new_command_id
from contracts.jobs import Work, admit, fold
from contracts.subjects import KIND_OF, WorkClass
from contracts.wire.log import EventLog, Head, History, draw_up
from contracts.wire.tasks import wanted

POLL_SECONDS = 0.25
PATIENCE_SECONDS = 600.0
"""So long a report is tried while the log is away; a job must not die because the server is restarted."""


class Crash(LoratoryError):
    """What does the work died; another attempt may fare better."""

    code = "crashed"


@dataclass(frozen=True, kw_only=True)
class Holder:
    """Who holds: a worker of a class, in one life of its process (`boot`). `lease` and `stall` in seconds.

    The lease is how long the queue waits for a sign; `stall` how long the work may stand still before it is hung.
    """

    work: WorkClass
    worker: WorkerId
    boot: str
    lease: float = 15.0
    stall: float = 600.0

    @property
    def actor(self) -> str:
        return f"svc:{'trainer' if self.work == 'train' else 'tagger'}/{self.worker}"


class Attempt:
    """One try at one work, from its start to its end."""

    def __init__(self, log: EventLog, holder: Holder, thing: str, history: History) -> None:
        self._log = log
        self._holder = holder
        self._history = history
        self._turn = asyncio.Lock()
        self._moved = asyncio.get_running_loop().time()
        self.thing = thing
        self.work: Work = fold(history.facts())
        self.number = self.work.attempt
        self.stop_asked = asyncio.Event()
        """Set when somebody asked to cancel the work: end with `contracts.jobs.cancelled` within two seconds."""

    @property
    def history(self) -> History:
        return self._history

    @property
    def facts(self) -> list[tuple[AnyFact, int]]:
        """The work's whole history, as far as it is known here."""
        return self._history.facts()

    def moved(self, grace: float = 0.0) -> None:
        """The work has got on; without this for `stall` seconds (and once for `grace` more) it counts as hung."""
        self._moved = asyncio.get_running_loop().time() + grace

    @property
    def hung(self) -> bool:
        return asyncio.get_running_loop().time() - self._moved > self._holder.stall

    async def report(self, *facts: AnyFact) -> Stored:
        """Append what happened, as one commit. Fenced: somebody else holds the work, or it has ended; stop."""
        origin = Origin(
            command=new_command_id(),
            actor=self._holder.actor,
            at=datetime.now(UTC),
            correlation=self._history.commits[0].commit.correlation,
            causation=self._started().commit.id,
        )
        deadline = asyncio.get_running_loop().time() + PATIENCE_SECONDS
        async with self._turn:
            while True:
                for fact in facts:
                    admit(self.work, fact, self.number)
                head = self._history.head
                commit = draw_up(KIND_OF[self._holder.work], self.thing, facts, after=head, origin=origin)
                try:
                    stored = await self._appended(commit, head)
                except (Unavailable, LogFull):
                    if asyncio.get_running_loop().time() > deadline or not wanted():
                        raise
                    self.moved()  # it waits for the log, or for room in it; that is not hanging
                    await asyncio.sleep(POLL_SECONDS)
                    continue
                if stored is not None:
                    return self._absorb(stored)

    async def look(self) -> None:
        """Read what others have appended meanwhile. Fenced: this attempt is over."""
        async with self._turn:
            await self._catch_up()
        if self.work.ended or self.work.attempt != self.number:
            raise Fenced(f"attempt {self.work.attempt} holds the work now, or it has ended ({self.work.state})")

    async def _appended(self, commit: Commit, head: Head) -> Stored | None:
        """None: somebody else's commit came first; it is folded now, and the report is to be judged again."""
        try:
            return await self._log.append(commit, head)
        except Conflict:
            await self._catch_up()
            return None

    async def _catch_up(self) -> None:
        known = len(self._history.commits)
        newer = await self._log.load(KIND_OF[self._holder.work], self.thing, since=self._history)
        for stored in newer.commits[known:]:
            self._absorb(stored)

    def _absorb(self, stored: Stored) -> Stored:
        self._history = History([*self._history.commits, stored])
        self.work = fold([(fact, stored.sequence) for fact in stored.commit.facts], self.work)
        if self.work.state == "cancelling":
            self.stop_asked.set()
        return stored

    def _started(self) -> Stored:
        return next(stored for stored in self._history.commits if stored.sequence == self.number)
