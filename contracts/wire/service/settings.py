"""Settings from `LORATORY_*` variables, read once at start; invalid ones are an error."""

from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar, get_origin

import msgspec
import structlog

from contracts.errors import SetupError

PREFIX = "LORATORY_"
MAX_SECRET_BYTES = 64 << 10

T = TypeVar("T", bound=msgspec.Struct)


class BusSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a service connects to NATS: `nats_url` is one server or several, separated by commas; `nats_user` its role.

    It authenticates with the seed in `nats_nkey_file`; where others run the server, with their `.creds` file
    (`nats_credentials`) or a password. `nats_ca`, and `nats_cert` with `nats_key`: PEM files for TLS.
    """

    nats_url: str = "nats://127.0.0.1:4222"
    nats_user: str
    nats_password: str = ""
    nats_nkey_file: Path | None = None
    nats_credentials: Path | None = None
    nats_ca: Path | None = None
    nats_cert: Path | None = None
    nats_key: Path | None = None

    def __post_init__(self) -> None:
        if sum(map(bool, (self.nats_password, self.nats_nkey_file, self.nats_credentials))) > 1:
            raise ValueError("set one of nats_nkey_file, nats_credentials and nats_password, not several")
        if bool(self.nats_cert) != bool(self.nats_key):
            raise ValueError("nats_cert and nats_key belong together")


class ServiceSettings(BusSettings, frozen=True, kw_only=True):
    """Settings of every service: the bus and its own role, the blob storage, logging and health.

    `blobs` is a folder or the URL of an object store; `health_file` is the file `--check` reads. `metrics`: the address
    of `GET /metrics`, as host:port (port 0: any free one); empty: it is not served.
    """

    blobs: str = "blobs"
    log_level: str = "info"
    metrics: str = ""
    health_file: Path


log = structlog.get_logger(__name__)


def read_settings(kind: type[T], environ: Mapping[str, str]) -> T:
    """The settings of one service: field `blobs` is `LORATORY_BLOBS`, or the content of the file `LORATORY_BLOBS_FILE`.

    An empty variable counts as not set. A `tuple` field takes comma-separated values. One SetupError lists everything
    that is invalid, never with the value, which may be a secret. Services share one environment, so settings of other
    services are ignored with a log line.
    """
    values: dict[str, object] = {}
    problems: list[str] = []
    fields = msgspec.structs.fields(kind)
    for field in fields:
        variable = PREFIX + field.name.upper()
        try:
            if text := _read_variable(variable, environ):
                values[field.name] = _convert(text, field.type)
            elif field.required:
                problems.append(f"{variable} is not set")
        except (SetupError, ValueError) as error:
            problems.append(f"{variable} is not valid: {error}")
    if problems:
        raise SetupError("; ".join(problems))
    _note_unknown(environ, {PREFIX + field.name.upper() for field in fields})
    try:
        return kind(**values)
    except ValueError as error:  # a rule of the struct itself, across several fields
        raise SetupError(f"the settings are inconsistent: {error}") from error


def _read_variable(variable: str, environ: Mapping[str, str]) -> str:
    plain, file = environ.get(variable, ""), environ.get(f"{variable}_FILE", "")
    if plain and file:
        raise SetupError(f"{variable}_FILE is set as well")
    if not file:
        return plain
    try:
        with Path(file).open("rb") as secret:
            return secret.read(MAX_SECRET_BYTES).decode().rstrip("\r\n")
    except OSError as error:
        raise SetupError(f"the file of {variable}_FILE cannot be read: {error.strerror}") from error


def _convert(text: str, kind: object) -> object:
    raw: object = [part.strip() for part in text.split(",") if part.strip()] if get_origin(kind) is tuple else text
    return msgspec.convert(raw, kind, strict=False, dec_hook=_convert_path)


def _convert_path(kind: type, raw: object) -> object:
    """A msgspec hook: msgspec does not support paths."""
    if issubclass(kind, Path):
        return kind(str(raw)).expanduser()
    raise NotImplementedError(f"settings of type {kind.__name__}")


def _note_unknown(environ: Mapping[str, str], known: set[str]) -> None:
    given = {name for name in environ if name.startswith(PREFIX)}
    if unknown := sorted(given - known - {f"{name}_FILE" for name in known}):
        log.info("other_settings_ignored", names=unknown)
