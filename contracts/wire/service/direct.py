"""Reading a stream by batch direct get (NATS's ADR-31): one request, many messages, an end marker, no consumer.

A consumer's configuration names the subject that it delivers to, so whoever may create one may have bytes published
anywhere; the answers to a request go to its inbox and nowhere else. Every replica answers, also one that lags: that a
message is missing from an answer does not mean that the stream has lost it.
"""

import asyncio
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache

import msgspec

from contracts.errors import LoratoryError
from contracts.log_message import LogMessage
from contracts.wire.service.bus import Bus
from contracts.wire.service.jetstream import silent, translate_errors

SIGNATURE_HEADER = b"\r\nLoratory-Signature:"
_STORED = re.compile(
    rb"\r\nNats-Subject: ([^\r\n]*)\r\nNats-Sequence: (\d{1,20})"
    rb"\r\nNats-Time-Stamp: (\d{4}-\d\d-\d\dT\d\d:\d\d:)(\d\d)(?:\.(\d{1,9}))?Z\r\n"
)
"""What the server adds to the header of a stored message, after all headers that its publisher gave it."""
_PENDING = re.compile(rb"\r\nNats-Num-Pending: (\d+)\r\n")


class BatchLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Maximum messages and bytes of a batch; the last message may exceed the bytes.

    `silence`: seconds without a message after which an unfinished batch ends, and one without messages has failed.
    """

    messages: int = 8000
    bytes: int = 8 * 1024**2
    silence: float = 2.0


@dataclass(frozen=True)
class Batch:
    """Messages in the order of their sequences, possibly with gaps.

    `is_last`: the server had nothing after them; False where a batch ended early. `size`: bytes received.
    """

    messages: list[LogMessage]
    is_last: bool = False
    size: int = 0


class _Request(msgspec.Struct, omit_defaults=True):
    seq: int
    batch: int
    max_bytes: int
    next_by_subj: str = ""


@dataclass
class BatchRequest:
    """A request that was sent: `receive` takes its messages as they arrive, `result` waits for the end.

    `close` it when its result is not needed any more.
    """

    bus: Bus
    stream: str
    limits: BatchLimits
    address: str = ""
    _messages: list[LogMessage] = field(default_factory=list)
    _size: int = 0
    _ended: asyncio.Future[bytes] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    def receive(self, header: bytes, body: bytes) -> None:
        """Called by the connection, for each message; must not raise. An empty header: the connection was lost."""
        message = parse(header, body)
        if message is not None:
            self._messages.append(message)
            self._size += len(header) + len(body)
        elif not self._ended.done():
            self._ended.set_result(header)

    async def result(self) -> Batch:
        """Unavailable: no answer, or none but errors; the connection is lost or closed. LoratoryError: refused."""
        self._watch_silence()
        try:
            end = await self._ended
        finally:
            self._timer.cancel()
            self.close()
        status = end[len(b"NATS/1.0 ") :][:3]
        if status in {b"204", b"404"}:
            pending = _PENDING.search(end)
            return Batch(self._messages, is_last=pending is None or pending[1] == b"0", size=self._size)
        if self._messages:
            return Batch(self._messages, size=self._size)
        if status in {b"", b"503"}:
            raise silent(self.stream)
        line = end.partition(b"\r\n")[0].decode("ascii", "replace")
        raise LoratoryError(f"the server refused to read {self.stream}: {line}")

    def close(self) -> None:
        """Messages that still arrive are dropped."""
        self.bus.close_stream(self.address)

    def _watch_silence(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self.limits.silence, self._on_silence, len(self._messages))

    def _on_silence(self, seen: int) -> None:
        """Ends the batch if nothing arrived meanwhile."""
        if len(self._messages) > seen:
            self._watch_silence()
        elif not self._ended.done():
            self._ended.set_result(b"")


DEFAULT_LIMITS = BatchLimits()


async def request_batch(
    bus: Bus, stream: str, after: int, limits: BatchLimits = DEFAULT_LIMITS, *, subject: str = ""
) -> BatchRequest:
    """Asks for the messages after a sequence (`subject`: only those), and does not wait for them. Unavailable."""
    request = BatchRequest(bus, stream, limits)
    ask = _Request(after + 1, limits.messages, limits.bytes, subject)
    with translate_errors(stream):
        request.address = await bus.open_stream(
            f"{bus.api}.DIRECT.GET.{stream}", msgspec.json.encode(ask), request.receive
        )
    return request


async def read_batch(
    bus: Bus, stream: str, after: int, limits: BatchLimits = DEFAULT_LIMITS, *, subject: str = ""
) -> Batch:
    """The first messages after a sequence; errors like `BatchRequest.result`."""
    return await (await request_batch(bus, stream, after, limits, subject=subject)).result()


def parse(header: bytes, body: bytes) -> LogMessage | None:
    """A stored message as the server sends it; None for an end marker or an error.

    Publishers choose their headers, status line included, so only what the server appends tells one from the other.
    """
    added = header.rfind(b"\r\nNats-Subject: ")
    stored = None if added < 0 else _STORED.match(header, added)
    if stored is None:
        return None
    subject, sequence, minute, seconds, fraction = stored.groups()
    microseconds = int((fraction or b"")[:6].ljust(6, b"0"))
    return LogMessage(
        int(sequence),
        (_minute(minute) + int(seconds)) * 1_000_000 + microseconds,
        subject.decode("utf-8", "replace"),
        body,
        _signature(header, added),
    )


def _signature(header: bytes, end: int) -> str:
    start = header.find(SIGNATURE_HEADER, 0, end)
    if start < 0:
        return ""
    start += len(SIGNATURE_HEADER)
    return header[start : header.find(b"\r\n", start)].strip().decode("ascii", "replace")


@lru_cache(maxsize=16)
def _minute(stamp: bytes) -> int:
    """Seconds since 1970 of `2026-11-26T19:55:`; most messages of a batch are of the same minute."""
    return int(datetime.strptime(stamp.decode("ascii"), "%Y-%m-%dT%H:%M:").replace(tzinfo=UTC).timestamp())
