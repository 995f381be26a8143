"""The keys that commits are signed with: the workshop's root key, the catalog's own, those that services register."""

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Self, get_args

import structlog

from catalog.archive.archive import Archive
from catalog.key_file import KeysDamaged
from catalog.keys import Keys
from catalog.store import Store
from catalog.views import foreign
from contracts.commands.base import CommandMetadata
from contracts.commits import build_commit
from contracts.errors import Rejected, SetupError
from contracts.events.base import SCHEMA, Event
from contracts.events.service_keys import (
    ServiceKeyRegistered,
    ServiceKeyRetired,
    ServiceKeyRootEstablished,
    SigningService,
)
from contracts.ids import new_command_id
from contracts.signatures import Signer, SigningKey, key_id_of
from contracts.wire.log.event_log import EventLog
from contracts.wire.log.service_keys import KeyRequest, load_or_create_key, serve_key_requests

MAX_KEYS_OF_SERVICE = 1000
"""Maximum keys of one service that are not retired."""
APPLY_TIMEOUT_SECONDS = 60.0

_log = structlog.get_logger()


class StoreVerdicts:
    """The catalog's own `Verdicts`: what its read model knows of foreign messages."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def foreign(self, aggregate_kind: str, aggregate_id: str, after: int, to: int) -> frozenset[int]:
        """`contracts.wire.log.event_log.Verdicts`."""
        await self._store.wait_for(to, APPLY_TIMEOUT_SECONDS)
        if self._store.foreign_heads.get((aggregate_kind, aggregate_id), 0) <= after:
            return frozenset()
        return await self._store.read(
            lambda connection: foreign.between(connection, aggregate_kind, aggregate_id, after, to)
        )


async def check_root(archive: Archive, keys: Keys, log: EventLog) -> bytes:
    """The public half of the root key in `keys.db`. KeysDamaged: the archived log has another root key."""
    root = await keys.root_key()
    await archive.begin()
    known = archive.trust.root
    lost = [] if known else await lost_roots(log, await keys.replaced_root())
    await archive.begin(*lost, root.public)
    if known not in ("", root.id) and known != await keys.replaced_root():
        raise KeysDamaged(
            f"keys.db is not the one of this workshop: its root key is {root.id}, but the log names {known}",
            where="all keys",
        )
    return root.public


async def lost_roots(log: EventLog, replaced: str) -> list[bytes]:
    """The public root keys that were replaced, oldest first, up to the one with the id `replaced`: as the log has them.

    An id is the hash of its key, so the log cannot name others.
    """
    found: list[bytes] = []
    while replaced:
        history = await log.load("service-key", replaced)
        events = [event for event, _ in history.events() if isinstance(event, ServiceKeyRootEstablished)]
        named = [event for event in events if key_id_of(bytes.fromhex(event.public_key)) == replaced]
        if not named or (public := bytes.fromhex(named[0].public_key)) in found:
            break
        found.insert(0, public)
        replaced = named[0].replaces
    return found


@dataclass(frozen=True)
class KeyRegistrar:
    """Appends what concerns keys, signed with the root key. `fence` is that of the catalog's log."""

    log: EventLog
    archive: Archive
    store: Store
    root: SigningKey

    @classmethod
    async def open(cls, log: EventLog, archive: Archive, store: Store, keys: Keys) -> Self:
        """Establishes the root key where the log names none, or the one that was lost."""
        registrar = cls(
            EventLog(log.bus, log.fence, verdicts=StoreVerdicts(store)), archive, store, await keys.root_key()
        )
        registrar.log.signer = Signer(registrar.root, archive.log_id, archive.own_signatures)
        known = archive.trust.root
        if known != registrar.root.id:
            event = ServiceKeyRootEstablished(public_key=registrar.root.public.hex(), replaces=known)
            await registrar._append(registrar.root.id, event)
        return registrar

    async def authorize(self, log: EventLog, file: Path) -> None:
        """Registers the catalog's own key, with which `log` signs then; a changed file retires the one before."""
        previous = log.signer
        key = await asyncio.to_thread(load_or_create_key, file)
        await self.register("catalog", key.public, SCHEMA)
        log.signer = Signer(key, self.archive.log_id, self.archive.own_signatures)
        if previous is not None and previous.key.id != key.id:
            await self.retire(previous.key.id)

    async def register(self, service: SigningService, public_key: bytes, schema: int) -> None:
        """Returns once commits of this schema, signed with this key, are accepted; idempotent.

        Rejected: it is retired. SetupError: this catalog cannot read what the service writes.
        """
        if schema > SCHEMA:
            raise SetupError(
                f"this {service} writes events of schema {schema}, and the catalog reads up to {SCHEMA}: "
                "upgrade the catalog first"
            )
        trust, key_id = self.archive.trust, key_id_of(public_key)
        known = trust.keys.get(key_id)
        if known is not None and (known.retired or known.signer != service):
            raise Rejected("this key was retired, or it belongs to another service; delete the file of the key")
        if known is not None and schema <= known.schema:
            return
        if known is None and len(trust.keys_of(service)) >= MAX_KEYS_OF_SERVICE:
            raise Rejected(f"{service} has {MAX_KEYS_OF_SERVICE} signing keys; retire those that are not in use")
        event = ServiceKeyRegistered(service=service, public_key=public_key.hex(), schema=schema)
        await self._append(key_id, event)

    async def retire(self, key_id: str) -> None:
        """Nothing signed with this key is accepted any more; idempotent."""
        known = self.archive.trust.keys.get(key_id)
        if known is not None and not known.retired:
            await self._append(key_id, ServiceKeyRetired())

    async def serve(self) -> None:
        """Answers requests of the other services until cancelled."""
        workers = [service for service in get_args(SigningService) if service != "catalog"]
        await serve_key_requests(self.log.bus, workers, self._execute)

    async def _execute(self, service: SigningService, request: KeyRequest) -> str:
        public_key = bytes.fromhex(request.public_key)
        if request.retire:
            await self.retire(key_id_of(public_key))
        else:
            await self.register(service, public_key, request.schema)
        return self.archive.log_id

    async def _append(self, key_id: str, event: Event) -> None:
        """Returns when the read model shows it. Several requests at once about one key are one after the other."""
        history = await self.log.load("service-key", key_id)
        metadata = CommandMetadata(command_id=new_command_id(), actor="svc:catalog", at=datetime.now(UTC))
        revision = history.revision
        commit = build_commit("service-key", key_id, [event], expected_revision=revision, metadata=metadata)
        recorded = await self.log.append(commit, revision)
        await self.store.wait_for(recorded.sequence, APPLY_TIMEOUT_SECONDS)
        _log.info("service_key_recorded", key=key_id, change=event.type_name)
