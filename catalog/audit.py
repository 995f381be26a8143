"""The audit: recomputes all hashes, checks all signatures, compares log and archive, exports the end, signed."""

import asyncio
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from catalog.archive.archive import Archive
from catalog.archive.chain import ChainVerification
from catalog.archive.compare import Comparison, compare, with_last_good_time
from catalog.archive.signatures import check_signatures
from catalog.keys import Keys
from catalog.store import Store
from catalog.watch.watch import Watch
from contracts.audit import AuditHead, AuditReport, Damage, DamageKind
from contracts.errors import Conflict
from contracts.ids import Digest
from contracts.queries.log import GetAuditHead, VerifyLog
from contracts.wire.log.event_log import EventLog
from contracts.wire.service.requests import QueryHandlers

NameCures = Callable[[AuditReport], AuditReport]
"""Adds to a report the commands that cure what it found."""


class Auditor:
    """Audits one archive and its log; signs audit heads with the catalog's key."""

    def __init__(self, archive: Archive, log: EventLog, keys: Keys) -> None:
        self._archive = archive
        self._log = log
        self._keys = keys
        self._running = asyncio.Lock()

    async def head(self) -> AuditHead:
        """The end of the archive now, signed."""
        tail = self._archive.tail
        head = AuditHead(
            log_id=self._archive.log_id,
            sequence=tail.sequence,
            chain=tail.digest,
            at=datetime.now(UTC).replace(microsecond=0),
            public_key=(await self._keys.public_key()).hex(),
        )
        return msgspec.structs.replace(head, signature=(await self._keys.create_signature(head.signed_bytes())).hex())

    async def verify(self, head: AuditHead | None = None) -> AuditReport:
        """Recompute all hashes and check all signatures of the archive, compare every commit of the log, check a head.

        Conflict: another verification is running. Unavailable: the log does not respond.
        """
        if self._running.locked():
            raise Conflict("the log is being verified already; try again when that is finished")
        async with self._running:
            started_at = time.perf_counter()
            verification = await self._archive.verify_chains()
            verified_at = time.perf_counter()
            readable = verification.damage is None or verification.damage.kind != "unreadable"
            comparison = (
                await compare(self._archive, self._log, await self._archive.end()) if readable else Comparison()
            )
            compared_at = time.perf_counter()
            unsigned = await check_signatures(self._archive, verification.sequence) if readable else ()
            checked_at = time.perf_counter()
            damage = [verification.damage] if verification.damage else []
            damage += comparison.damage
            damage += _unsigned_damage(unsigned)
            damage += [head_damage] if head and (head_damage := await self._check_head(head, verification)) else []
            return AuditReport(
                log_id=await self._archive.belongs_to(),
                commits=verification.tail.sequence,
                aggregates=len(verification.chain_heads),
                foreign=verification.foreign,
                compared=comparison.compared,
                chain=verification.tail.digest,
                damage=tuple([await with_last_good_time(self._archive, one) for one in damage]),
                archive_seconds=round(verified_at - started_at, 3),
                log_seconds=round(compared_at - verified_at, 3),
                signature_seconds=round(checked_at - compared_at, 3),
            )

    async def _check_head(self, head: AuditHead, verification: ChainVerification) -> Damage | None:
        """The damage if history up to this head changed since it was signed."""
        found: tuple[DamageKind, int, str]
        end, chain = verification.tail.sequence, await self._archive.chain_at(head.sequence)
        if not is_genuine(head):
            found = "changed", head.sequence, "was changed after it was signed"
        elif end < head.sequence:
            found = "missing", end + 1, f"names more commits than there are: history ends at {end}"
        elif chain is None or Digest(chain.hex()) != head.chain:
            found = "rewritten", head.sequence, "has another hash: a commit up to it was rewritten since"
        else:
            return None
        kind, first_bad, why = found
        signed = f"the head of commit {head.sequence}, signed at {head.at:%Y-%m-%d %H:%M:%S} UTC,"
        return Damage(where="head", kind=kind, first_bad=first_bad, detail=f"{signed} {why}")


def _unsigned_damage(sequences: Sequence[int]) -> list[Damage]:
    if not sequences:
        return []
    listed = ", ".join(map(str, sequences[:10]))
    detail = f"commits that no known writer signed are in the archive as accepted: {listed}"
    return [Damage(where="archive", kind="unsigned", first_bad=sequences[0], changed=len(sequences), detail=detail)]


def is_genuine(head: AuditHead) -> bool:
    """Whether it was signed with the key it names; whose key that is must be verified elsewhere."""
    try:
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(head.public_key))
        key.verify(bytes.fromhex(head.signature), head.signed_bytes())
    except (InvalidSignature, ValueError):
        return False
    return True


def handlers(auditor: Auditor, store: Store, watch: Watch, name_cures: NameCures) -> QueryHandlers:
    """The query handlers of audits. Verifying also compares what is stored with what must be there."""

    async def get_head(query: GetAuditHead) -> AuditHead:
        await store.wait_for(query.min_seq)
        return await auditor.head()

    async def verify(query: VerifyLog) -> AuditReport:
        await store.wait_for(query.min_seq)
        report = await auditor.verify(query.head)
        return name_cures(msgspec.structs.replace(report, losses=(await watch.compare()).report()))

    return {GetAuditHead: get_head, VerifyLog: verify}
