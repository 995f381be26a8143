"""One HTTP connection, written by hand: a client library would need more of the processor than the gateway."""

import asyncio
from dataclasses import dataclass
from typing import Self
from urllib.parse import urlsplit

import msgspec


@dataclass
class Connection:
    """Sends one request after the other."""

    host: str
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    @classmethod
    async def open(cls, url: str) -> Self:
        address = urlsplit(url)
        return cls(address.netloc, *await asyncio.open_connection(address.hostname, address.port))

    async def put(self, path: str, content: object) -> int:
        """The status of the response, which was read to its end."""
        body = msgspec.json.encode(content)
        head = f"PUT {path} HTTP/1.1\r\nHost: {self.host}\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        self.writer.write(head.encode() + body)
        answer = await self.reader.readuntil(b"\r\n\r\n")
        length = answer.lower().split(b"content-length:", 1)[1].split(b"\r\n", 1)[0]
        await self.reader.readexactly(int(length))
        return int(answer.split(b" ", 2)[1])

    def close(self) -> None:
        self.writer.close()
