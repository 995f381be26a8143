"""Publishing commits to `EVT`: one message, or several as one atomic batch (NATS's ADR-50), and the server's answer.

nats-py's own `publish` reads acknowledgements slowly and cannot send a batch (nats.py #811); its `publish_async` never
resolves on an error (nats.py #985). So commits are sent as plain requests, with headers encoded here, and the answers
are parsed here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec
import nats.errors
from nats.js.api import Header

from contracts import subjects
from contracts.errors import Conflict, LogDamaged, LogFull, LoratoryError, TooLarge, Unavailable
from contracts.ids import ulid
from contracts.signatures import HEADER as SIGNATURE
from contracts.wire.service.bus import Bus
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
_EXPECTED_SEQUENCE, _SIGNATURE = Header.EXPECTED_LAST_SUBJECT_SEQUENCE.encode(), SIGNATURE.encode()
_FIRST_LINES = (b"NATS/1.0", b"%b: %b" % (Header.EXPECTED_STREAM.encode(), subjects.EVENTS.encode()))
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

    def header_block(self, *more: bytes) -> bytes:
        """As it is sent; with `more` lines."""
        lines = [*_FIRST_LINES, b"%b: %d" % (_EXPECTED_SEQUENCE, self.expected_sequence), *more]
        if self.signature:
            lines.append(b"%b: %b" % (_SIGNATURE, self.signature.encode("ascii")))
        return b"\r\n".join((*lines, b"", b""))


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


async def publish(bus: Bus, drafts: Sequence[Draft], timeout: float) -> Ack:
    """One attempt to store all of them or none. Unavailable when the connection is closed for good.

    `timeout`: seconds without an acknowledgement until the outcome counts as unclear.
    """
    try:
        if len(drafts) == 1:
            return await _request(bus, drafts[0], drafts[0].header_block(), timeout)
        return await _batch(bus, drafts, timeout)
    except (nats.errors.ConnectionClosedError, nats.errors.ConnectionDrainingError) as error:
        raise Unavailable("the connection to the event log is closed", service="nats") from error
    except nats.errors.MaxPayloadError:
        return Ack(error=Refusal(err_code=TOO_LARGE, description="larger than the server accepts"))
    except (nats.errors.Error, OSError, msgspec.DecodeError):
        return UNCLEAR


async def _batch(bus: Bus, drafts: Sequence[Draft], timeout: float) -> Ack:
    """The server answers the first and last message and counts the others; staged messages are invisible.

    A batch is not resumed on another connection; its sender begins a new one.
    """
    first, *others = _batch_headers(drafts)
    first_ack = await _request(bus, drafts[0], first, timeout, resend=False)
    if first_ack.error is not None:
        return first_ack
    for draft, headers in zip(drafts[1:-1], others[:-1], strict=True):
        await bus.publish(draft.subject, draft.body, headers=headers)
    last_ack = await _request(bus, drafts[-1], others[-1], timeout, resend=False)
    return last_ack if last_ack.error is not None or last_ack.count == len(drafts) else UNCLEAR


def _batch_headers(drafts: Sequence[Draft]) -> list[bytes]:
    batch_id = b"Nats-Batch-Id: %b" % ulid().encode()
    headers = [
        draft.header_block(batch_id, b"Nats-Batch-Sequence: %d" % number)
        for number, draft in enumerate(drafts[:-1], start=1)
    ]
    last = drafts[-1].header_block(batch_id, b"Nats-Batch-Sequence: %d" % len(drafts), b"Nats-Batch-Commit: 1")
    return [*headers, last]


async def _request(bus: Bus, draft: Draft, headers: bytes, timeout: float, *, resend: bool = True) -> Ack:
    reply = await bus.request_raw(draft.subject, draft.body, timeout, headers, resend=resend)
    return _acks.decode(reply.body) if reply.body else UNCLEAR  # a staged message is acknowledged with an empty reply
