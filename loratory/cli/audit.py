"""`loratory audit …`: proves that history was not changed."""

from pathlib import Path
from typing import Annotated

import msgspec
from cyclopts import Parameter

from contracts.audit import AuditHead, AuditReport, summary_lines
from contracts.errors import SetupError
from loratory.cli.backup import LOG_DAMAGED
from loratory.cli.options import DEFAULT_SERVER, Environ, Server
from loratory.cli.output import write_json, write_line
from loratory.offline import OfflineFolder

DAMAGED = 1
"""Exit code if the log, its archive or the head is damaged."""


async def head(*, out: Annotated[Path | None, Parameter(alias="-o")] = None, server: Server = DEFAULT_SERVER) -> None:
    """Print the signed head of the log. Stored on another machine, it proves later whether history was rewritten.

    Parameters
    ----------
    out:
        Write it to this file.
    """
    async with server.client() as client:
        found = await client.audit_head()
    if out is None:
        write_json(found)
        return
    out.write_bytes(msgspec.json.format(msgspec.json.encode(found)) + b"\n")
    write_line(f"{out}: commit {found.sequence}, {found.chain}")


async def verify(
    *, head: Path | None = None, data: Path | None = None, server: Server = DEFAULT_SERVER, environ: Environ
) -> int:
    """Verify all hashes and compare the log with its archive; exit code 1 if anything is wrong.

    Parameters
    ----------
    head:
        A file written by `loratory audit head`: was anything before it rewritten since?
    data:
        A data folder on this machine, while Loratory is stopped or refuses to start.
    """
    if data is not None:
        return await _verify_offline(data, head, server, environ)
    known_head = _read_head(head) if head else None
    async with server.client() as client:
        report = await client.audit_verify(known_head)
    if server.json:
        write_json(report)
    else:
        _write_report(report)
    return DAMAGED if report.damage else 0


async def _verify_offline(data: Path, head: Path | None, server: Server, environ: Environ) -> int:
    arguments: list[str | Path] = ["audit", *(["--json"] if server.json else [])]
    arguments += ["--head", head.expanduser().absolute()] if head else []
    async with OfflineFolder(data, environ) as offline:
        code = await offline.run_catalog(*arguments)
    return DAMAGED if code == LOG_DAMAGED else code


def _write_report(report: AuditReport) -> None:
    for line in summary_lines(report):
        write_line(line)


def _read_head(file: Path) -> AuditHead:
    try:
        return msgspec.json.decode(file.read_bytes(), type=AuditHead)
    except msgspec.DecodeError as error:
        raise SetupError(f"{file} does not contain the head of a log: {error}") from error
