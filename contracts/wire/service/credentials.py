"""How a client proves to NATS who it is, and whom it trusts. Files are read again for each connection.

So keys and certificates are rotated by replacing the files: the next connection uses the new ones.
"""

import re
import ssl
from dataclasses import dataclass
from pathlib import Path

import msgspec

from contracts.errors import SetupError
from contracts.wire.service.nkeys import Nkey, parse_seed


@dataclass(frozen=True)
class Password:
    """For a server that others run; ours take nkeys only."""

    password: str

    def __str__(self) -> str:
        return "the password (LORATORY_NATS_PASSWORD)"


@dataclass(frozen=True)
class SeedFile:
    """The seed of an nkey."""

    path: Path

    def __str__(self) -> str:
        return f"the nkey in {self.path}"

    def read(self) -> tuple[str | None, Nkey]:
        """No JWT, and the key. SetupError: it cannot be read."""
        return None, read_seed_file(self.path)


@dataclass(frozen=True)
class CredentialsFile:
    """A JWT with the seed of its nkey, from a managed NATS."""

    path: Path

    def __str__(self) -> str:
        return f"the credentials in {self.path}"

    def read(self) -> tuple[str | None, Nkey]:
        """The JWT and the key. SetupError: they cannot be read."""
        return read_credentials_file(self.path)


Credential = Password | SeedFile | CredentialsFile


class Tls(msgspec.Struct, frozen=True, kw_only=True):
    """PEM files: the authority that signed the server's certificate (none: those of the system), and our own.

    `cert` with `key`: the client's certificate, for a server that verifies clients.
    """

    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None

    def context(self) -> ssl.SSLContext:
        """Read now. OSError: a file is missing or damaged."""
        context = ssl.create_default_context(cafile=self.ca)
        if self.cert is not None:
            context.load_cert_chain(self.cert, self.key)
        return context

    def check(self) -> None:
        """SetupError: a file cannot be used."""
        try:
            self.context()
        except OSError as error:
            files = ", ".join(str(file) for file in (self.ca, self.cert, self.key) if file is not None)
            raise SetupError(f"the TLS files cannot be used ({files}): {error.strerror or error}") from error


def read_seed_file(file: Path) -> Nkey:
    """SetupError: it cannot be read, or is no seed."""
    return _parse(_read(file), file)


def read_credentials_file(file: Path) -> tuple[str, Nkey]:
    """The JWT and the key in a `.creds` file, as a managed NATS hands it out. SetupError: it has not both."""
    parts = dict(re.findall(r"-+BEGIN ([A-Z ]+)-+\s+(\S+)\s+-+END", _read(file)))
    jwt, seed = parts.get("NATS USER JWT"), parts.get("USER NKEY SEED")
    if jwt is None or seed is None:
        raise SetupError(f"{file} is not a credentials file: it has no user JWT with an nkey seed")
    return jwt, _parse(seed, file)


def _parse(seed: str, file: Path) -> Nkey:
    try:
        return parse_seed(seed)
    except ValueError as error:
        raise SetupError(f"{file} does not contain the seed of an nkey (SU…)") from error


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SetupError(f"the key file {file} cannot be read: {error}") from error
