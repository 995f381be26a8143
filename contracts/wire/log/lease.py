"""Single-writer lease: a JetStream KV key with a TTL, renewed by its holder.

A waiting catalog acquires it when it has expired, when it was released, or when its holder ran on this machine and is
dead. The holder counts from the moment it sent its request, by its own clock; a process that was stopped for longer
refuses to write when it resumes, before it has seen the other holder. Expected sequences are the safety net.
"""

import asyncio
from typing import NoReturn

import msgspec
import structlog
from nats.aio.client import Client
from nats.js.api import Header
from nats.js.errors import APIError

from contracts import subjects
from contracts.cancellation import not_cancelled
from contracts.errors import Unavailable
from contracts.ids import ulid
from contracts.retry import Outage
from contracts.wire.log.process_identity import ProcessIdentity
from contracts.wire.service.jetstream import NATS_ERRORS, find_message

LEASE_SECONDS = 10.0
"""Time after the last renewal until another catalog can acquire it. Whole seconds: the server rounds."""
RENEWALS_PER_LEASE = 4
SAFETY_MARGIN = 0.1
"""Fraction of the lease that is not used: replies take time, and clocks run at different rates."""
POLL_SECONDS = 0.5
REPLY_TIMEOUT_SECONDS = 2.0
RELEASE_TIMEOUT_SECONDS = 1.0
WRONG_SEQUENCE = frozenset({10071, 10164})

_log = structlog.get_logger()


class LeaseLost(Unavailable):
    """Another catalog may be writing now; this one must not."""


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """The value of the key: who holds the lease; `holder` is empty after a release."""

    holder: str
    process: ProcessIdentity


class _KeyChanged(Exception):
    """Another process wrote the key meanwhile, or it expired."""


class Lease:
    """`acquire` it, run `keep_renewed` beside the work, and call `check` before each write."""

    def __init__(self, bus: Client, *, seconds: float = LEASE_SECONDS, process: ProcessIdentity | None = None) -> None:
        self._js = bus.jetstream(timeout=REPLY_TIMEOUT_SECONDS)
        self._seconds = seconds
        self._claim = Claim(holder=ulid(), process=process or ProcessIdentity.current())
        self._sequence = 0
        self._valid_until = 0.0

    @property
    def is_held(self) -> bool:
        """Whether the lease is certainly held, by a clock that keeps running while the process is stopped."""
        return asyncio.get_running_loop().time() < self._valid_until

    def check(self) -> None:
        """LeaseLost unless this process may write."""
        if not self.is_held:
            raise LeaseLost(
                "the lease of this catalog has expired; another catalog may be writing now", service="catalog"
            )

    async def acquire(self) -> None:
        """Returns once this process holds the lease."""
        outage, standby = Outage("lease_not_readable"), False
        while not_cancelled():
            try:
                if await self._try_acquire():
                    _log.info("lease_acquired", sequence=self._sequence)
                    return
            except _KeyChanged:
                continue  # another process was faster; read the key again
            except Unavailable as error:
                outage.begun(error)
            else:
                outage.ended()
                if not standby:
                    _log.info("another_catalog_writes")
                standby = True
            await asyncio.sleep(POLL_SECONDS)
        raise asyncio.CancelledError

    async def keep_renewed(self) -> None:
        """Renews the lease until cancelled, then releases it. LeaseLost when another process holds or has held it."""
        outage = Outage("lease_not_renewed")
        try:
            while not_cancelled():
                await asyncio.sleep(self._seconds / RENEWALS_PER_LEASE)
                try:
                    await self._renew()
                except LeaseLost:
                    raise
                except Unavailable as error:
                    outage.begun(error)
                else:
                    outage.ended()
        finally:
            await self._release()

    async def _try_acquire(self) -> bool:
        sequence, claim = await self._read()
        if claim is not None and claim.holder and not claim.process.is_dead:
            return False
        await self._write(sequence)
        return True

    async def _renew(self) -> None:
        try:
            await self._write(self._sequence)
        except _KeyChanged:
            await self._resolve_conflict()

    async def _resolve_conflict(self) -> None:
        """The key has changed: our own renewal without its reply, an expiry, or a loss to another process?"""
        sequence, claim = await self._read()
        if claim is not None and claim.holder == self._claim.holder:
            await self._write_again(sequence)
        elif claim is None:
            before = self._sequence
            await self._write_again(0)
            if self._sequence != before + 1:
                # Another process held it in between and may have appended commits unknown to this one.
                self._raise_lost()
        else:
            self._raise_lost()

    async def _write_again(self, sequence: int) -> None:
        try:
            await self._write(sequence)
        except _KeyChanged:
            self._raise_lost()

    def _raise_lost(self) -> NoReturn:
        self._valid_until = 0.0
        raise LeaseLost("another catalog has acquired the lease", service="catalog")

    async def _release(self) -> None:
        if not self.is_held:
            return
        self._valid_until = 0.0
        self._claim = Claim(holder="", process=self._claim.process)
        try:
            async with asyncio.timeout(RELEASE_TIMEOUT_SECONDS):
                await self._write(self._sequence)
        except (_KeyChanged, Unavailable, TimeoutError):
            _log.warning("lease_not_released", seconds=self._seconds)
        self._valid_until = 0.0

    async def _read(self) -> tuple[int, Claim | None]:
        """Sequence and value of the key as the stream's leader has it; (0, None) if absent."""
        message = await find_message(self._js, subjects.LEASES, subject=subjects.WRITER)
        if message is None:
            return 0, None
        return message.seq or 0, msgspec.json.decode(message.data or b"", type=Claim)

    async def _write(self, expected_sequence: int) -> None:
        """Writes our claim if the key is still at `expected_sequence` (0: absent); otherwise _KeyChanged."""
        began = asyncio.get_running_loop().time()
        headers: dict[str, str] = {Header.EXPECTED_LAST_SUBJECT_SEQUENCE: str(expected_sequence)}
        try:
            body = msgspec.json.encode(self._claim)
            ack = await self._js.publish(
                subjects.WRITER, body, stream=subjects.LEASES, headers=headers, msg_ttl=self._seconds
            )
        except APIError as error:
            if error.err_code in WRONG_SEQUENCE:
                raise _KeyChanged from error
            raise Unavailable(f"the lease was refused: {error.description}", service="nats") from error
        except NATS_ERRORS as error:
            raise Unavailable("the lease cannot be written", service="nats") from error
        self._sequence = ack.seq
        self._valid_until = began + self._seconds * (1 - SAFETY_MARGIN)
