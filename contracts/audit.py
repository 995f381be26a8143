"""What an audit of the log says: where history ends, signed, and what is wrong with it."""

from datetime import datetime
from typing import Literal

import msgspec

from contracts.errors import LogDamaged
from contracts.ids import Digest

Where = Literal["log", "archive", "head"]
Kind = Literal["missing", "changed", "rewritten", "replaced", "unreadable"]


class Damage(msgspec.Struct, frozen=True, kw_only=True):
    """One place where history is not what it was: in the log, in its archive, or in a head that was exported.

    `first_bad` is the sequence of the first commit that cannot be trusted. Of the archived commits the log lacks
    `missing` and has `changed` otherwise. `since`: when the last good commit before it was recorded.
    `missing`: it is not there. `changed`: not the bytes that were archived. `rewritten`: hashes that fit, over another
    history. `replaced`: another log. `unreadable`: the file of the archive is broken.
    """

    where: Where
    kind: Kind
    first_bad: int
    detail: str
    missing: int = 0
    changed: int = 0
    since: datetime | None = None


class AuditHead(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the log ended at a time, signed: kept elsewhere, it shows later that history was not rewritten since.

    `chain` is the hash over all commits up to and with `sequence`. `public_key` and `signature` are Ed25519 (RFC 8032)
    in hex; what is signed is `signed()`.
    """

    log_id: str
    sequence: int
    chain: Digest
    at: datetime
    public_key: str
    signature: str = ""

    def signed(self) -> bytes:
        """The lines that the signature is over; `at` in UTC, whole seconds."""
        lines = ("loratory audit head 1", self.log_id, str(self.sequence), self.chain, f"{self.at:%Y-%m-%dT%H:%M:%SZ}")
        return "\n".join(lines).encode()


class AuditReport(msgspec.Struct, frozen=True, kw_only=True):
    """What was found when everything was computed again. No damage: history is whole.

    `commits` archived commits whose hashes were computed again, of `things` things; `compared` of them were laid beside
    the log's. `chain` is the hash over them all. `seconds` it took for hashes and comparison.
    """

    log_id: str
    commits: int
    things: int
    compared: int
    chain: Digest
    damage: tuple[Damage, ...]
    archive_seconds: float
    log_seconds: float

    @property
    def whole(self) -> bool:
        return not self.damage


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """A row of a read model that is not what the log makes of it.

    `key` names it in its table. `live` and `replayed` are the columns that differ, or all where one side has no such
    row (null). Long values are cut.
    """

    table: str
    key: dict[str, object]
    live: dict[str, object] | None
    replayed: dict[str, object] | None


class ReplayReport(msgspec.Struct, frozen=True, kw_only=True):
    """What came of making every read model anew from the archive, beside the live one.

    `never`: nobody has asked since the catalog started. `running`: at commit `sequence` on its way to `until`. `same`
    and `different`: compared as of commit `sequence`; `rows` alike, by table, up to the first `difference`. `failed`:
    it could not be done, and `error` says why.
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


def told(report: AuditReport) -> list[str]:
    """The report in lines for people."""
    lines = [
        f"log      {report.log_id}",
        f"archive  {report.commits} commits of {report.things} things in {report.archive_seconds:.2f} s",
        f"log      {report.compared} of them compared in {report.log_seconds:.2f} s",
        f"chain    {report.chain}",
    ]
    damage = [f"{one.where} {one.kind} from commit {one.first_bad} on: {one.detail}" for one in report.damage]
    return [*lines, *(damage or ["history is whole"])]


def damaged(damage: Damage) -> LogDamaged:
    """The error that stops a service; its facts are the damage's."""
    facts = {name: value for name, value in msgspec.to_builtins(damage).items() if name != "detail" and value}
    return LogDamaged(damage.detail, **facts)
