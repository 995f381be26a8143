"""Two hash chains over the commits: one through the whole log, one through the history of each aggregate. Pure.

Entry n of the log holds `sha256(hash of entry n-1 + sequence as 8 bytes + subject + signature + body)`, with line
breaks between the last three, so changing an old entry changes every hash after it. The body of each commit also names
the sha256 of the body of its aggregate's previous commit, so recomputing the log's chain alone is not enough to hide a
change. Foreign messages are in the first chain only.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from hashlib import sha256

import msgspec

from contracts import subjects
from contracts.audit import Damage, DamageKind
from contracts.commits import Commit, StreamRevision
from contracts.ids import Digest

ArchiveRow = tuple[int, str, str, str, bytes, bytes, str, str]
"""sequence, aggregate kind, aggregate id, commit id, body, chain hash, signature, why it is foreign."""
VOIDED = b'"log.voided"'
NEW = StreamRevision()


@dataclass(frozen=True)
class Tail:
    """Where the archive ends: its last sequence, and the log's chain hash there."""

    sequence: int = 0
    chain: bytes = b""

    @property
    def digest(self) -> Digest:
        return Digest(self.chain.hex() or sha256().hexdigest())


@dataclass
class ChainVerification:
    """Progress of recomputing the chains. `damage` is the first damage found; nothing after it was checked.

    `chain_heads`: the last commit of each aggregate. The next one must name its digest and continue from its version.
    `foreign`: the number of foreign messages. `voided`: the sequence of the newest void commit.
    """

    sequence: int = 0
    chain: bytes = b""
    chain_heads: dict[tuple[str, str], StreamRevision] = field(default_factory=dict)
    damage: Damage | None = None
    foreign: int = 0
    voided: int = 0

    @property
    def tail(self) -> Tail:
        return Tail(self.sequence, self.chain)


class Envelope(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The fields of a commit that the chains need; its events are not decoded."""

    id: str
    aggregate_kind: str
    aggregate_id: str
    version: int
    events: tuple[msgspec.Raw, ...]
    previous_hash: str = ""


_envelope = msgspec.json.Decoder(Envelope).decode


def chain_hash(previous: bytes, sequence: int, subject: str, signature: str, body: bytes) -> bytes:
    """The log's chain hash after this message."""
    parts = (previous, sequence.to_bytes(8), subject.encode(), b"\n", signature.encode(), b"\n", body)
    return sha256(b"".join(parts)).digest()


def verify_chains(rows: Iterable[ArchiveRow], verification: ChainVerification) -> None:
    """Recompute both chains from the first entry on; stop at the first entry that was changed or cannot be read."""
    for row in rows:
        sequence, aggregate_kind, aggregate_id, _, body, chain, signature, foreign = row
        expected = verification.sequence + 1
        if sequence != expected:
            verification.damage = _damage("missing", expected, f"the next entry is commit {sequence}")
            break
        subject = subjects.aggregate(aggregate_kind, aggregate_id)
        if chain != chain_hash(verification.chain, sequence, subject, signature, body):
            verification.damage = _damage("changed", sequence, "its hash differs from the archived one")
            break
        if foreign:
            verification.foreign += 1
        elif damage := _continue_history(row, verification):
            verification.damage = damage
            break
        verification.sequence, verification.chain = sequence, chain


def _continue_history(row: ArchiveRow, verification: ChainVerification) -> Damage | None:
    """Whether the commit of this row continues the history of its aggregate."""
    sequence, aggregate_kind, aggregate_id, commit_id, body, *_ = row
    try:
        commit = _envelope(body)
    except msgspec.DecodeError as error:
        return _damage("changed", sequence, f"it is not a commit: {error}")
    if (commit.id, commit.aggregate_kind, commit.aggregate_id) != (commit_id, aggregate_kind, aggregate_id):
        return _damage("changed", sequence, "its columns contradict its body")
    chain_head = verification.chain_heads.get((aggregate_kind, aggregate_id), NEW)
    # A void commit replaces a lost one of an unknown aggregate, so a gap in any history before it is accepted.
    if (why := check_link(commit, chain_head)) and verification.voided <= chain_head.sequence:
        return _damage("rewritten", chain_head.sequence or sequence, why)
    if aggregate_kind == "log" and VOIDED in body:
        verification.voided = sequence
    head = StreamRevision(sequence, commit.version, sha256(body).hexdigest())
    verification.chain_heads[aggregate_kind, aggregate_id] = head
    return None


def check_link(commit: Envelope | Commit, previous: StreamRevision) -> str:
    """Empty if this commit continues the history of its aggregate, else the reason why not."""
    if commit.previous_hash != previous.digest:
        return f"the next commit of {commit.aggregate_kind} {commit.aggregate_id} ({commit.id}) follows another commit"
    if commit.version != previous.version + len(commit.events):
        return f"the next commit of {commit.aggregate_kind} {commit.aggregate_id} ({commit.id}) skips a version"
    return ""


def advance(sequence: int, body: bytes) -> StreamRevision:
    """The chain head of an aggregate after this commit."""
    return StreamRevision(sequence, _envelope(body).version, sha256(body).hexdigest())


def _damage(kind: DamageKind, sequence: int, why: str) -> Damage:
    return Damage(where="archive", kind=kind, first_bad=sequence, detail=f"commit {sequence} of the archive: {why}")
