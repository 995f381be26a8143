"""Commits on their way into `EVT`: one message, or several as one atomic batch (ADR-50), and what the server said.

nats-py's own `publish` reads acknowledgements slowly and cannot send a batch (nats.py #811); its `publish_async` never
resolves on an error (nats.py #985). So commits go out as plain requests, and the answers are read here.
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

PUBLISH_SECONDS = 2.0
MOST_AT_ONCE = 1000
"""So many messages the server takes in one batch."""

TAKEN = frozenset({10071, 10164, 10201})
"""Wrong last sequence (one replica, several), and a message id that the stream has seen already, in a batch."""
FULL = frozenset({10077, 10023, 10047})
"""The stream cannot store more: its own bound, no resources, or the account's storage. They come with status 503."""
TOO_LARGE = frozenset({10054, 10199})
WRONG_STREAM = 10060
LOST_BATCH = 10176
"""The server has forgotten the beginning of the batch: it was restarted, or ten seconds passed."""
LATER = frozenset({429, 500, 503})
"""Too many batches under way, an error of the server's own, or nobody there who could say."""

Verdict = Literal["stored", "unclear", "taken", "full", "too large", "wrong stream", "refused"]


@dataclass(frozen=True)
class Draft:
    """A commit to be stored right after the one of its thing that stands at the sequence `after` (0: as its first)."""

    commit: Commit
    after: int
    body: bytes
    subject: str

    @property
    def headers(self) -> dict[str, str]:
        return {
            Header.MSG_ID: self.commit.id,
            Header.EXPECTED_LAST_SUBJECT_SEQUENCE: str(self.after),
            Header.EXPECTED_STREAM: subjects.FACTS,
        }


class Refusal(msgspec.Struct, frozen=True):
    code: int = 0
    err_code: int = 0
    description: str = ""


class Ack(msgspec.Struct, frozen=True, omit_defaults=True):
    """The server's answer to a publish; `seq` is the (last) message's, `duplicate` = its id was seen before."""

    seq: int = 0
    duplicate: bool = False
    count: int = 1
    error: Refusal | None = None

    @property
    def verdict(self) -> Verdict:
        """What that means for the commit. `err_code` is asked before the status: a full stream also says 503."""
        if self.error is None:
            return "stored" if self.seq else "unclear"
        code = self.error.err_code
        if code in TAKEN:
            return "taken"
        if code in FULL:
            return "full"
        if code in TOO_LARGE:
            return "too large"
        if code == WRONG_STREAM:
            return "wrong stream"
        return "unclear" if code == LOST_BATCH or self.error.code in LATER else "refused"


UNCLEAR = Ack()
"""No answer, or none that says anything: the commit is stored, or will be when it arrives, or never."""

_acks = msgspec.json.Decoder(Ack)


async def publish(bus: Client, drafts: Sequence[Draft]) -> Ack:
    """One try to store all of them or none. Unavailable when the connection is closed for good."""
    try:
        if len(drafts) == 1:
            return await _asked(bus, drafts[0], drafts[0].headers)
        return await _batch(bus, drafts)
    except (nats.errors.ConnectionClosedError, nats.errors.ConnectionDrainingError) as error:
        raise Unavailable("the connection to the event log is closed", service="nats") from error
    except nats.errors.MaxPayloadError:
        return Ack(error=Refusal(err_code=10054, description="larger than the server takes"))
    except (nats.errors.Error, OSError, msgspec.DecodeError):
        return UNCLEAR


async def _batch(bus: Client, drafts: Sequence[Draft]) -> Ack:
    """The first and the last message are answered; those between are only counted. Staged ones nobody sees."""
    batch = ulid()
    named = [
        draft.headers | {"Nats-Batch-Id": batch, "Nats-Batch-Sequence": str(number)}
        for number, draft in enumerate(drafts, start=1)
    ]
    begun = await _asked(bus, drafts[0], named[0])
    if begun.error is not None:
        return begun
    for draft, headers in zip(drafts[1:-1], named[1:-1], strict=True):
        await bus.publish(draft.subject, draft.body, headers=headers)
    ended = await _asked(bus, drafts[-1], named[-1] | {"Nats-Batch-Commit": "1"})
    return ended if ended.error is not None or ended.count == len(drafts) else UNCLEAR


async def _asked(bus: Client, draft: Draft, headers: dict[str, str]) -> Ack:
    reply = await bus.request(draft.subject, draft.body, timeout=PUBLISH_SECONDS, headers=headers)
    return _acks.decode(reply.data) if reply.data else UNCLEAR  # staging is acknowledged with nothing
