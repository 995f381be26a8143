"""nats-py's client with replies that are handed over as they are read from the socket, and headers that are bytes.

For each message nats-py makes an object and a dict of headers, and puts it in a queue from which a task takes it: a
quarter of the cost of an append, and half of the cost of reading the log.
"""

import asyncio
from collections.abc import Callable
from itertools import count
from typing import Any, NamedTuple

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.protocol import command

ABSENCE_SECONDS = 0.5
"""How long nobody may be there to answer, until a request fails: a service reconnects with a new key, or the server
reloads its accounts."""
ABSENCE_POLL_SECONDS = 0.02
NO_RESPONDERS = b"NATS/1.0 503"

Receive = Callable[[bytes, bytes], None]
"""Called with the header block and the body of a message."""
Headers = dict[str, Any] | bytes | None
"""By name, or as a block that is sent as it is: the line `NATS/1.0`, the headers, an empty line."""


class Reply(NamedTuple):
    """As received; the header block is empty if there is none."""

    header: bytes
    body: bytes


class _PendingRequest(NamedTuple):
    """`resend`: whether it is sent again on another connection."""

    subject: str
    payload: bytes
    headers: Headers
    resend: bool
    future: asyncio.Future[Reply]


class ReplyClient(Client):
    """A client with `request_raw` for one reply and `open_stream` for many. Requests are numbered within one inbox."""

    def __init__(self) -> None:
        super().__init__()
        self._reply_prefix = ""
        self._reply_numbers = count()
        self._pending_requests: dict[bytes, _PendingRequest] = {}
        """Requests without a reply yet, by their addresses."""
        self._streams: dict[bytes, Receive] = {}
        """The receivers of open streams by their addresses."""

    async def request(
        self,
        subject: str,
        payload: bytes = b"",
        timeout: float = 0.5,
        old_style: bool = False,
        headers: dict[str, Any] | None = None,
    ) -> Msg:
        """Like nats-py's, but for the message's subject, which is left out."""
        if old_style:
            return await super().request(subject, payload, timeout, old_style=True)
        reply = await self.request_raw(subject, payload, timeout, headers)
        return Msg(_client=self, data=reply.body, headers=await self._process_headers(reply.header))

    async def request_raw(
        self, subject: str, payload: bytes, timeout: float, headers: Headers = None, *, resend: bool = True
    ) -> Reply:
        """The first reply. `resend`: the request is sent again after a reconnect. Raises nats-py's errors.

        NoRespondersError where nobody is there to answer for ABSENCE_SECONDS.
        """
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + min(timeout, ABSENCE_SECONDS)
        while True:
            pending = _PendingRequest(subject, payload, headers, resend, loop.create_future())
            reply = await self._request_once(pending, timeout)
            if not reply.header.startswith(NO_RESPONDERS):
                return reply
            if loop.time() >= give_up_at:
                raise nats.errors.NoRespondersError
            await asyncio.sleep(ABSENCE_POLL_SECONDS)

    async def _request_once(self, pending: _PendingRequest, timeout: float) -> Reply:
        if self.is_draining_pubs:
            raise nats.errors.ConnectionDrainingError
        address = await self._new_address()
        self._pending_requests[address.encode()] = pending
        timer = pending.future.get_loop().call_later(timeout, _fail, pending.future, nats.errors.TimeoutError)
        try:
            await self.publish(pending.subject, pending.payload, address, pending.headers)
            return await pending.future
        finally:
            timer.cancel()
            del self._pending_requests[address.encode()]

    async def open_stream(self, subject: str, payload: bytes, receive: Receive) -> str:
        """Publishes a request with many replies; returns their address, for `close_stream`. Raises nats-py's errors.

        `receive` gets each reply as it is read from the socket. It must not raise. An empty header says that the
        connection was lost.
        """
        address = await self._new_address()
        self._streams[address.encode()] = receive
        try:
            await self.publish(subject, payload, address)
        except BaseException:
            self.close_stream(address)
            raise
        return address

    def close_stream(self, address: str) -> None:
        """Drops the replies that still arrive."""
        self._streams.pop(address.encode(), None)

    async def publish(self, subject: str, payload: bytes = b"", reply: str = "", headers: Headers = None) -> None:
        """Like nats-py's; a block of bytes as `headers` costs no encoding."""
        await super().publish(subject, payload, reply, headers)  # type: ignore[arg-type]  # as `_send_publish` takes it

    async def _send_publish(
        self, subject: str, reply: str, payload: bytes, payload_size: int, headers: Headers
    ) -> None:
        if not isinstance(headers, bytes):
            await super()._send_publish(subject, reply, payload, payload_size, headers)
            return
        self.stats["out_msgs"] += 1
        self.stats["out_bytes"] += payload_size
        await self._send_command(command.hpub_cmd(subject, reply, headers, payload))
        if self._flush_queue is not None and self._flush_queue.empty():
            await self._flush_pending()

    async def _new_address(self) -> str:
        if not self._reply_prefix:
            prefix = self.new_inbox()
            await self.subscribe(f"{prefix}.*", cb=_drop)  # late replies
            self._reply_prefix = prefix
        return f"{self._reply_prefix}.{next(self._reply_numbers)}"

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> None:
        pending = self._pending_requests.get(subject)
        receive = None if pending else self._streams.get(subject)
        if pending is None and receive is None:
            await super()._process_msg(sid, subject, reply, data, headers)
            return
        self.stats["in_msgs"] += 1
        self.stats["in_bytes"] += len(data)
        if receive is not None:
            receive(headers or b"", data)
        elif pending is not None and not pending.future.done():
            pending.future.set_result(Reply(headers or b"", data))

    def end_streams(self) -> None:
        """Tells their receivers that the connection was lost."""
        for receive in list(self._streams.values()):
            receive(b"", b"")

    async def resend_requests(self) -> None:
        """After a reconnect: requests or their replies may be lost, and all that services ask is idempotent."""
        for address, pending in list(self._pending_requests.items()):
            if pending.resend and not pending.future.done():
                await self.publish(pending.subject, pending.payload, address.decode(), pending.headers)

    def fail_requests(self) -> None:
        """After the connection was closed for good."""
        for pending in self._pending_requests.values():
            _fail(pending.future, nats.errors.ConnectionClosedError)


async def _drop(_: Msg) -> None:
    return


def _fail(future: asyncio.Future[Reply], error: type[nats.errors.Error]) -> None:
    if not future.done():
        future.set_exception(error())
