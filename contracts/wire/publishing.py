"""Publishing commits to `EVT`: one message, or several as one atomic batch (NATS's ADR-50), and the server's answer.

nats-py's own `publish` reads acknowledgements slowly and cannot send a batch (nats.py #811); its `publish_async` never
resolves on an error (nats.py #985). So commits are sent as plain requests and the answers are parsed here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec
import nats.errors
from nats.aio.client import Client
from nats.js.api import Header

from contracts import subjects
from contracts.errors import Unavailable
from contracts.events import Commit
from contracts.ids import ulid

PUBLISH_TIMEOUT_SECONDS = 2.0
MAX_BATCH_MESSAGES = 1000
"""Maximum messages the server accepts in one batch."""

CONFLICT = frozenset({10071, 10164, 10201})
"""Wrong last sequence (one replica, several replicas), and a message id already seen, in a batch."""
NO_ROOM = frozenset({10077, 10023, 10047})
"""The stream cannot store more: its own limit, no resources, or the account's storage. Sent with status 503."""
TOO_LARGE = frozenset({10054, 10199})
WRONG_STREAM = 10060
LOST_BATCH = 10176
"""The server has dropped the start of the batch: it was restarted, or ten seconds passed."""
RETRYABLE_STATUS = frozenset({429, 500, 503})
"""Too many batches in progress, an internal error of the server, or no responders."""

Verdict = Literal["stored", "unclear", "conflict", "full", "too large", "wrong stream", "refused"]


@dataclass(frozen=True)
class Draft:
    """A commit to append if the aggregate's last commit is at `expected_sequence` (0: it is the first)."""

    commit: Commit
    expected_sequence: int
    body: bytes
    subject: str

    @property
    def headers(self) -> dict[str, str]:
        return {
            Header.MSG_ID: self.commit.id,
            Header.EXPECTED_LAST_SUBJECT_SEQUENCE: str(self.expected_sequence),
            Header.EXPECTED_STREAM: subjects.EVENTS,
        }


class Refusal(msgspec.Struct, frozen=True):
    code: int = 0
    err_code: int = 0
    description: str = ""


class Ack(msgspec.Struct, frozen=True, omit_defaults=True):
    """The server's answer to a publish; `seq` is that of the (last) message; `duplicate`: its id was seen before."""

    seq: int = 0
    duplicate: bool = False
    count: int = 1
    error: Refusal | None = None

    @property
    def verdict(self) -> Verdict:
        """The outcome for the commit. `err_code` takes precedence over the status: a full stream also answers 503."""
        if self.error is None:
            return "stored" if self.seq else "unclear"
        code = self.error.err_code
        if code in CONFLICT:
            return "conflict"
        if code in NO_ROOM:
            return "full"
        if code in TOO_LARGE:
            return "too large"
        if code == WRONG_STREAM:
            return "wrong stream"
        return "unclear" if code == LOST_BATCH or self.error.code in RETRYABLE_STATUS else "refused"


UNCLEAR = Ack()
"""No usable answer: the commit may be stored, may be stored later, or never."""

_acks = msgspec.json.Decoder(Ack)


async def publish(bus: Client, drafts: Sequence[Draft]) -> Ack:
    """One attempt to store all of them or none. Unavailable when the connection is closed for good."""
    try:
        if len(drafts) == 1:
            return await _request(bus, drafts[0], drafts[0].headers)
        return await _batch(bus, drafts)
    except (nats.errors.ConnectionClosedError, nats.errors.ConnectionDrainingError) as error:
        raise Unavailable("the connection to the event log is closed", service="nats") from error
    except nats.errors.MaxPayloadError:
        return Ack(error=Refusal(err_code=10054, description="larger than the server accepts"))
    except (nats.errors.Error, OSError, msgspec.DecodeError):
        return UNCLEAR


async def _batch(bus: Client, drafts: Sequence[Draft]) -> Ack:
    """The server answers the first and last message and counts the others; staged messages are invisible."""
    batch = ulid()
    batch_headers = [
        draft.headers | {"Nats-Batch-Id": batch, "Nats-Batch-Sequence": str(number)}
        for number, draft in enumerate(drafts, start=1)
    ]
    first_ack = await _request(bus, drafts[0], batch_headers[0])
    if first_ack.error is not None:
        return first_ack
    for draft, headers in zip(drafts[1:-1], batch_headers[1:-1], strict=True):
        await bus.publish(draft.subject, draft.body, headers=headers)
    last_ack = await _request(bus, drafts[-1], batch_headers[-1] | {"Nats-Batch-Commit": "1"})
    return last_ack if last_ack.error is not None or last_ack.count == len(drafts) else UNCLEAR


async def _request(bus: Client, draft: Draft, headers: dict[str, str]) -> Ack:
    reply = await bus.request(draft.subject, draft.body, timeout=PUBLISH_TIMEOUT_SECONDS, headers=headers)
    return _acks.decode(reply.data) if reply.data else UNCLEAR  # a staged message is acknowledged with an empty reply
