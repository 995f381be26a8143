"""How commands print and ask: lines, JSON, tables and key/value sections on stdout, errors and questions on stderr."""

import asyncio
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

import msgspec

from contracts.errors import LoratoryError, SetupError

Fields = Mapping[str, object]
"""Labels and values of a section; None and empty values are omitted."""


def write_line(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def write_lines(lines: Iterable[str]) -> None:
    for line in lines:
        write_line(line)


def write_error(line: str) -> None:
    sys.stderr.write(f"loratory: {line}\n")


def write_json(content: object) -> None:
    write_line(msgspec.json.encode(content).decode())


def write_problem(error: Exception, title: str) -> None:
    """The error as a problem document (RFC 9457) on stderr, in one line."""
    problem: dict[str, object] = {"type": "about:blank", "title": title, "code": "usage", "detail": str(error)}
    if isinstance(error, LoratoryError):
        problem |= {"code": error.code, "detail": error.detail} | error.extra
    sys.stderr.write(msgspec.json.encode(problem, enc_hook=str).decode() + "\n")


def write_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Column titles and rows: aligned on a terminal, otherwise separated by tabs."""
    cells = [tuple(format_value(cell) for cell in row) for row in rows]
    if not sys.stdout.isatty():
        for row in (columns, *cells):
            write_line("\t".join(row))
        return
    from rich.console import Console  # noqa: PLC0415 - slow to import, and only needed for terminals
    from rich.table import Table  # noqa: PLC0415 - as above
    from rich.text import Text  # noqa: PLC0415 - as above

    table = Table(*columns, box=None, pad_edge=False, header_style="bold")
    for row in cells:
        table.add_row(*map(Text, row))
    Console().print(table)


def write_sections(sections: Mapping[str, Fields]) -> None:
    """Titled groups of `label: value` lines; groups without values are omitted."""
    groups = []
    for title, fields in sections.items():
        lines = {f"{label}:": format_value(value) for label, value in fields.items() if value not in (None, "", (), [])}
        width = max(map(len, lines), default=0)
        if lines:
            groups.append("\n".join((title, *(f"  {label:<{width}}  {value}" for label, value in lines.items()))))
    write_line("\n\n".join(groups))


def format_value(value: object) -> str:
    match value:
        case None:
            return ""
        case datetime():
            return f"{value:%Y-%m-%d %H:%M:%S}"
        case tuple() | list():
            return ", ".join(map(format_value, value))
        case float():
            return f"{value:g}"
        case _:
            return str(value)


async def confirm(question: str, yes: bool, *, refusal: str, declined: str) -> None:
    """SetupError if the user declines, or if there is no terminal to ask on; nothing is asked with `yes`."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise SetupError(refusal)
    sys.stderr.write(f"{question} This is irreversible. [y/N] ")
    sys.stderr.flush()
    if (await asyncio.to_thread(sys.stdin.readline)).strip().lower() not in {"y", "yes"}:
        raise SetupError(declined)
