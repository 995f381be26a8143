"""Which root key an archive begins with, while the catalog is stopped and the key file or the archive may be lost."""

import asyncio
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from contextlib import aclosing
from pathlib import Path

import msgspec

from catalog.archive.archive import Archive
from catalog.database import peek
from catalog.entries import lineage
from catalog.key_file import KeysDamaged, log_ids
from catalog.keys import replaced_root_in, root_key_in
from catalog.service_keys import lost_roots
from contracts.commits import RecordedCommit, StreamRevision, decode_commit
from contracts.errors import LogDamaged
from contracts.events.service_keys import ServiceKeyRootEstablished
from contracts.log_message import LogMessage
from contracts.signatures import SigningKey
from contracts.verification import Trust, evolve, verify
from contracts.wire.log.event_log import EventLog
from contracts.wire.log.recreate import readable_messages
from contracts.wire.log.scan import log_state
from contracts.wire.service.bus import Bus

MAX_COMMITS_BEFORE_ROOT = 10
"""The catalog's first commit establishes the root key; the one before creates the log."""


async def begin_archive(bus: Bus, archive: Archive, key_files: Sequence[Path]) -> SigningKey | None:
    """Begin the archive with the root key in the first of these files that is of this workshop; that key, or none.

    Where the archive names a root key, no other counts. Where there is neither, the log itself says which it is:
    nobody can put another before it. KeysDamaged: it does not.
    """
    await archive.begin()
    known_ids = await archive.read(lineage) | await id_on_server(bus)
    named = archive.trust.root
    for file in key_files:
        root = await asyncio.to_thread(_root_of, file, known_ids)
        replaced = await asyncio.to_thread(replaced_root_in, file)
        if root is not None and named in ("", root.id, replaced):
            await archive.begin(*([] if named else await lost_roots(EventLog(bus), replaced)), root.public)
            return root
    if not named:
        await archive.begin(await _first_root(bus))
    return None


def _root_of(key_file: Path, known_ids: AbstractSet[str]) -> SigningKey | None:
    """The root key in a file, unless that is of another workshop."""
    found = peek(key_file, log_ids) or frozenset()
    return None if found and known_ids and not found & known_ids else root_key_in(key_file)


async def _first_root(bus: Bus) -> bytes:
    """The public root key that the log names first, signed with itself; empty: none."""
    trust = Trust()
    async with aclosing(readable_messages(bus, 0)) as messages:
        async for message in messages:
            if message.sequence > MAX_COMMITS_BEFORE_ROOT:
                raise KeysDamaged("neither the key file nor the log says who may write to it", where="all keys")
            entry = verify(message, trust, _named_root(message), lambda *_: StreamRevision())
            if isinstance(entry, RecordedCommit):
                trust = evolve(trust, entry.sequence, entry.commit)
            if trust.root:
                return trust.keys[trust.root].public_key
    return b""


def _named_root(message: LogMessage) -> bytes:
    """The root key that a message names, whoever wrote it; empty: it names none."""
    try:
        events = decode_commit(message.body).events
        named = [bytes.fromhex(event.public_key) for event in events if isinstance(event, ServiceKeyRootEstablished)]
    except (msgspec.DecodeError, ValueError):
        return b""
    return named[0] if named else b""


async def id_on_server(bus: Bus) -> frozenset[str]:
    try:
        return frozenset({(await log_state(bus)).log_id})
    except LogDamaged:
        return frozenset()
