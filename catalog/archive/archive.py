"""The catalog's archive: verifies that the log on the server is the one that was archived."""

import asyncio
from collections.abc import Awaitable
from pathlib import Path

import msgspec
import structlog

from catalog.archive.chain import Tail
from catalog.archive.compare import REPAIR_ADVICE, compare, ends_agree, with_last_good_time
from catalog.archive.file import ArchiveFile
from catalog.archive.rows import ARCHIVE
from catalog.database import MAX_SEQUENCE
from contracts.audit import Damage, damage_error
from contracts.errors import LogDamaged, SetupError, Unavailable
from contracts.retry import RetryPolicy, repeat
from contracts.wire.log.event_log import EventLog
from contracts.wire.log.scan import log_state
from contracts.wire.service.boot import leaf_errors

_log = structlog.get_logger(__name__)


class VerificationPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """How much of the log is compared with the archive, and when."""

    max_commits_at_start: int = 50_000
    max_bytes_at_start: int = 64 << 20
    """A log up to this long, with an archive up to this large, is compared before the catalog serves (a second); others
    in the background."""
    interval_seconds: float = 24 * 3600.0
    """Time between two periodic verifications."""
    retry: RetryPolicy = RetryPolicy(first_delay=60.0)
    """When a periodic verification starts over after the log did not respond."""
    bits_per_second: int = 16_000_000
    """Read limit of the periodic verification: some thousand commits per second, a few hundredths of a core."""


DEFAULT_POLICY = VerificationPolicy()
COMPARE_ALL_AT_START = VerificationPolicy(max_commits_at_start=MAX_SEQUENCE, max_bytes_at_start=MAX_SEQUENCE)


class Archive(ArchiveFile):
    """Verifies that a log is the archived one, complete and unchanged; otherwise the catalog does not serve."""

    def __init__(self, folder: Path, policy: VerificationPolicy = DEFAULT_POLICY) -> None:
        super().__init__(folder)
        self._policy = policy
        self._fully_compared = False
        """Whether every commit was compared, not only the last one."""
        self._chains_verified = False

    async def verify_on_start(self, log: EventLog) -> str:
        """Verify that this log is the archived one; returns its id. LogDamaged names the first bad sequence.

        Only the catalog verifies the log, and before any service writes. An empty archive adopts the log.
        """
        self.tail = await self.end()
        is_short = await self._is_short()
        if is_short:
            await self.verify()
        self._fully_compared = is_short or not await ends_agree(self, log, self.tail)
        if self._fully_compared:
            await self.ensure_verified()
            await self._compare(log)
        state = await log_state(log.bus)
        if state.last == 0:
            raise SetupError("the event log is empty: the migrate step must run first")
        if self.tail.sequence == 0 and (noted_log_id := self.noted_log_id()):
            if noted_log_id != state.log_id:
                raise LogDamaged(
                    f"this server holds the log {state.log_id}, but {noted_log_id} was archived here", first_bad=1
                )
            _log.warning("archive_recreated", log_id=noted_log_id)  # nothing is left to verify this log against
        await self.set_log_id(state.log_id)
        self.verified = True
        return state.log_id

    async def _is_short(self) -> bool:
        size = (await asyncio.to_thread(self._path.stat)).st_size
        return self.tail.sequence <= self._policy.max_commits_at_start and size <= self._policy.max_bytes_at_start

    async def verify(self) -> Tail:
        """Recompute the archive's own chains; LogDamaged at the first entry that was changed."""
        verification = await self.verify_chains()
        if verification.damage:
            raise damage_error(await with_last_good_time(self, verification.damage))
        self._chains_verified = True
        return verification.tail

    async def ensure_verified(self) -> None:
        """Verify the chains unless that was done, before anything is computed from the archive. As `verify`."""
        if not self._chains_verified:
            await self.verify()

    async def verify_periodically(self, log: EventLog) -> None:
        """Compare the whole log slowly, again and again, until cancelled. LogDamaged at a difference.

        What `verify_on_start` left out comes first, at once.
        """

        async def compare_slowly() -> None:
            await self._compare(log, bits=policy.bits_per_second)
            _log.info("log_compared", commits=self.tail.sequence)

        policy = self._policy
        await self.ensure_verified()
        if self._fully_compared:
            await asyncio.sleep(policy.interval_seconds)
        await repeat(
            compare_slowly,
            every=policy.interval_seconds,
            on=Unavailable,
            warn="log_not_compared",
            after_error=policy.retry,
        )

    async def explain_damage(self, work: Awaitable[object]) -> None:
        """Await `work`; if it raises LogDamaged, add when the last good commit was recorded and how to repair it."""
        try:
            await work
        except (LogDamaged, BaseExceptionGroup) as error:
            log_damaged = next((leaf for leaf in leaf_errors(error) if isinstance(leaf, LogDamaged)), None)
            first_bad = log_damaged.extra.get("first_bad") if log_damaged else None
            if log_damaged is None or not isinstance(first_bad, int):
                raise
            summary = f"{log_damaged.detail}; it cannot be trusted from commit {first_bad} on{REPAIR_ADVICE}"
            damage = await with_last_good_time(
                self, Damage(where="log", kind="missing", first_bad=first_bad, detail=summary)
            )
            since = {"since": damage.since.isoformat()} if damage.since else {}
            raise LogDamaged(damage.detail, **{**log_damaged.extra, **since}) from error

    async def _compare(self, log: EventLog, *, bits: int | None = None) -> None:
        comparison = await compare(self, log, self.tail, bits=bits)
        if comparison.damage:
            raise damage_error(comparison.damage[0])


def open_archive(folder: Path) -> Archive:
    """The archive in a folder, open. SetupError if there is none; it is not created."""
    if not (folder / ARCHIVE).is_file():
        raise SetupError(f"there is no archive in {folder}")
    return Archive(folder)
