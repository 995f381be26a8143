"""`GET /metrics` of a service over HTTP, and the file in which Prometheus and `loratory doctor` find its address."""

import asyncio
import socket
from contextlib import suppress
from pathlib import Path

import msgspec
import structlog
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from contracts.errors import SetupError
from contracts.wire.service.metrics import ServiceMetrics
from contracts.wire.system.files import write_atomically

LOOPBACK = "127.0.0.1"
UNSPECIFIED = frozenset({"0.0.0.0", "::"})  # noqa: S104 - compared, not bound
_log = structlog.get_logger()


class EndpointLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Maximum connections at once and bytes of a request's head; seconds for a whole request."""

    connections: int = 8
    head_bytes: int = 8 << 10
    timeout: float = 10.0


DEFAULT_LIMITS = EndpointLimits()


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """An entry of a file for Prometheus' `file_sd_configs`."""

    targets: tuple[str, ...]
    labels: dict[str, str] = {}


def target_file(folder: Path, service: str) -> Path:
    """In the folder of the health files: the address of a service's metrics, while it runs."""
    return folder / f"metrics-{service}.json"


async def serve_metrics(
    metrics: ServiceMetrics, address: str, folder: Path, limits: EndpointLimits = DEFAULT_LIMITS
) -> None:
    """Serves `GET /metrics` at `address` until cancelled; returns at once if it is empty.

    Port 0: any free one; the address is in `target_file(folder, …)`. SetupError: it is invalid or not available.
    """
    if not address:
        return
    with _listen(address) as listening:
        host, port = listening.getsockname()[:2]
        reachable = LOOPBACK if host in UNSPECIFIED else host
        target = f"[{reachable}]:{port}" if ":" in reachable else f"{reachable}:{port}"
        file = target_file(folder, metrics.service)
        try:
            _write_target(file, Target(targets=(target,), labels={"service": metrics.service}))
            _log.info("metrics_served", address=target)
            await _Endpoint(metrics, limits).run(listening)
        finally:
            file.unlink(missing_ok=True)


def _listen(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    host = host.strip("[]") or LOOPBACK
    if not port.isdecimal() or int(port) > 65_535:
        raise SetupError(f"LORATORY_METRICS must be HOST:PORT, as in 127.0.0.1:9100, not {address!r}")
    try:
        family = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, int(port)), family=family)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise SetupError(f"LORATORY_METRICS: cannot listen at {host} port {port}: {reason}") from error


def _write_target(file: Path, target: Target) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, msgspec.json.encode([target]))
    except OSError as error:  # a full disk: the metrics are served all the same
        _log.warning("metrics_address_not_written", error=str(error))


class _Endpoint:
    """Answers one request per connection."""

    def __init__(self, metrics: ServiceMetrics, limits: EndpointLimits) -> None:
        self._metrics = metrics
        self._limits = limits
        self._connections: set[asyncio.Task[None]] = set()

    async def run(self, listening: socket.socket) -> None:
        server = await asyncio.start_server(self._on_connection, sock=listening, limit=self._limits.head_bytes)
        try:
            async with server:
                await server.serve_forever()
        finally:
            for task in self._connections:
                task.cancel()
            await asyncio.gather(*self._connections, return_exceptions=True)

    def _on_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._connections) >= self._limits.connections:
            writer.close()
            return
        task = asyncio.create_task(self._answer(reader, writer), name="metrics")
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        errors = (TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, OSError)
        try:
            with suppress(*errors):  # the client disconnected, is too slow, or sent something else than HTTP
                async with asyncio.timeout(self._limits.timeout):
                    head = await reader.readuntil(b"\r\n\r\n")
                    writer.write(await self._response(head.split(b" ", 2)))
                    await writer.drain()
        finally:
            writer.close()

    async def _response(self, request: list[bytes]) -> bytes:
        match request:
            case [b"GET", b"/metrics", _]:
                return await self._metrics_response()
            case [b"GET", *_]:
                return _http("404 Not Found", b"only /metrics is served here\n")
        return _http("405 Method Not Allowed", b"only GET is served here\n", "Allow: GET")

    async def _metrics_response(self) -> bytes:
        try:
            return _http("200 OK", await self._metrics.text(), f"Content-Type: {CONTENT_TYPE_PLAIN_0_0_4}")
        except Exception:  # noqa: BLE001 - the edge of the endpoint: a mistake in a metric must not end the service
            _log.exception("metrics_failed")
            return _http("500 Internal Server Error", b"see the log of the service\n")


def _http(status: str, body: bytes, *headers: str) -> bytes:
    lines = (f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *headers, "", "")
    return "\r\n".join(lines).encode() + body
