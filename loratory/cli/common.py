"""What all commands share: the server they talk to, and how they write."""

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec
from cyclopts import Parameter

from contracts.errors import SetupError
from loratory.client import LOCAL, AsyncClient


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Server:
    """The server a command talks to."""

    url: Annotated[str, Parameter(env_var="LORATORY_URL")] = LOCAL
    """Address of the server."""
    key: Annotated[str | None, Parameter(env_var="LORATORY_KEY", show_default=False)] = None
    """API key, where the server asks for one."""
    json: Annotated[bool, Parameter(negative=())] = False
    """Write JSON, for programs."""

    def client(self) -> AsyncClient:
        """Where nothing answers it says so soon; where something did, it may be restarted meanwhile."""
        return AsyncClient(self.url, self.key, patience=60, at_first=2)


DEFAULT = Server()


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Moment:
    """As of when something is shown."""

    at_seq: Annotated[int | None, Parameter(show_default=False)] = None
    """As it was at this sequence of the log."""
    at_time: Annotated[str | None, Parameter(show_default=False)] = None
    """As it was at this time, such as 2026-11-21T12:00:00Z."""

    @property
    def asked(self) -> dict[str, Any]:
        return {"at_seq": self.at_seq, "at_time": self.at_time}


NOW = Moment()


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def complain(line: str) -> None:
    sys.stderr.write(f"loratory: {line}\n")


def say_json(content: object) -> None:
    say(msgspec.json.encode(content).decode())


def say_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """On a terminal with lines and colours; otherwise the cells parted by tabs."""
    if not sys.stdout.isatty():
        for row in rows:
            say("\t".join("" if cell is None else str(cell) for cell in row))
        return
    from rich.console import Console  # noqa: PLC0415 - slow, and only for terminals
    from rich.table import Table  # noqa: PLC0415 - as above
    from rich.text import Text  # noqa: PLC0415 - as above

    table = Table(*columns, box=None, pad_edge=False, header_style="bold")
    for row in rows:
        table.add_row(*(Text("" if cell is None else str(cell)) for cell in row))
    Console().print(table)


def changes_of(settings: Iterable[str]) -> dict[str, object]:
    """`optimizer.lr=1e-4` → {"optimizer.lr": 0.0001}. What is no JSON is text. SetupError: there is no `=`."""
    changes: dict[str, object] = {}
    for setting in settings:
        path, sign, text = setting.partition("=")
        if not sign or not path.strip():
            raise SetupError(f"--set takes FIELD=VALUE, such as optimizer.lr=1e-4, not {setting!r}")
        changes[path.strip()] = _value(text)
    return changes


def _value(text: str) -> object:
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return text
