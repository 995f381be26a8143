"""`loratory audit …`: proves that history was not changed."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import msgspec
from cyclopts import Parameter

from contracts.audit import AuditHead, ReplayReport, summary_lines
from contracts.errors import LoratoryError, SetupError
from contracts.wire.service.boot import LOG_DAMAGED
from loratory.cli.options import DEFAULT_SERVER, Environ, Server
from loratory.cli.output import write_json, write_line, write_lines
from loratory.offline import OfflineFolder

DAMAGED = 1
"""Exit code if the log, its archive or the head is damaged."""
FOREIGN = 1
"""Exit code if the log has foreign messages."""
INCOMPLETE = 1
"""Exit code if stored bytes or keys are missing or damaged."""
DIFFERENT = 1
"""Exit code if a read model differs from what the log yields."""


async def head(*, out: Annotated[Path | None, Parameter(alias="-o")] = None, server: Server = DEFAULT_SERVER) -> None:
    """Print the signed head of the log. Stored on another machine, it proves later whether history was rewritten.

    :param out: Write it to this file.
    """
    async with server.client() as client:
        found = await client.audit_head()
    if out is None:
        write_json(found)
        return
    out.write_bytes(msgspec.json.format(msgspec.json.encode(found)) + b"\n")
    write_line(f"{out}: commit {found.sequence}, {found.chain}")


async def verify(
    *,
    head: Path | None = None,
    data: Path | None = None,
    read_blobs: bool = False,
    server: Server = DEFAULT_SERVER,
    environ: Environ,
) -> int:
    """Verify all hashes, compare the log with its archive, and look for missing blobs and keys; exit code 1 if any.

    :param head: A file written by `loratory audit head`: was anything before it rewritten since?
    :param data: A data folder on this machine, while Loratory is stopped or refuses to start.
    :param read_blobs: Also read all blobs and compare their bytes with their digests, which can take hours.
    """
    if data is not None:
        arguments = ["--json"] * server.json + ["--read-blobs"] * read_blobs
        return await _verify_offline(data, head, arguments, environ)
    known_head = _read_head(head) if head else None
    async with server.client() as client:
        blobs = await client.audit_blobs() if read_blobs else None
        report = await client.audit_verify(known_head)
    lines = [*([blobs.describe()] if blobs else []), *summary_lines(report)]
    write_json(report) if server.json else write_lines(lines)
    if report.damage:
        return DAMAGED
    return INCOMPLETE if report.losses.counts or (blobs and blobs.state == "failed") else 0


async def foreign(*, server: Server = DEFAULT_SERVER) -> int:
    """List messages of the log that nobody known appended; exit code 1 if there are any. They changed nothing."""
    async with server.client() as client:
        found = [one async for one in client.audit_foreign()]
    if server.json:
        write_json(found)
    else:
        write_lines(f"{one.sequence}  {one.aggregate_kind} {one.aggregate_id}: {one.reason}" for one in found)
    return FOREIGN if found else 0


async def replay(*, server: Server = DEFAULT_SERVER) -> int:
    """Rebuild every read model from the log next to the live one and compare; exit code 1 if they differ."""
    async with server.client() as client:
        report = await client.audit_replay()
    if server.json:
        write_json(report)
    if report.state == "failed":
        raise LoratoryError(f"the read models could not be rebuilt: {report.error}")
    if not server.json:
        write_lines(_describe_replay(report))
    return 0 if report.state == "same" else DIFFERENT


async def _verify_offline(data: Path, head: Path | None, options: list[str], environ: Environ) -> int:
    arguments: list[str | Path] = ["audit", *options]
    arguments += ["--head", head.expanduser().absolute()] if head else []
    async with OfflineFolder(data, environ) as offline:
        code = await offline.run_catalog(*arguments)
    return DAMAGED if code == LOG_DAMAGED else code


def _read_head(file: Path) -> AuditHead:
    try:
        return msgspec.json.decode(file.read_bytes(), type=AuditHead)
    except msgspec.DecodeError as error:
        raise SetupError(f"{file} does not contain the head of a log: {error}") from error


def _describe_replay(report: ReplayReport) -> Iterator[str]:
    yield f"{sum(report.rows.values())} rows of {len(report.rows)} tables match what {report.sequence} commits yield"
    if difference := report.difference:
        yield f"table {difference.table} differs, first at {_columns(difference.key)}"
        for side, row in (("live", difference.live), ("replayed", difference.replayed)):
            yield f"  {side:<10}{'has no such row' if row is None else _columns(row)}"


def _columns(row: dict[str, object]) -> str:
    return "  ".join(f"{name}={value!r}" for name, value in row.items())
