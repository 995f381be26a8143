"""The migrate step as one call, for `python -m contracts` and for the local stack."""

from datetime import UTC, datetime
from pathlib import Path

import msgspec
import nats.errors
from nats.js.errors import Error as JetStreamError

from contracts.errors import Unavailable
from contracts.wire.bus import connect
from contracts.wire.streams import DAY, migrate

LEASE = 15.0


class MigrateSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`lease`: seconds after which a silent worker loses its work. `known_log`: where the catalog keeps the log's id.

    The file may be missing: then no archive was ever made, and a log may be created. `duplicate_window`: seconds for
    which the server itself knows a commit again.
    """

    nats_url: str
    nats_user: str = "admin"
    nats_password: str
    lease: float = LEASE
    known_log: Path | None = None
    duplicate_window: float = DAY


async def migrate_once(settings: MigrateSettings) -> str:
    """Make streams and consumers what they must be, as often as you like; the log's id.

    LogDamaged: the log the catalog knows is not on this server. SetupError: no connection. Unavailable: it was lost.
    """
    known = _known(settings.known_log)
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


def _known(file: Path | None) -> str | None:
    """Nothing where no archive was ever made; an empty file is one too, a catalog died while writing its first."""
    if file is None or not file.exists():
        return None
    return file.read_text(encoding="utf-8").strip() or None
