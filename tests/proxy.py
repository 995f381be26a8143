"""A TCP proxy that does what bad lines do: late, silent in one direction, cut, gone. For tests and drills only.

`up` is what clients say, `down` what the server answers. What is held is delivered when it is released, as TCP would
after a while; what is held when the line is cut is lost, and nobody learns how much of it arrived. So "stored, but the
acknowledgement was lost" is hold("down"), say something, cut(); "never arrived" is the same with hold("up").
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
    """Listens on a loopback port and passes every connection on to `host:port`."""

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        self._target = (host, port)
        self._server: asyncio.Server | None = None
        self._lines: set[asyncio.Task[None]] = set()
        self._open = {direction: asyncio.Event() for direction in BOTH}
        self._delay: dict[Direction, float] = dict.fromkeys(BOTH, 0.0)
        self._away = False
        self.port = 0
        self.taken = 0
        """So many connections were ever passed on."""
        self.passed: dict[Direction, int] = dict.fromkeys(BOTH, 0)
        """Bytes that went through, of all lines together."""
        self.release()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, limit=CHUNK)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._away = True
        self._server.close()
        lines = list(self._lines)
        self.cut()
        await asyncio.gather(*lines, return_exceptions=True)
        await asyncio.sleep(0)  # a transport closes in the loop's next turn

    @property
    def lines(self) -> int:
        """So many connections stand now."""
        return len(self._lines)

    def slow(self, seconds: float, directions: Iterable[Direction] = BOTH) -> None:
        """Every piece takes so much longer from now on; 0 is no delay."""
        for direction in directions:
            self._delay[direction] = seconds

    def hold(self, *directions: Direction) -> None:
        """Nothing goes this way until `release`; the lines stay up. Both ways where none is named."""
        for direction in directions or BOTH:
            self._open[direction].clear()

    def release(self) -> None:
        """What was held goes on its way."""
        for event in self._open.values():
            event.set()

    def cut(self) -> None:
        """Reset all lines; what was under way or held is lost. Clients may connect again at once."""
        for line in list(self._lines):
            line.cancel()

    def leave(self) -> None:
        """Reset all lines, and any new one as soon as it comes, until `come_back`."""
        self._away = True
        self.cut()

    def come_back(self) -> None:
        self._away = False

    async def _accept(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        line = asyncio.current_task()
        assert line is not None
        if self._away:
            _reset(to_client)
            return
        self.taken += 1
        self._lines.add(line)
        try:
            await self._line(client, to_client)
        except asyncio.CancelledError:
            pass  # it was cut; nobody waits for this task
        finally:
            _reset(to_client)
            self._lines.discard(line)

    async def _line(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        """Until either end closes, or the line is cut."""
        try:
            server, to_server = await asyncio.open_connection(*self._target, limit=CHUNK)
            try:
                await self._both_ways(client, to_client, server, to_server)
            finally:
                _reset(to_server)
        except OSError:
            return  # nobody is there behind the proxy

    async def _both_ways(
        self,
        client: asyncio.StreamReader,
        to_client: asyncio.StreamWriter,
        server: asyncio.StreamReader,
        to_server: asyncio.StreamWriter,
    ) -> None:
        ways = [
            asyncio.create_task(self._way("up", client, to_server)),
            asyncio.create_task(self._way("down", server, to_client)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)

    async def _way(self, direction: Direction, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        try:
            while piece := await source.read(CHUNK):
                if self._delay[direction]:
                    await asyncio.sleep(self._delay[direction])
                await self._open[direction].wait()
                target.write(piece)
                await target.drain()
                self.passed[direction] += len(piece)
        except OSError:
            return  # an end has gone; the line ends with this way


def _reset(end: asyncio.StreamWriter) -> None:
    """Close at once, and with an RST, as a machine does that has forgotten the connection."""
    with contextlib.suppress(OSError):  # the other end was quicker
        end.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    end.transport.abort()
