"""Options that several commands share."""

import ssl
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec
from cyclopts import Parameter

from contracts.errors import SetupError
from loratory.client import DEFAULT_URL, AsyncClient
from loratory.tls import trusting

Environ = Annotated[Mapping[str, str], Parameter(parse=False)]
"""The environment variables of the process; passed by `run`, not by the user."""
Id = Annotated[str, Parameter(help="Its id.")]
NameOrId = Annotated[str, Parameter(help="Name or id.")]
Text = Annotated[str | None, Parameter(allow_leading_hyphen=True)]
"""A filter or a sort order, which may begin with a minus."""
Flag = Parameter(negative=())
"""A switch without a `--no-…` counterpart."""


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Server:
    """The server a command connects to."""

    url: Annotated[str, Parameter(env_var="LORATORY_URL")] = DEFAULT_URL
    """Address of the server."""
    key: Annotated[str | None, Parameter(env_var="LORATORY_KEY", show_default=False)] = None
    """API key, if the server requires one."""
    ca: Annotated[Path | None, Parameter(env_var="LORATORY_CA", show_default=False)] = None
    """PEM file of the authority that signed the certificate of an https server, if the system does not trust it."""
    json: Annotated[bool, Flag] = False
    """Print JSON; errors as problem documents on stderr."""

    def client(self) -> AsyncClient:
        """Fails fast if there is no server at all, but waits while one that responded before restarts."""
        return AsyncClient(self.url, self.key, retry_timeout=60, initial_retry_timeout=2, tls=self.tls())

    def tls(self) -> ssl.SSLContext | None:
        """SetupError: the file of `ca` cannot be read."""
        return None if self.ca is None else trusting(self.ca)


DEFAULT_SERVER = Server()


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class PointInTime:
    """The point in time at which something is shown."""

    at_seq: Annotated[int | None, Parameter(show_default=False)] = None
    """The state at this sequence of the log."""
    at_time: Annotated[str | None, Parameter(show_default=False)] = None
    """The state at this time, such as 2026-11-21T12:00:00Z."""

    @property
    def query(self) -> dict[str, Any]:
        return {"at_seq": self.at_seq, "at_time": self.at_time}


NOW = PointInTime()


def parse_recipe_overrides(settings: Iterable[str]) -> dict[str, object]:
    """`optimizer.lr=1e-4` → {"optimizer.lr": 0.0001}. Values that are not JSON are text. SetupError without `=`."""
    overrides: dict[str, object] = {}
    for setting in settings:
        path, separator, text = setting.partition("=")
        if not separator or not path.strip():
            raise SetupError(f"--set takes FIELD=VALUE, such as optimizer.lr=1e-4, not {setting!r}")
        overrides[path.strip()] = _parse_value(text)
    return overrides


def _parse_value(text: str) -> object:
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return text
