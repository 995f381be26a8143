"""How a client proves to NATS who it is, and whom it trusts. Files are read again for each connection.

So keys and certificates are rotated by replacing the files: the next connection uses the new ones.
"""

import asyncio
import re
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import nats.errors
from nats.aio.client import Client

from contracts.cancellation import is_cancelled
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


SCHEMES = ("nats", "tls")
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


class AuthenticatedClient(Client):
    """nats-py's client with one of these credentials. A login that the server ends is tried again: keys are rotated."""

    def __init__(self, role: str, credential: Credential, tls: Tls | None) -> None:
        """`tls` None: it is used if the server demands it."""
        super().__init__()
        self.role = role
        self._credential = credential
        self._tls_files = tls

    @property
    def login(self) -> dict[str, Any]:
        """Options of `connect`. A key is no option: `_connect_command` reads it."""
        if isinstance(self._credential, Password):
            return {"user": self.role, "password": self._credential.password}
        return {"user": self.role}

    def check_files(self) -> None:
        """SetupError: a key or certificate cannot be read."""
        if not isinstance(self._credential, Password):
            self._credential.read()
        if self._tls_files is not None:
            self._tls_files.check()

    @property
    def ssl_context(self) -> ssl.SSLContext:
        return (self._tls_files or Tls()).context()

    async def _select_next_server(self) -> None:
        """nats-py sometimes loses the cancellation of a connect that fails, and would go on for ever.

        It also forgets the socket of an attempt whose handshake failed.
        """
        if is_cancelled():
            raise asyncio.CancelledError
        if self._transport is not None:
            self._transport.close()  # type: ignore[no-untyped-call]  # nats-py has no types here
        await super()._select_next_server()

    def _connect_command(self) -> bytes:
        """Reads the key, and refuses to send anything in clear to a server that should have offered TLS."""
        if self._tls_files is not None and not self._server_info.get("tls_required"):
            raise nats.errors.Error("the server offers no TLS, which the settings require")
        if not isinstance(self._credential, Password):
            try:
                jwt, key = self._credential.read()
            except SetupError as error:  # nats-py goes on reconnecting after its own errors only
                raise nats.errors.Error(str(error)) from error
            self._public_nkey, self._signature_cb = key.public, key.sign
            self._user_jwt_cb = None if jwt is None else jwt.encode
        return super()._connect_command()

    async def _process_err(self, err_msg: str) -> None:
        """nats-py closes for good where the server ends a login; its key may have been rotated, so it is read again."""
        if _is_refused_login(err_msg):
            await self._process_op_err(nats.errors.AuthorizationError())
        else:
            await super()._process_err(err_msg)

    @property
    def is_refused(self) -> bool:
        """Whether the server does not accept who connects; waiting does not help."""
        return _is_refused(str(self.last_error or ""))

    def explain_failure(self) -> str:
        """Why there is no connection."""
        reason = str(self.last_error or "no answer")
        return f"{reason}: the server does not accept {self._credential}" if _is_refused_login(reason) else reason


def parse_addresses(url: str) -> list[str]:
    """The addresses in a list. SetupError: there is none, or one is not valid."""
    servers = [server if "//" in server else f"nats://{server}" for server in map(str.strip, url.split(",")) if server]
    if not servers:
        raise SetupError("no address of a NATS server is set (LORATORY_NATS_URL)")
    for server in servers:
        try:
            parts = urlsplit(server)
            valid = parts.scheme in SCHEMES and parts.hostname and (parts.port is None or parts.port > 0)
        except ValueError:
            valid = False
        if not valid:
            raise SetupError(f"{server} is not the address of a NATS server, such as nats://127.0.0.1:4222")
    return servers


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


def _is_refused(message: str) -> bool:
    """One side does not accept the other as it is configured: a login, a certificate, TLS at all."""
    without_trust = re.search("certificate_verify_failed|offers no tls", message.lower())
    return _is_refused_login(message) or without_trust is not None


def _is_refused_login(message: str) -> bool:
    """The server does not accept a client's key, or no longer: it was rotated, revoked, or has expired."""
    return re.search("authorization violation|authentication (expired|revoked)", message.lower()) is not None


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
