"""The watch of a running catalog: what is lost, now and as it changes.

At the start and every few minutes all blobs and keys are compared with what must be there; the patrol reads the bytes.
What is derived is made again, damaged bytes are moved aside, and the rest is published until it is restored or given
up.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import structlog

from catalog.database import Connection
from catalog.domain.live_blobs import BlobReference
from catalog.settings import Settings
from catalog.store import Store
from catalog.views import live_blobs
from catalog.views.losses import AcceptedLoss, accepted_blobs
from catalog.watch.losses import Losses, blob_missing
from catalog.watch.patrol import DEFAULT_PATROL, Patrol, PatrolPolicy
from catalog.watch.presence import ReadModelExpected, find_losses
from catalog.watch.repair import Repairer
from contracts.errors import Behind, Lost, NotFound, Unavailable
from contracts.ids import Digest
from contracts.losses import LossReport
from contracts.retry import RetryPolicy, repeat
from contracts.telemetry import LossesFound
from contracts.wire.blobs.store import Blobs, LocalBlobs

ERRORS = (OSError, Unavailable, Behind)
"""A store or disk that does not answer now is no loss."""

REPAIRS_REPORTED = 100
"""Blobs made again between two reports: each costs as much as a list of all that is missing."""

Publish = Callable[[LossesFound], Awaitable[None]]

_log = structlog.get_logger()


class WatchPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """Intervals in seconds: of comparing all blobs and keys, and of publishing what is lost."""

    compare_every: float = 600.0
    compare_share: float = 0.1
    """Part of a core that a comparison takes: with many blobs it lasts seconds, and people work meanwhile."""
    publish_every: float = 5.0
    patrol: PatrolPolicy | None = DEFAULT_PATROL
    """None: bytes are read on demand only."""
    after_error: RetryPolicy = RetryPolicy(first_delay=30.0)


DEFAULT_WATCH = WatchPolicy()


def policy_for(settings: Settings, blobs: Blobs) -> WatchPolicy:
    """How often these blobs are compared, and how slowly their bytes are read."""
    patrol: PatrolPolicy | None = PatrolPolicy(round_seconds=settings.patrol_seconds)
    if not isinstance(blobs, LocalBlobs):
        rate, seconds = settings.patrol_remote_bytes / 3600, settings.patrol_seconds
        patrol = PatrolPolicy(round_seconds=seconds, bytes_per_second=rate) if rate else None
    return WatchPolicy(compare_every=settings.compare_seconds, patrol=patrol)


class Watch:
    """`run` is the background task; `losses` what is known to be missing."""

    def __init__(self, store: Store, blobs: Blobs, keys: Path, repairer: Repairer, policy: WatchPolicy) -> None:
        """`keys`: the path of the key file."""
        self._store, self._blobs, self._keys = store, blobs, keys
        self._repairer, self._policy = repairer, policy
        self._changed, self._found = asyncio.Event(), asyncio.Event()
        self.patrol = Patrol(blobs, self._on_damaged, policy.patrol or DEFAULT_PATROL)
        self.losses = Losses()
        self.report = LossReport()
        """Of `losses`."""

    async def run(self, publish: Publish) -> None:
        """Runs until cancelled."""

        async def announce() -> None:
            await publish(LossesFound(report=self.report))

        policy, after_error = self._policy, self._policy.after_error
        every = policy.compare_every
        compare = repeat(self.compare, every=every, on=ERRORS, warn="blobs_not_compared", after_error=after_error)
        repair = repeat(
            self._repair,
            every=every,
            on=ERRORS,
            warn="derived_blobs_not_made_again",
            after_error=after_error,
            wake=self._found,
        )
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(compare, name="compare")
            tasks.create_task(repair, name="repair")
            tasks.create_task(repeat(announce, every=policy.publish_every, wake=self._changed), name="announce")
            tasks.create_task(self.patrol.run_audits(), name="blob-audits")
            if policy.patrol is not None:
                patrol = repeat(
                    self.patrol.run_round, every=0.0, on=ERRORS, warn="blobs_not_patrolled", after_error=after_error
                )
                tasks.create_task(patrol, name="patrol")

    async def compare(self) -> Losses:
        """Compare everything now. OSError, Unavailable: the blobs cannot be listed."""
        at = datetime.now(UTC)
        expected = ReadModelExpected(self._store)
        share = self._policy.compare_share
        found = await find_losses(expected, self._blobs, self._keys, at=at, known=self.losses, share=share)
        for digest in found.damaged:  # before anybody learns of the loss: a repair takes a blob that exists for done
            await self._blobs.set_aside(digest)
        self._set(found)
        return found

    async def require_blob(self, digest: Digest) -> int:
        """The size of a blob, which is made again if it is a derived one.

        NotFound: nothing names it. BlobMissing: it is missing. Lost: its loss was accepted.
        """

        def read(connection: Connection) -> tuple[Sequence[BlobReference], AcceptedLoss | None]:
            known = self.losses.lost_blobs.get(digest)  # to find its names takes as long as to read all images
            names = known or live_blobs.of_digests(connection, [digest])
            return names, accepted_blobs(connection, [digest]).get(digest)

        if not await self._blobs.exists(digest):
            names, accepted = await self._store.read(read)
            if not names:
                raise NotFound(f"nothing names a blob {digest}")
            if accepted is not None:
                raise Lost(f"the {names[0].kind} of {names[0].owner} is {accepted.describe()}", blob=digest)
            if not await self._repair_one(names):
                if digest not in self.losses.lost_blobs:
                    self._set(self.losses.with_lost(names))
                raise blob_missing(names[0])
        if digest in self.losses.lost_blobs:
            self._set(self.losses.without({digest}))
        return await self._blobs.size(digest)

    async def _repair(self) -> None:
        """Make derived blobs again, one after another, and say so after every REPAIRS_REPORTED of them."""
        made: set[Digest] = set()
        try:
            for digest, names in list(self.losses.lost_blobs.items()):
                if digest in self.losses.lost_blobs and await self._repair_one(names):
                    made.add(digest)
                if len(made) >= REPAIRS_REPORTED:
                    self._set(self.losses.without(made))
                    made.clear()
        finally:
            self._set(self.losses.without(made))

    async def _repair_one(self, names: Sequence[BlobReference]) -> bool:
        for reference in names:
            if await self._repairer.repair(reference):
                return True
        return False

    async def _on_damaged(self, digest: Digest) -> None:
        """Damaged bytes are moved aside, so that the blob is missing everywhere and can be stored again."""
        names = await self._store.read(lambda connection: live_blobs.of_digests(connection, [digest]))
        if names:
            _log.error("blob_damaged", blob=digest, kind=names[0].kind, owner=names[0].owner)
            await self._blobs.set_aside(digest)
            self._set(self.losses.with_lost(names))

    def _set(self, losses: Losses) -> None:
        before, self.losses, self.report = self.losses, losses, losses.report()
        if losses.lost_blobs.keys() - before.lost_blobs.keys():
            self._found.set()
        if losses.lost_blobs.keys() != before.lost_blobs.keys() or losses.lost_keys != before.lost_keys:
            first = [loss.id for loss in self.report.first]
            _log.warning("losses_changed", counts=self.report.counts, first=first)
        self._changed.set()
