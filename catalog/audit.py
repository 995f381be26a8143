"""The audit: all computed again and laid beside each other, and where history ends, signed to be kept elsewhere."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from catalog.archive import Archive, Comparison, Walk, compare, dated
from catalog.keys import Keys
from catalog.store import Store
from contracts.audit import AuditHead, AuditReport, Damage, Kind
from contracts.errors import Conflict
from contracts.ids import Digest
from contracts.queries import GetAuditHead, Query, VerifyLog
from contracts.wire.log import EventLog


class Auditor:
    """Of one archive, the log it was made from, and the key that heads are signed with."""

    def __init__(self, archive: Archive, log: EventLog, keys: Keys) -> None:
        self._archive = archive
        self._log = log
        self._keys = keys
        self._at_work = asyncio.Lock()

    async def head(self) -> AuditHead:
        """Where the archive ends now, signed."""
        tail = self._archive.tail
        head = AuditHead(
            log_id=self._archive.log_id,
            sequence=tail.sequence,
            chain=tail.digest,
            at=datetime.now(UTC).replace(microsecond=0),
            public_key=(await self._keys.public_key()).hex(),
        )
        return msgspec.structs.replace(head, signature=(await self._keys.sign(head.signed())).hex())

    async def verify(self, head: AuditHead | None = None) -> AuditReport:
        """All hashes of the archive again, every commit of the log beside it, and a head that was exported before.

        Conflict: it is being done already. Unavailable: the log does not answer.
        """
        if self._at_work.locked():
            raise Conflict("the log is being verified already; ask again when that is over")
        async with self._at_work:
            began = time.perf_counter()
            walked = await self._archive.walk()
            walked_at = time.perf_counter()
            readable = walked.damage is None or walked.damage.kind != "unreadable"
            comparison = (
                await compare(self._archive, self._log, await self._archive.end()) if readable else Comparison()
            )
            compared_at = time.perf_counter()
            damage = [walked.damage] if walked.damage else []
            damage += comparison.damage
            damage += [found] if head and (found := await self._judged(head, walked)) else []
            return AuditReport(
                log_id=await self._archive.belongs_to(),
                commits=walked.tail.sequence,
                things=len(walked.things),
                compared=comparison.compared,
                chain=walked.tail.digest,
                damage=tuple([await dated(self._archive, one) for one in damage]),
                archive_seconds=round(walked_at - began, 3),
                log_seconds=round(compared_at - walked_at, 3),
            )

    async def _judged(self, head: AuditHead, walked: Walk) -> Damage | None:
        """Is history up to this head still what it was when it was signed?"""
        of = f"the head of commit {head.sequence}, signed at {head.at:%Y-%m-%d %H:%M:%S} UTC,"
        if not genuine(head):
            return _of_head("changed", head.sequence, f"{of} was changed after it was signed")
        if walked.tail.sequence < head.sequence:
            end = walked.tail.sequence
            return _of_head("missing", end + 1, f"{of} names more commits than there are: history ends at {end}")
        chain = await self._archive.chain_at(head.sequence)
        if chain is None or Digest(chain.hex()) != head.chain:
            return _of_head("rewritten", head.sequence, f"{of} has another hash: a commit up to it was rewritten since")
        return None


def genuine(head: AuditHead) -> bool:
    """Was it signed with the key it names? Whose key that is must be known from elsewhere."""
    try:
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(head.public_key))
        key.verify(bytes.fromhex(head.signature), head.signed())
    except (InvalidSignature, ValueError):
        return False
    return True


def handlers(auditor: Auditor, store: Store) -> dict[type[Query[Any]], Callable[[Any], Awaitable[msgspec.Struct]]]:
    """The questions about the log's soundness."""

    async def get_head(query: GetAuditHead) -> AuditHead:
        await store.wait_for(query.min_seq)
        return await auditor.head()

    async def verify(query: VerifyLog) -> AuditReport:
        await store.wait_for(query.min_seq)
        return await auditor.verify(query.head)

    return {GetAuditHead: get_head, VerifyLog: verify}


def _of_head(kind: Kind, first_bad: int, detail: str) -> Damage:
    return Damage(where="head", kind=kind, first_bad=first_bad, detail=detail)
