"""One catalog writes: a lease on a key that ends by the server's clock, unless its holder renews it.

Who waits takes it when it has run out, when it was given back, or when its holder ran on this machine and is dead. The
holder trusts it no longer than its own clock says since it asked for it; a process that was stopped past that refuses
to write when it wakes, before it has heard of anybody else. Expected sequences are the net under it.
"""

import asyncio
from typing import NoReturn

import msgspec
import nats.errors
import structlog
from nats.aio.client import Client
from nats.js.api import Header
from nats.js.errors import APIError, NotFoundError
from nats.js.errors import Error as JetStreamError

from contracts import subjects
from contracts.errors import Unavailable
from contracts.ids import ulid
from contracts.wire.life import Life
from contracts.wire.tasks import wanted

SECONDS = 10.0
"""So long after the last sign of its holder another takes it. Whole seconds: the server rounds."""
RENEWALS = 4
"""So often within a lease it is renewed."""
MARGIN = 0.1
"""This part of a lease is not used: answers take time, and two clocks do not run alike."""
POLL_SECONDS = 0.5
ANSWER_SECONDS = 2.0
GOODBYE_SECONDS = 1.0
WRONG_SEQUENCE = frozenset({10071, 10164})

_log = structlog.get_logger()


class LeaseLost(Unavailable):
    """Another catalog may write now; this one must not."""


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """Who holds the lease; `holder` is empty after it was given back."""

    holder: str
    life: Life

    @property
    def free(self) -> bool:
        return not self.holder or self.life.dead


class _Moved(Exception):
    """Somebody else has written the key meanwhile, or it has run out."""


class Lease:
    """`take` it, `keep` it beside the work, and `check` before each write."""

    def __init__(self, bus: Client, *, seconds: float = SECONDS, life: Life | None = None) -> None:
        self._js = bus.jetstream(timeout=ANSWER_SECONDS)
        self._seconds = seconds
        self._claim = Claim(holder=ulid(), life=life or Life.own())
        self._sequence = 0
        self._until = 0.0

    @property
    def held(self) -> bool:
        """For sure, by the clock of this process, which goes on while it is stopped."""
        return asyncio.get_running_loop().time() < self._until

    def check(self) -> None:
        """LeaseLost unless this process may write."""
        if not self.held:
            raise LeaseLost("the lease of this catalog has run out; another may write now", service="catalog")

    async def take(self) -> None:
        """Returns when this is the one that writes."""
        told = False
        while wanted():
            try:
                if await self._taken():
                    _log.info("lease_taken", sequence=self._sequence)
                    return
                if not told:
                    _log.info("another_catalog_writes")
                told = True
            except _Moved:
                continue  # somebody was quicker: look who
            except Unavailable as error:
                _log.warning("lease_not_asked_for", error=error.detail)
            await asyncio.sleep(POLL_SECONDS)

    async def keep(self) -> None:
        """Renew it until this is cancelled, and then give it back. LeaseLost when another holds or has held it."""
        told = False
        try:
            while wanted():
                await asyncio.sleep(self._seconds / RENEWALS)
                try:
                    await self._renewed()
                    told = False
                except LeaseLost:
                    raise
                except Unavailable as error:
                    if not told:  # once for each time it is away
                        _log.warning("lease_not_renewed", error=error.detail)
                    told = True
        finally:
            await self._give_back()

    async def _taken(self) -> bool:
        sequence, claim = await self._read()
        if claim is not None and not claim.free:
            return False
        await self._write(sequence)
        return True

    async def _renewed(self) -> None:
        try:
            await self._write(self._sequence)
        except _Moved:
            await self._judged()

    async def _judged(self) -> None:
        """The key is not as this process left it. Was its own renewal stored unheard? Has it run out? Or is it lost?"""
        sequence, claim = await self._read()
        if claim is not None and claim.holder == self._claim.holder:
            await self._again(sequence)
        elif claim is None:
            before = self._sequence
            await self._again(0)
            if self._sequence != before + 1:
                # Somebody has held it in between, and may have written what this process does not know of.
                self._lost()
        else:
            self._lost()

    async def _again(self, sequence: int) -> None:
        try:
            await self._write(sequence)
        except _Moved:
            self._lost()

    def _lost(self) -> NoReturn:
        self._until = 0.0
        raise LeaseLost("another catalog has taken the lease", service="catalog")

    async def _give_back(self) -> None:
        if not self.held:
            return
        self._until = 0.0
        self._claim = Claim(holder="", life=self._claim.life)
        try:
            async with asyncio.timeout(GOODBYE_SECONDS):
                await self._write(self._sequence)
        except (_Moved, Unavailable, TimeoutError):
            _log.warning("lease_not_given_back", seconds=self._seconds)
        self._until = 0.0

    async def _read(self) -> tuple[int, Claim | None]:
        """The key as the stream's leader has it; (0, None) where there is none."""
        try:
            message = await self._js.get_last_msg(subjects.LEASES, subjects.WRITER)
        except NotFoundError:
            return 0, None
        except (nats.errors.Error, JetStreamError, OSError) as error:
            raise Unavailable("the lease cannot be read", service="nats") from error
        return message.seq or 0, msgspec.json.decode(message.data or b"", type=Claim)

    async def _write(self, after: int) -> None:
        """Claim it if the key's last sequence is still `after` (0: there is no key). _Moved when it is not."""
        began = asyncio.get_running_loop().time()
        headers: dict[str, str] = {Header.EXPECTED_LAST_SUBJECT_SEQUENCE: str(after)}
        try:
            ack = await self._js.publish(
                subjects.WRITER,
                msgspec.json.encode(self._claim),
                stream=subjects.LEASES,
                headers=headers,
                msg_ttl=self._seconds,
            )
        except APIError as error:
            if error.err_code in WRONG_SEQUENCE:
                raise _Moved from error
            raise Unavailable(f"the lease was refused: {error.description}", service="nats") from error
        except (nats.errors.Error, JetStreamError, OSError) as error:
            raise Unavailable("the lease is not answered", service="nats") from error
        self._sequence = ack.seq
        self._until = began + self._seconds * (1 - MARGIN)
