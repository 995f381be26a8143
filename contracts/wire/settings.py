"""Settings from `LORATORY_*` variables, read once at the start, refused loudly."""

from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar, get_origin

import msgspec
import structlog

from contracts.errors import SetupError

PREFIX = "LORATORY_"
MOST_SECRET_BYTES = 64 << 10

T = TypeVar("T", bound=msgspec.Struct)


class ServiceSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What every service needs: the bus and its own user there, where bytes lie, how to tell people.

    `blobs` is a folder or the address of an object store; `health_file` is where `--check` looks.
    """

    nats_url: str = "nats://127.0.0.1:4222"
    nats_user: str
    nats_password: str = ""
    blobs: str = "blobs"
    log_level: str = "info"
    health_file: Path


log = structlog.get_logger(__name__)


def read_settings(kind: type[T], environ: Mapping[str, str]) -> T:
    """The settings of one service: field `blobs` is `LORATORY_BLOBS`, or the content of the file `LORATORY_BLOBS_FILE`.

    An empty variable counts as not set. A `tuple` field takes values parted by commas. All that is wrong is named in
    one SetupError, never with the value, which may be a secret. Services share one environment, so what another knows
    is passed over with a note.
    """
    values: dict[str, object] = {}
    wrong: list[str] = []
    fields = msgspec.structs.fields(kind)
    for field in fields:
        variable = PREFIX + field.name.upper()
        try:
            if text := _text(variable, environ):
                values[field.name] = _value(text, field.type)
            elif field.required:
                wrong.append(f"{variable} is not set")
        except (SetupError, ValueError) as error:
            wrong.append(f"{variable} is not valid: {error}")
    if wrong:
        raise SetupError("; ".join(wrong))
    _note_unknown(environ, {PREFIX + field.name.upper() for field in fields})
    try:
        return kind(**values)
    except ValueError as error:  # a rule of the struct's own, over several fields
        raise SetupError(f"the settings do not fit together: {error}") from error


def _text(variable: str, environ: Mapping[str, str]) -> str:
    plain, file = environ.get(variable, ""), environ.get(f"{variable}_FILE", "")
    if plain and file:
        raise SetupError(f"{variable}_FILE is set as well")
    if not file:
        return plain
    try:
        with Path(file).open("rb") as secret:
            return secret.read(MOST_SECRET_BYTES).decode().rstrip("\r\n")
    except OSError as error:
        raise SetupError(f"the file of {variable}_FILE cannot be read: {error.strerror}") from error


def _value(text: str, kind: object) -> object:
    raw: object = [part.strip() for part in text.split(",") if part.strip()] if get_origin(kind) is tuple else text
    return msgspec.convert(raw, kind, strict=False, dec_hook=_unusual)


def _unusual(kind: type, raw: object) -> object:
    """msgspec knows no paths."""
    if issubclass(kind, Path):
        return kind(str(raw)).expanduser()
    raise NotImplementedError(f"settings of type {kind.__name__}")


def _note_unknown(environ: Mapping[str, str], known: set[str]) -> None:
    given = {name for name in environ if name.startswith(PREFIX)}
    if strange := sorted(given - known - {f"{name}_FILE" for name in known}):
        log.info("settings_of_others_ignored", names=strange)
