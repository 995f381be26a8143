"""Commands and queries over the bus: the server side and the client side.

Built on `nats.micro` (ADR-32: discovery, ping, stats), whose endpoints handle one request at a time and send the caller
`repr(error)`. So each request becomes a task of its own, bounded in number, and every error an `ErrorReply`.
"""

import asyncio
import errno
import re
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import msgspec
import nats.errors
import structlog
from nats import micro
from nats.aio.client import Client
from nats.micro.request import Request
from nats.micro.service import Service as MicroService

from contracts import subjects
from contracts.commands import COMMAND_FAMILIES, AnyCommandResult, CommandEnvelope
from contracts.errors import Behind, ErrorReply, Invalid, LogFull, LoratoryError, TooLarge, Unavailable
from contracts.queries import Query, query_name_of, result_type_of
from contracts.validation import describe_decode_error
from contracts.wire.cancellation import is_cancelled

T = TypeVar("T")
Handler = Callable[[Any], Awaitable[msgspec.Struct]]

MAX_CONCURRENT_REQUESTS = 64
MAX_QUEUED_REQUESTS = 512
"""Maximum concurrent and maximum queued requests; further ones are rejected."""
QUERY_RETRY_SECONDS = 0.3
PING_TIMEOUT_SECONDS = 1
COMMAND_RESEND_SECONDS = 4.0
"""Resend interval: a service that crashed in the middle of a command sends no reply, so the caller retries."""
ERROR_HEADER = "Nats-Service-Error-Code"

_log = structlog.get_logger()
_results: msgspec.json.Decoder[AnyCommandResult] = msgspec.json.Decoder(AnyCommandResult)


class Service:
    """Handles the commands and queries of one service until it is closed."""

    def __init__(self, bus: Client, name: str, version: str) -> None:
        self._bus = bus
        self._name = name
        self._version = version
        self._slots = asyncio.Semaphore(MAX_CONCURRENT_REQUESTS)
        self._tasks: set[asyncio.Task[None]] = set()
        self._commands_in_progress: dict[bytes, Request] = {}
        """Commands in progress by body, with the latest request for each: a resent one is not executed concurrently."""
        self._micro: MicroService | None = None

    async def start(
        self,
        *,
        commands: dict[type[CommandEnvelope], Handler] | None = None,
        queries: dict[type[Query[Any]], Handler] | None = None,
    ) -> None:
        """Registers handlers by message type; requests are served when this returns."""
        self._micro = await micro.add_service(
            self._bus, name=f"loratory-{self._name}", version=_to_semver(self._version)
        )
        for command, handler in (commands or {}).items():
            family = COMMAND_FAMILIES[command]
            await self._endpoint(f"cmd-{family}", subjects.command(self._name, family), command, handler)
        for query, handler in (queries or {}).items():
            name = query_name_of(query)
            await self._endpoint(f"qry-{name}", subjects.query(self._name, name), query, handler)
        await self._bus.flush()

    async def close(self) -> None:
        """Stops accepting requests and cancels those in progress."""
        if self._micro is not None and not self._bus.is_closed:
            try:
                await self._micro.stop()
            except nats.errors.Error as error:  # the connection is gone, and the subscriptions with it
                _log.warning("service_not_deregistered", error=str(error))
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _endpoint(self, name: str, subject: str, kind: type[msgspec.Struct], handler: Handler) -> None:
        decoder = msgspec.json.Decoder(kind)
        is_command = kind in COMMAND_FAMILIES

        async def on_request(request: Request) -> None:
            if request.data in self._commands_in_progress:
                self._commands_in_progress[request.data] = request
                return
            if len(self._tasks) >= MAX_CONCURRENT_REQUESTS + MAX_QUEUED_REQUESTS:
                await _refuse(request, Unavailable(f"the {self._name} is busy", service=self._name))
                return
            if is_command:
                self._commands_in_progress[request.data] = request
            task = asyncio.create_task(self._respond(request, decoder, handler), name=f"{self._name}:{name}")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        assert self._micro is not None  # noqa: S101 - for the type checker; start() made it
        await self._micro.add_endpoint(name=name, subject=subject, handler=on_request, queue_group=self._name)

    async def _respond(self, request: Request, decoder: msgspec.json.Decoder[Any], handler: Handler) -> None:
        try:
            async with self._slots:
                body = msgspec.json.encode(await handler(decoder.decode(request.data)))
                if len(body) > self._bus.max_payload:
                    raise TooLarge("the result is too large for one message; request a smaller page")
                await self._latest_request(request).respond(body)
        except LoratoryError as error:
            await _refuse(self._latest_request(request), error)
        except msgspec.DecodeError as error:
            await _refuse(self._latest_request(request), Invalid(describe_decode_error(error)))
        except nats.errors.Error as error:
            _log.warning("reply_not_sent", subject=request.subject, error=str(error))
        except Exception as error:  # noqa: BLE001 - the edge of the service: the caller learns that it failed, the log why
            _log.exception("request_failed", subject=request.subject)
            await _refuse(self._latest_request(request), self._to_public_error(error))

    def _to_public_error(self, error: Exception) -> LoratoryError:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            return LogFull(f"the disk of the {self._name} is full")
        return LoratoryError("internal error; see the log of the service")

    def _latest_request(self, request: Request) -> Request:
        """The most recent request for a command: a client that resent it ignores replies to earlier requests."""
        return self._commands_in_progress.pop(request.data, request)


