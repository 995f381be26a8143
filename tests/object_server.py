"""An object store over HTTP that can be made to stop answering, for tests of slow storage."""

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import Literal, Self

from obstore.store import HTTPStore

from contracts.wire.blobs.remote import RemoteBlobs

Method = Literal["GET", "HEAD", "PUT"]


class ObjectServer:
    """Serves the files of a folder: GET with ranges, HEAD, and PUT."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.held = asyncio.Event()
        """Set when a request is held."""
        self._released: dict[str, asyncio.Event] = {
            "GET": asyncio.Event(),
            "HEAD": asyncio.Event(),
            "PUT": asyncio.Event(),
        }
        for event in self._released.values():
            event.set()
        self._exempt: dict[str, int] = {}
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def blobs(self) -> RemoteBlobs:
        assert self._server is not None
        port = self._server.sockets[0].getsockname()[1]
        return RemoteBlobs(HTTPStore.from_url(f"http://127.0.0.1:{port}", client_options={"allow_http": True}))

    def hold(self, method: Method, *, after: int = 0) -> None:
        """Answer no request of this method until `release`, but for the next `after`."""
        self.held.clear()
        self._released[method].clear()
        self._exempt[method] = after

    def release(self) -> None:
        for event in self._released.values():
            event.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = asyncio.current_task()
        assert connection is not None
        self._connections.add(connection)
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                while True:
                    await self._respond(reader, writer)
        finally:
            self._connections.discard(connection)
            writer.transport.abort()

    async def _respond(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        method, target, _ = head[0].split(" ")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:])}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        if not self._released[method].is_set():
            await self._hold(method)
        writer.write(await asyncio.to_thread(self._handle, method, self.folder / target.lstrip("/"), headers, body))
        await writer.drain()

    async def _hold(self, method: str) -> None:
        if self._exempt[method] > 0:
            self._exempt[method] -= 1
            return
        self.held.set()
        await self._released[method].wait()

    def _handle(self, method: str, file: Path, headers: dict[str, str], body: bytes) -> bytes:
        if method == "PUT":
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(body)
            return b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n"
        if not file.is_file():
            return b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
        content = file.read_bytes()
        status, more, size = "200 OK", "", len(content)
        if "range" in headers:
            first, last = headers["range"].removeprefix("bytes=").split("-")
            content = content[int(first) : int(last) + 1]
            status, more = "206 Partial Content", f"Content-Range: bytes {first}-{last}/{size}\r\n"
        answer = f"HTTP/1.1 {status}\r\n{more}Content-Length: {len(content)}\r\n\r\n".encode()
        return answer if method == "HEAD" else answer + content
