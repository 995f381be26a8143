"""Results of auditing the log: the signed end of history, damage found, and the comparison of a replay."""

from datetime import datetime
from typing import Literal

import msgspec

from contracts.errors import LogDamaged
from contracts.ids import Digest
from contracts.losses import LossReport, loss_lines

DamageLocation = Literal["log", "archive", "head"]
DamageKind = Literal["missing", "changed", "rewritten", "replaced", "unreadable", "unsigned"]


class Damage(msgspec.Struct, frozen=True, kw_only=True):
    """One point where history differs from what was recorded: in the log, in its archive, or from an exported head.

    `first_bad` is the sequence of the first commit that cannot be trusted. `missing` and `changed` count the archived
    commits that the log lacks or has with other bytes. `since`: when the last good commit before it was recorded.
    Kinds: `missing`: the commit is absent. `changed`: not the archived bytes. `rewritten`: consistent hashes over
    another history. `replaced`: another log. `unreadable`: the archive file is broken. `unsigned`: archived as accepted
    although no known writer signed it.
    """

    where: DamageLocation
    kind: DamageKind
    first_bad: int
    detail: str
    missing: int = 0
    changed: int = 0
    since: datetime | None = None


class AuditHead(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The signed end of the log at a point in time; kept elsewhere, it later proves that history was not rewritten.

    `chain` is the hash over all commits up to and including `sequence`. `public_key` and `signature` are Ed25519
    (RFC 8032) in hex, over `signed_bytes()`.
    """

    log_id: str
    sequence: int
    chain: Digest
    at: datetime
    public_key: str
    signature: str = ""

    def signed_bytes(self) -> bytes:
        """The lines that are signed; `at` in UTC, whole seconds."""
        lines = ("loratory audit head 1", self.log_id, str(self.sequence), self.chain, f"{self.at:%Y-%m-%dT%H:%M:%SZ}")
        return "\n".join(lines).encode()


class AuditReport(msgspec.Struct, frozen=True, kw_only=True):
    """The result of recomputing every hash and checking every signature. Without damage, history is intact.

    The hashes of `commits` archived commits of `aggregates` aggregates were recomputed, and `compared` of the commits
    compared with the log. `foreign` of them are messages that no known writer appended; they changed nothing. `chain`
    is the hash over all of them. `archive_seconds`, `log_seconds` and `signature_seconds` are durations.
    `losses`: which stored bytes and keys are missing; history can be intact all the same. `cure`: of damage, a command
    with the folders of this workshop.
    """

    log_id: str
    commits: int
    aggregates: int
    foreign: int
    compared: int
    chain: Digest
    damage: tuple[Damage, ...]
    archive_seconds: float
    log_seconds: float
    signature_seconds: float
    losses: LossReport = msgspec.field(default_factory=LossReport)
    cure: str = ""

    @property
    def is_intact(self) -> bool:
        return not self.damage


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """A row of the read model that differs from what a replay of the log produces.

    `key` is its key in the table. `live` and `replayed` are the differing columns, or all columns where the other side
    has no such row (null). Long values are cut.
    """

    table: str
    key: dict[str, object]
    live: dict[str, object] | None
    replayed: dict[str, object] | None


class ReplayReport(msgspec.Struct, frozen=True, kw_only=True):
    """The result of rebuilding every read model from the archive, next to the live one, and comparing the two.

    `never`: not requested since the catalog started. `running`: at commit `sequence` of `until`. `same` and
    `different`: compared as of commit `sequence`; `rows` equal rows by table, up to the first `difference`. `failed`:
    it could not be completed, and `error` says why.
    """

    state: Literal["never", "running", "same", "different", "failed"]
    sequence: int = 0
    until: int = 0
    rows: dict[str, int] = {}
    difference: Difference | None = None
    error: str | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None

    @property
    def ended(self) -> bool:
        return self.state in {"same", "different", "failed"}


def summary_lines(report: AuditReport) -> list[str]:
    """The report as lines of text."""
    lines = [
        f"log      {report.log_id}",
        f"archive  {report.commits} commits of {report.aggregates} aggregates in {report.archive_seconds:.2f} s",
        f"log      {report.compared} of them compared in {report.log_seconds:.2f} s",
        f"chain    {report.chain}",
        f"signed   by known writers, checked in {report.signature_seconds:.2f} s",
    ]
    if report.foreign:
        lines.append(f"foreign  {report.foreign} messages that nobody known appended; they changed nothing")
    damage = [f"{one.where} {one.kind} from commit {one.first_bad} on: {one.detail}" for one in report.damage]
    cure = [report.cure] if report.cure else []
    return [*lines, *loss_lines(report.losses), *(damage or ["history is intact"]), *cure]


def damage_error(damage: Damage) -> LogDamaged:
    """The error that stops a service, with the fields of the damage as extra members."""
    extra = {name: value for name, value in msgspec.to_builtins(damage).items() if name != "detail" and value}
    return LogDamaged(damage.detail, **extra)
