"""The archive as the catalog has it: the judge of the log."""

import asyncio
from collections.abc import Awaitable
from typing import NoReturn

import structlog

from catalog.archive.chain import Tail
from catalog.archive.compare import CURE, compare, dated, ends_agree
from catalog.archive.file import ArchiveFile
from contracts.audit import Damage, damaged
from contracts.errors import LogDamaged, SetupError, Unavailable
from contracts.wire.boot import leaves
from contracts.wire.log import EventLog
from contracts.wire.scan import log_state

AT_START = 50_000
"""A log of so many commits is compared whole before anybody is served: a second. A longer one is compared beside."""
PATROL_SECONDS = 24 * 3600.0
PATROL_BITS = 16_000_000
"""So many bits a second the patrol reads: some thousand commits, a few hundredths of a core."""
PATROL_AGAIN_SECONDS = 60.0
"""Where the log does not answer, the patrol begins again so much later."""

_log = structlog.get_logger(__name__)


class Archive(ArchiveFile):
    """It says whether a log is the one that was archived, whole and unchanged; in doubt nobody is served."""

    verified = False
    """Has the log been compared with the archive since the start?"""
    _whole = False
    """Was every commit compared, not only the ends?"""

    async def judge(self, log: EventLog, *, whole: bool = False) -> str:
        """Is this log the one that was archived? Its id; LogDamaged names the first bad sequence.

        The catalog alone judges, and before anybody writes. An empty archive takes the log as its own. `whole`: compare
        every commit now, however many there are.
        """
        self.tail = await self.verify()
        self._whole = whole or self.tail.sequence <= AT_START or not await ends_agree(self, log, self.tail)
        if self._whole:
            await self._compare(log)
        state = await log_state(log.bus)
        if state.last == 0:
            raise SetupError("the event log is empty: the migrate step must run first")
        if self.tail.sequence == 0 and (noted := self.noted()):
            if noted != state.log_id:
                raise LogDamaged(
                    f"this server holds the log {state.log_id}, but {noted} was archived here", first_bad=1
                )
            _log.warning("archive_made_anew", log_id=noted)  # the log alone is its own witness now
        await self.rename(state.log_id)
        self.verified = True
        return state.log_id

    async def verify(self) -> Tail:
        """Compute the whole chain again; LogDamaged at the first entry that is not what was archived."""
        walked = await self.walk()
        if walked.damage:
            raise damaged(await dated(self, walked.damage))
        return walked.tail

    async def patrol(self, log: EventLog) -> NoReturn:
        """Compare the whole log again and again, slowly; at once where `judge` has not. LogDamaged at a difference."""
        while True:
            if self._whole:
                await asyncio.sleep(PATROL_SECONDS)
            try:
                await self._compare(log, bits=PATROL_BITS)
            except Unavailable as error:
                _log.warning("log_not_compared", error=error.detail)
                await asyncio.sleep(PATROL_AGAIN_SECONDS)
                continue
            _log.info("log_compared", commits=self.tail.sequence)
            self._whole = True

    async def explaining(self, work: Awaitable[object]) -> None:
        """The work; where the log was found damaged in it, also with when the last good commit was recorded."""
        try:
            await work
        except (LogDamaged, BaseExceptionGroup) as error:
            found = next((leaf for leaf in leaves(error) if isinstance(leaf, LogDamaged)), None)
            first = found.facts.get("first_bad") if found else None
            if found is None or not isinstance(first, int):
                raise
            what = f"{found.detail}; it cannot be trusted from commit {first} on{CURE}"
            damage = await dated(self, Damage(where="log", kind="missing", first_bad=first, detail=what))
            since = {"since": damage.since.isoformat()} if damage.since else {}
            raise LogDamaged(damage.detail, **{**found.facts, **since}) from error

    async def _compare(self, log: EventLog, *, bits: int | None = None) -> None:
        comparison = await compare(self, log, self.tail, bits=bits)
        if comparison.damage:
            raise damaged(comparison.damage[0])
