"""The migrate step as one call, for `python -m contracts` and for the local stack."""

from datetime import UTC, datetime
from pathlib import Path

import msgspec
import nats.errors
from nats.js.errors import Error as JetStreamError

from contracts.errors import Unavailable
from contracts.wire.bus import connect
from contracts.wire.streams import DAY, migrate

DEFAULT_LEASE_SECONDS = 15.0


class MigrateSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`lease`: seconds until unextended work goes to another worker. `known_log`: the catalog's file with the log id.

    That file may be absent: then no archive exists and a log may be created. `duplicate_window`: seconds for which the
    server itself detects repeated message ids.
    """

    nats_url: str
    nats_user: str = "admin"
    nats_password: str
    lease: float = DEFAULT_LEASE_SECONDS
    known_log: Path | None = None
    duplicate_window: float = DAY


async def migrate_once(settings: MigrateSettings) -> str:
    """Creates or updates streams and consumers, idempotently; returns the log's id.

    LogDamaged: the catalog's log is not on this server. SetupError: no connection, or an older format of the data
    folder. Unavailable: the connection was lost.
    """
    known = _known_log_id(settings.known_log)
    bus = await connect(settings.nats_url, settings.nats_user, settings.nats_password, "migrate")
    try:
        return await migrate(
            bus,
            at=datetime.now(UTC),
            lease=settings.lease,
            known_log=known,
            duplicate_window=settings.duplicate_window,
        )
    except (nats.errors.Error, JetStreamError, OSError) as error:
        raise Unavailable("the NATS server does not answer the migrate step", service="nats") from error
    finally:
        await bus.close()


def _known_log_id(file: Path | None) -> str | None:
    """None if no archive was ever created; also if the file is empty (a catalog crashed while writing it)."""
    if file is None or not file.exists():
        return None
    return file.read_text(encoding="utf-8").strip() or None
