"""`loratory audit …`: is history what it was?"""

from pathlib import Path

import msgspec

from contracts.audit import AuditHead, AuditReport, told
from contracts.errors import SetupError
from loratory.cli.backup import LOG_DAMAGED, Environ
from loratory.cli.common import DEFAULT, Server, say, say_json
from loratory.offline import Offline

DAMAGED = 1
"""The exit code where something is wrong with the log, its archive or the head."""


async def head(*, out: Path | None = None, server: Server = DEFAULT) -> None:
    """Say where the log ends now, signed. Kept on another machine, it shows later whether history was rewritten.

    Parameters
    ----------
    out: -o
        Write it to this file.
    """
    async with server.client() as client:
        found = await client.audit_head()
    if out is None:
        say_json(found)
        return
    out.write_bytes(msgspec.json.format(msgspec.json.encode(found)) + b"\n")
    say(f"{out}: commit {found.sequence}, {found.chain}")


async def verify(
    *, head: Path | None = None, data: Path | None = None, server: Server = DEFAULT, environ: Environ
) -> int:
    """Compute all hashes again and lay the log beside its archive; exit code 1 where anything is wrong.

    Parameters
    ----------
    head:
        A file of `loratory audit head`: was anything up to it rewritten since?
    data:
        A data folder on this machine, while the workshop is stopped or refuses to start.
    """
    if data is not None:
        return await _offline(data, head, server, environ)
    asked = _head_in(head) if head else None
    async with server.client() as client:
        report = await client.audit_verify(asked)
    if server.json:
        say_json(report)
    else:
        _say_report(report)
    return DAMAGED if report.damage else 0


async def _offline(data: Path, head: Path | None, server: Server, environ: Environ) -> int:
    words: list[str | Path] = ["audit", *(["--json"] if server.json else [])]
    words += ["--head", head.expanduser().absolute()] if head else []
    async with Offline(data, environ) as offline:
        code = await offline.catalog(*words)
    return DAMAGED if code == LOG_DAMAGED else code


def _say_report(report: AuditReport) -> None:
    for line in told(report):
        say(line)


def _head_in(file: Path) -> AuditHead:
    try:
        return msgspec.json.decode(file.read_bytes(), type=AuditHead)
    except msgspec.DecodeError as error:
        raise SetupError(f"{file} holds no head of a log: {error}") from error