def _to_semver(version: str) -> str:
    """`0.2.0` for `0.2.0rc1`: NATS accepts only semantic versions (https://semver.org)."""
    numbers = re.findall(r"\d+", version)[:3]
    return ".".join([*numbers, "0", "0", "0"][:3])


async def _refuse(request: Request, error: LoratoryError) -> None:
    try:
        await request.respond_error(error.code, "refused", msgspec.json.encode(ErrorReply.from_error(error)))
    except nats.errors.Error as lost:
        _log.warning("reply_not_sent", subject=request.subject, error=str(lost))


class _NoReply(Unavailable):
    """The request may have been received all the same."""


class ServiceClient:
    """A client of another service: sends commands and queries, and raises the errors it replies with."""

    def __init__(self, bus: Client, service: str = "catalog") -> None:
        self._bus = bus
        self._service = service

    async def query(self, query: Query[T], *, timeout: float = 5.0, retry_timeout: float = 0.0) -> T:
        """The result of a query. Unavailable if the service is not running or silent for `timeout` seconds.

        While the service is unavailable or behind, the query is retried for up to `retry_timeout` seconds; for workers
        in the middle of an attempt.
        """
        kind = type(query)
        deadline = asyncio.get_running_loop().time() + retry_timeout
        while True:
            try:
                body = await self._request(subjects.query(self._service, query_name_of(kind)), query, timeout)
                return msgspec.json.decode(body, type=result_type_of(kind))
            except (Unavailable, Behind):
                if asyncio.get_running_loop().time() >= deadline or is_cancelled():
                    raise
            await asyncio.sleep(QUERY_RETRY_SECONDS)

    async def command(self, command: CommandEnvelope, *, timeout: float = 30.0) -> AnyCommandResult:
        """The result of a command. After Unavailable it may still be executed: retry with the same command id."""
        subject = subjects.command(self._service, COMMAND_FAMILIES[type(command)])
        deadline = asyncio.get_running_loop().time() + timeout
        while True:
            try:
                return _results.decode(await self._request(subject, command, COMMAND_RESEND_SECONDS))
            except _NoReply as error:
                if asyncio.get_running_loop().time() >= deadline or is_cancelled():
                    raise Unavailable(error.detail, **error.extra) from error

    async def _request(self, subject: str, content: msgspec.Struct, timeout: float) -> bytes:
        try:
            reply = await self._bus.request(subject, msgspec.json.encode(content), timeout=timeout)
        except nats.errors.NoRespondersError as error:
            raise Unavailable(f"the {self._service} is not running", service=self._service) from error
        except nats.errors.TimeoutError as error:
            raise await self._no_reply(timeout) from error
        except (nats.errors.Error, OSError) as error:
            raise Unavailable("the bus is not connected", service="nats") from error
        if reply.headers and ERROR_HEADER in reply.headers:
            raise msgspec.json.decode(reply.data, type=ErrorReply).to_error()
        return reply.data

    async def _no_reply(self, timeout: float) -> _NoReply:
        """Which one did not reply: the service, or NATS itself? A connection to a server that hangs looks open."""
        try:
            await self._bus.flush(PING_TIMEOUT_SECONDS)
        except (nats.errors.Error, OSError):
            return _NoReply(f"NATS did not answer within {timeout:g} s", service="nats")
        return _NoReply(f"the {self._service} did not answer within {timeout:g} s", service=self._service)
