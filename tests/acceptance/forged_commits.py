"""Forges messages of a running stack's log, as someone who may publish anything: with the key of `admin`."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import TypeVar

import httpx
import msgspec
from nats.js.api import Header

from contracts.commands.base import CommandMetadata
from contracts.commits import Commit, build_commit, encode_commit
from contracts.events.base import Event
from contracts.events.service_keys import SigningService
from contracts.ids import CommandId, ulid
from contracts.signatures import HEADER as SIGNATURE
from contracts.signatures import Signer, SigningKey
from contracts.wire.log.event_log import EventLog
from contracts.wire.server.embedded import running_server
from contracts.wire.service.bus import Bus, connect
from tests.acceptance.local_stack import LocalStack

T = TypeVar("T")
Change = Callable[[Commit], Commit]


def key_of(stack: LocalStack, service: SigningService) -> SigningKey:
    """The private key with which a service of this stack signs."""
    return SigningKey(bytes.fromhex((stack.data / "keys" / f"{service}.key").read_text().strip()))


class Forger:
    """Forges commits that follow the last one of their aggregate, and have its hash, but are not of its owner.

    `sequences`: all that were forged so far.
    """

    def __init__(self, stack: LocalStack) -> None:
        self._stack = stack
        self.sequences: list[int] = []

    def forge(
        self,
        kind: str,
        aggregate_id: str,
        event: Event,
        *,
        key: SigningKey | None = None,
        log_id: str = "",
        command_id: str = "",
        change: Change = lambda commit: commit,
    ) -> int:
        """Its sequence. `key` signs it, for the log `log_id` ("": this one); `change` alters the commit before.

        NATS remembers its id for two minutes, and swallows what comes under the same one.
        """

        async def publish(bus: Bus) -> int:
            log = EventLog(bus, verdicts=self)
            metadata = CommandMetadata(
                command_id=CommandId(command_id or ulid()), actor="user:local", at=datetime.now(UTC)
            )
            revision = (await log.load(kind, aggregate_id)).revision
            commit = build_commit(kind, aggregate_id, [event], expected_revision=revision, metadata=metadata)
            subject, body = f"evt.{kind}.{aggregate_id}", encode_commit(change(commit))
            headers: dict[str, str] = {Header.MSG_ID: commit.id}
            if key is not None:
                headers[SIGNATURE] = Signer(key, log_id or (await log.end())[0]).sign(subject, body)
            return await _publish(bus, subject, body, headers)

        return self._note(publish)

    def publish(self, kind: str, aggregate_id: str, body: bytes, signature: str = "") -> int:
        """The sequence of any message."""
        headers = {SIGNATURE: signature} if signature else {}
        return self._note(lambda bus: _publish(bus, f"evt.{kind}.{aggregate_id}", body, headers))

    def replay(self, kind: str, aggregate_id: str, number: int) -> int:
        """The sequence of a copy of the aggregate's commit with this number, with its id and good signature."""

        async def publish(bus: Bus) -> int:
            recorded = (await EventLog(bus, verdicts=self).load(kind, aggregate_id)).commits[number]
            return await _publish(bus, recorded.subject, recorded.body, {SIGNATURE: recorded.signature})

        return self._note(publish)

    async def foreign(self, *_: object) -> frozenset[int]:
        """`contracts.wire.log.event_log.Verdicts`: whoever forged knows it."""
        return frozenset(self.sequences)

    def _note(self, publish: Callable[[Bus], Awaitable[int]]) -> int:
        async def run() -> int:
            server = running_server(self._stack.data / "nats", "admin")
            async with await connect(*server, "forger") as bus:
                return await publish(bus)

        self.sequences.append(asyncio.run(run()))
        return self.sequences[-1]


async def _publish(bus: Bus, subject: str, body: bytes, headers: dict[str, str]) -> int:
    return int((await bus.jetstream().publish(subject, body, headers=headers)).seq)


def with_schema(schema: int) -> Change:
    """Says that a newer version of Loratory wrote it."""
    return lambda commit: msgspec.structs.replace(commit, schema=schema)


def foreign_sequences(http: httpx.Client, up_to: int) -> list[int]:
    """The sequences of the foreign messages that the catalog knows, once it has read the log up to `up_to`."""
    parameters = {"limit": 100, "min_seq": up_to}
    listed = http.get("/api/v1/audit/foreign", params=parameters).raise_for_status().json()
    return [one["sequence"] for one in listed["items"]]
