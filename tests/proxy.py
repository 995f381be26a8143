"""A TCP proxy that simulates bad connections: slow, silent in one direction, reset, unreachable. For tests and drills.

`up` is the direction from client to server, `down` from server to client. Held data is delivered on release, as TCP
would after a while; data held when the connection is cut is lost, and neither end learns how much of it arrived. So
"stored, but the acknowledgement was lost" is hold("down"), send, cut(); "never arrived" is the same with hold("up").
"""

import asyncio
import contextlib
import socket
import struct
from collections.abc import Iterable
from typing import Literal, Self

Direction = Literal["up", "down"]
BOTH: tuple[Direction, Direction] = ("up", "down")
CHUNK = 64 * 1024


class Proxy:
    """Listens on a loopback port and forwards every connection to `target`."""

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        self.target = (host, port)
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._open = {direction: asyncio.Event() for direction in BOTH}
        self._delay: dict[Direction, float] = dict.fromkeys(BOTH, 0.0)
        self._is_offline = False
        self.port = 0
        self.connection_count = 0
        """Number of connections ever forwarded."""
        self.forwarded_bytes: dict[Direction, int] = dict.fromkeys(BOTH, 0)
        """Bytes forwarded over all connections."""
        self.release()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, limit=CHUNK)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._is_offline = True
        self._server.close()
        connections = list(self._connections)
        self.cut()
        await asyncio.gather(*connections, return_exceptions=True)
        await asyncio.sleep(0)  # a transport closes in the next iteration of the event loop

    @property
    def open_connections(self) -> int:
        return len(self._connections)

    def delay(self, seconds: float, directions: Iterable[Direction] = BOTH) -> None:
        """Delay every chunk by `seconds` from now on; 0 is no delay."""
        for direction in directions:
            self._delay[direction] = seconds

    def hold(self, *directions: Direction) -> None:
        """Hold all data until `release`; the connections stay open. Both directions if none is given."""
        for direction in directions or BOTH:
            self._open[direction].clear()

    def release(self) -> None:
        """Deliver held data."""
        for event in self._open.values():
            event.set()

    def cut(self) -> None:
        """Reset all connections; data in transit or held is lost. Clients may reconnect at once."""
        for connection in list(self._connections):
            connection.cancel()

    def go_offline(self) -> None:
        """Reset all connections, and every new one at once, until `go_online`."""
        self._is_offline = True
        self.cut()

    def go_online(self) -> None:
        self._is_offline = False

    async def _accept(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        connection = asyncio.current_task()
        assert connection is not None
        if self._is_offline:
            _reset(to_client)
            return
        self.connection_count += 1
        self._connections.add(connection)
        try:
            await self._forward(client, to_client)
        except asyncio.CancelledError:
            pass  # cut; nothing awaits this task
        finally:
            _reset(to_client)
            self._connections.discard(connection)

    async def _forward(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        """Until either end closes, or the connection is cut."""
        try:
            server, to_server = await asyncio.open_connection(*self.target, limit=CHUNK)
            try:
                await self._forward_both(client, to_client, server, to_server)
            finally:
                _reset(to_server)
        except OSError:
            return  # nothing listens behind the proxy

    async def _forward_both(
        self,
        client: asyncio.StreamReader,
        to_client: asyncio.StreamWriter,
        server: asyncio.StreamReader,
        to_server: asyncio.StreamWriter,
    ) -> None:
        directions = [
            asyncio.create_task(self._forward_one("up", client, to_server)),
            asyncio.create_task(self._forward_one("down", server, to_client)),
        ]
        try:
            await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for direction in directions:
                direction.cancel()
            await asyncio.gather(*directions, return_exceptions=True)

    async def _forward_one(
        self, direction: Direction, source: asyncio.StreamReader, target: asyncio.StreamWriter
    ) -> None:
        try:
            while chunk := await source.read(CHUNK):
                if self._delay[direction]:
                    await asyncio.sleep(self._delay[direction])
                await self._open[direction].wait()
                target.write(chunk)
                await target.drain()
                self.forwarded_bytes[direction] += len(chunk)
        except OSError:
            return  # one end is gone; the connection ends with this direction


def _reset(end: asyncio.StreamWriter) -> None:
    """Close at once with an RST, as a host does that no longer knows the connection."""
    with contextlib.suppress(OSError):  # the other end closed first
        end.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    end.transport.abort()
