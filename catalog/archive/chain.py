"""Two chains of hashes over the commits: one through the whole log, one through the history of each thing. Pure.

Entry n of the log holds `sha256(chain of n-1 + sequence as 8 bytes + subject + body)`: whoever changes an old entry
changes every chain after it. And the body of each commit names the sha256 of the body of its thing's previous commit:
whoever computes the log's chain anew has to change those bodies as well.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, NamedTuple

import msgspec

from contracts.audit import Damage
from contracts.events import Commit
from contracts.ids import Digest
from contracts.subjects import fact

Row = tuple[int, str, str, str, bytes, bytes]
"""sequence, kind, thing, id, body, chain."""
VOIDED = b'"log.voided"'


@dataclass(frozen=True)
class Tail:
    """Where the archive ends: the last sequence and the chain's hash there."""

    sequence: int = 0
    chain: bytes = b""

    @property
    def digest(self) -> Digest:
        return Digest(self.chain.hex() or sha256().hexdigest())


class Knot(NamedTuple):
    """Where the history of one thing ends: the next commit of it must name this hash and count on from this version."""

    sequence: int = 0
    version: int = 0
    digest: str = ""


UNTIED = Knot()


@dataclass
class Walk:
    """How far the chains were computed again. `damage` is the first that was found; nothing after it was looked at."""

    sequence: int = 0
    chain: bytes = b""
    things: dict[tuple[str, str], Knot] = field(default_factory=dict)
    damage: Damage | None = None

    @property
    def tail(self) -> Tail:
        return Tail(self.sequence, self.chain)


class Envelope(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What the chains need of a commit; its facts are not looked into."""

    id: str
    kind: str
    thing: str
    version: int
    facts: tuple[msgspec.Raw, ...]
    previous: str = ""


_envelope = msgspec.json.Decoder(Envelope).decode


def link(before: bytes, sequence: int, subject: str, body: bytes) -> bytes:
    """The log's chain after this commit."""
    return sha256(before + sequence.to_bytes(8) + subject.encode() + body).digest()


def walk(rows: Iterable[Row], walked: Walk) -> None:
    """Both chains from the first entry on, up to the first that is not what was archived, or cannot be read."""
    before, expected, voided = b"", 1, 0
    things = walked.things
    for sequence, kind, thing, commit, body, chain in rows:
        if sequence != expected:
            walked.damage = _damage("missing", expected, f"the next entry is commit {sequence}")
            break
        if chain != link(before, sequence, fact(kind, thing), body):  # type: ignore[arg-type]  # as it stands there
            walked.damage = _damage("changed", sequence, "its hash is not the one that was archived with it")
            break
        try:
            found = _envelope(body)
        except msgspec.DecodeError as error:
            walked.damage = _damage("changed", sequence, f"it is no commit: {error}")
            break
        if found.id != commit or found.kind != kind or found.thing != thing:
            walked.damage = _damage("changed", sequence, "its row does not say what its body says")
            break
        knot = things.get((kind, thing), UNTIED)
        # Where a commit is lost for good, a void keeps its place; which thing it was of, nobody knows any more.
        if (why := misfit(found, knot)) and voided <= knot.sequence:
            walked.damage = _damage("rewritten", knot.sequence or sequence, why)
            break
        if kind == "log" and VOIDED in body:
            voided = sequence
        things[kind, thing] = Knot(sequence, found.version, sha256(body).hexdigest())
        before, expected = chain, sequence + 1
        walked.sequence, walked.chain = sequence, chain


def misfit(found: Envelope | Commit, before: Knot) -> str:
    """Empty when this commit continues the history of its thing, else why not."""
    if found.previous != before.digest:
        return f"what {found.kind} {found.thing} says next ({found.id}) builds on another commit"
    if found.version != before.version + len(found.facts):
        return f"what {found.kind} {found.thing} says next ({found.id}) does not count on from it"
    return ""


def tie(sequence: int, body: bytes) -> Knot:
    """The end of a history whose last commit this is."""
    return Knot(sequence, _envelope(body).version, sha256(body).hexdigest())


def _damage(kind: Any, sequence: int, why: str) -> Damage:
    return Damage(where="archive", kind=kind, first_bad=sequence, detail=f"commit {sequence} of the archive: {why}")
