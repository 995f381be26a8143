"""Two hash chains over the commits: one through the whole log, one through the history of each aggregate. Pure.

Entry n of the log holds `sha256(hash of entry n-1 + sequence as 8 bytes + subject + body)`, so changing an old entry
changes every hash after it. The body of each commit also names the sha256 of the body of its aggregate's previous
commit, so recomputing the log's chain alone is not enough to hide a change.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from hashlib import sha256

import msgspec

from contracts import subjects
from contracts.audit import Damage, DamageKind
from contracts.commits import Commit, StreamRevision
from contracts.ids import Digest

ArchiveRow = tuple[int, str, str, str, bytes, bytes]
"""sequence, aggregate kind, aggregate id, commit id, body, chain hash."""
VOIDED = b'"log.voided"'


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
    """

    sequence: int = 0
    chain: bytes = b""
    chain_heads: dict[tuple[str, str], StreamRevision] = field(default_factory=dict)
    damage: Damage | None = None

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


def chain_hash(previous: bytes, sequence: int, subject: str, body: bytes) -> bytes:
    """The log's chain hash after this commit."""
    return sha256(previous + sequence.to_bytes(8) + subject.encode() + body).digest()


def verify_chains(rows: Iterable[ArchiveRow], verification: ChainVerification) -> None:
    """Recompute both chains from the first entry on; stop at the first entry that was changed or cannot be read."""
    previous, expected, voided, new = b"", 1, 0, StreamRevision()
    chain_heads = verification.chain_heads
    for sequence, aggregate_kind, aggregate_id, commit_id, body, chain in rows:
        if sequence != expected:
            verification.damage = _damage("missing", expected, f"the next entry is commit {sequence}")
            break
        subject = subjects.aggregate(aggregate_kind, aggregate_id)
        if chain != chain_hash(previous, sequence, subject, body):
            verification.damage = _damage("changed", sequence, "its hash differs from the archived one")
            break
        try:
            commit = _envelope(body)
        except msgspec.DecodeError as error:
            verification.damage = _damage("changed", sequence, f"it is not a commit: {error}")
            break
        if commit.id != commit_id or commit.aggregate_kind != aggregate_kind or commit.aggregate_id != aggregate_id:
            verification.damage = _damage("changed", sequence, "its columns contradict its body")
            break
        chain_head = chain_heads.get((aggregate_kind, aggregate_id), new)
        # A void commit replaces a lost one of an unknown aggregate, so a gap in any history before it is accepted.
        if (why := check_link(commit, chain_head)) and voided <= chain_head.sequence:
            verification.damage = _damage("rewritten", chain_head.sequence or sequence, why)
            break
        if aggregate_kind == "log" and VOIDED in body:
            voided = sequence
        chain_heads[aggregate_kind, aggregate_id] = StreamRevision(sequence, commit.version, sha256(body).hexdigest())
        previous, expected = chain, sequence + 1
        verification.sequence, verification.chain = sequence, chain


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
