"""Appends single events to the log while the catalog is stopped, signed with the root key."""

from datetime import datetime

from catalog.archive.archive import Archive
from catalog.entries import AggregateKey
from contracts.commands.base import CommandMetadata
from contracts.commits import Commit, StreamRevision, build_commit
from contracts.events.log import LogEvent
from contracts.events.service_keys import ServiceKeyEvent, ServiceKeyRootEstablished
from contracts.ids import new_command_id
from contracts.signatures import SigningKey
from contracts.wire.log.event_log import EventLog

ACTOR = "svc:restore"


async def append_event(
    log: EventLog, archive: Archive, aggregate: AggregateKey, event: LogEvent | ServiceKeyEvent, at: datetime
) -> None:
    """Append an event while the catalog is stopped, and archive it. The archive must be complete.

    `log` must sign with the root key, which all other readers then accept as the archive does here.
    """
    revision = (await log.load(*aggregate)).revision
    appended = await log.append(build_root_commit(aggregate, event, at, revision), revision)
    recorded = await log.commit_at(appended.sequence)  # with the server's time
    await archive.append([recorded or appended])


async def append_root(log: EventLog, archive: Archive, root: SigningKey, at: datetime) -> None:
    """Establish the root key, with which `log` signs, in place of the one that the log names."""
    event = ServiceKeyRootEstablished(public_key=root.public.hex(), replaces=archive.trust.root)
    await append_event(log, archive, ("service-key", root.id), event, at)


def build_root_commit(
    aggregate: AggregateKey, event: LogEvent | ServiceKeyEvent, at: datetime, revision: StreamRevision
) -> Commit:
    """A commit that the root key signs."""
    metadata = CommandMetadata(command_id=new_command_id(), actor=ACTOR, at=at)
    return build_commit(*aggregate, [event], expected_revision=revision, metadata=metadata)
