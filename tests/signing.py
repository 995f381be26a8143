"""Keys for tests that append to a log without a catalog: established and registered as the catalog would do it."""

from collections.abc import Mapping
from pathlib import Path

from catalog.keys import CREATE_ROOT_KEY, open_key_writer
from contracts.commits import build_commit
from contracts.events.base import SCHEMA, Event
from contracts.events.service_keys import ServiceKeyRegistered, ServiceKeyRootEstablished, SigningService
from contracts.signatures import Signer, SigningKey
from contracts.wire.log.event_log import EventLog
from contracts.wire.service.bus import Bus
from tests.conftest import command_metadata

SERVICES: tuple[SigningService, ...] = ("catalog", "tagger", "trainer")


def key_named(name: str) -> SigningKey:
    """Always the same key for a name."""
    return SigningKey(name.encode().ljust(32, b"."))


async def append_keys(
    bus: Bus, root: SigningKey, services: tuple[SigningService, ...] = ("catalog",), *, schema: int = SCHEMA
) -> Mapping[SigningService, Signer]:
    """Appends the root key and one key of each service (for `schema`), once; returns the signers of the services."""
    log_id, _ = await EventLog(bus).end()
    log = EventLog(bus)
    log.signer = Signer(root, log_id)
    keys = {service: key_named(service) for service in services}
    events: list[tuple[str, Event]] = [(root.id, ServiceKeyRootEstablished(public_key=root.public.hex()))]
    for service, key in keys.items():
        events.append((key.id, ServiceKeyRegistered(service=service, public_key=key.public.hex(), schema=schema)))
    for key_id, event in events:
        revision = (await log.load("service-key", key_id)).revision
        if revision.sequence:  # they were appended before
            continue
        metadata = command_metadata()
        commit = build_commit("service-key", key_id, [event], expected_revision=revision, metadata=metadata)
        await log.append(commit, revision)
    return {service: Signer(key, log_id) for service, key in keys.items()}


def write_root_key(file: Path) -> None:
    """A new `keys.db` with the root key of these tests."""
    connection = open_key_writer(file)
    connection.execute(CREATE_ROOT_KEY, {"key": key_named("root").to_bytes()})
    connection.close()
