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
from contracts.errors import Conflict, LogDamaged, LogFull, LoratoryError, TooLarge, Unavailable
from contracts.ids import ulid
from contracts.signatures import HEADER as SIGNATURE
from contracts.wire.service.jetstream import silent

Verdict = Literal["stored", "unclear", "conflict", "full", "too large", "wrong stream", "refused"]
TOO_LARGE = 10054
VERDICTS: dict[int, Verdict] = {
    10071: "conflict",  # wrong last sequence, on one replica
    10164: "conflict",  # the same, on several replicas
    10077: "full",  # the stream's own limit, sent with status 503
    10023: "full",  # no resources
    10047: "full",  # the account's storage
    TOO_LARGE: "too large",
    10199: "too large",
    10060: "wrong stream",
    10176: "unclear",  # the server has dropped the start of the batch: it was restarted, or ten seconds passed
}
RETRYABLE_STATUS = frozenset({429, 500, 503})
"""Too many batches in progress, an internal error of the server, or no responders."""


@dataclass(frozen=True)
class Draft:
    """A message to store if the last one on its subject is at `expected_sequence` (0: it is the first).

    It has no `Nats-Msg-Id`: whoever published anything under an id before us would make the server swallow ours, and
    the expected sequence is enough to store it once.
    """

    subject: str
    body: bytes
    expected_sequence: int
    signature: str = ""

    @property
    def headers(self) -> dict[str, str]:
        headers: dict[str, str] = {
            Header.EXPECTED_LAST_SUBJECT_SEQUENCE: str(self.expected_sequence),
            Header.EXPECTED_STREAM: subjects.EVENTS,
        }
        return headers | {SIGNATURE: self.signature} if self.signature else headers


class Refusal(msgspec.Struct, frozen=True):
    code: int = 0
    err_code: int = 0
    description: str = ""


class Ack(msgspec.Struct, frozen=True, omit_defaults=True):
    """The server's answer to a publish; `seq` is that of the (last) message."""

    seq: int = 0
    count: int = 1
    error: Refusal | None = None

    @property
    def verdict(self) -> Verdict:
        """The outcome for the commit. `err_code` takes precedence over the status: a full stream also answers 503."""
        if self.error is None:
            return "stored" if self.seq else "unclear"
        by_status: Verdict = "unclear" if self.error.code in RETRYABLE_STATUS else "refused"
        return VERDICTS.get(self.error.err_code, by_status)

    def to_error(self) -> LoratoryError:
        """The error for a commit that was not stored."""
        reason = f"{self.error.err_code} {self.error.description}" if self.error else "no reason given"
        match self.verdict:
            case "conflict":
                return Conflict()
            case "full":
                return LogFull(reason)
            case "too large":
                return TooLarge(reason)
            case "wrong stream":
                return LogDamaged(f"another stream captures the subjects of the event log: {reason}")
            case "unclear":
                return silent(subjects.EVENTS)
            case _:
                return LoratoryError(f"the log refused a commit: {reason}")


UNCLEAR = Ack()
"""No usable answer: the commit may be stored, may be stored later, or never."""

_acks = msgspec.json.Decoder(Ack)


async def publish(bus: Client, drafts: Sequence[Draft], timeout: float) -> Ack:
    """One attempt to store all of them or none. Unavailable when the connection is closed for good.

    `timeout`: seconds without an acknowledgement until the outcome counts as unclear.
    """
    try:
        if len(drafts) == 1:
            return await _request(bus, drafts[0], drafts[0].headers, timeout)
        return await _batch(bus, drafts, timeout)
    except (nats.errors.ConnectionClosedError, nats.errors.ConnectionDrainingError) as error:
        raise Unavailable("the connection to the event log is closed", service="nats") from error
    except nats.errors.MaxPayloadError:
        return Ack(error=Refusal(err_code=TOO_LARGE, description="larger than the server accepts"))
    except (nats.errors.Error, OSError, msgspec.DecodeError):
        return UNCLEAR


async def _batch(bus: Client, drafts: Sequence[Draft], timeout: float) -> Ack:
    """The server answers the first and last message and counts the others; staged messages are invisible."""
    batch = ulid()
    batch_headers = [
        draft.headers | {"Nats-Batch-Id": batch, "Nats-Batch-Sequence": str(number)}
        for number, draft in enumerate(drafts, start=1)
    ]
    first_ack = await _request(bus, drafts[0], batch_headers[0], timeout)
    if first_ack.error is not None:
        return first_ack
    for draft, headers in zip(drafts[1:-1], batch_headers[1:-1], strict=True):
        await bus.publish(draft.subject, draft.body, headers=headers)
    last_ack = await _request(bus, drafts[-1], batch_headers[-1] | {"Nats-Batch-Commit": "1"}, timeout)
    return last_ack if last_ack.error is not None or last_ack.count == len(drafts) else UNCLEAR


async def _request(bus: Client, draft: Draft, headers: dict[str, str], timeout: float) -> Ack:
    reply = await bus.request(draft.subject, draft.body, timeout=timeout, headers=headers)
    return _acks.decode(reply.data) if reply.data else UNCLEAR  # a staged message is acknowledged with an empty reply
