"""Commands and queries over the bus: the server side and the client side.

Built on `nats.micro` (ADR-32: discovery, ping, stats), whose endpoints handle one request at a time and send the caller
`repr(error)`. So each request becomes a task of its own, bounded in number, and every error an `ErrorReply`.
"""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import msgspec
import nats.errors
import structlog
from nats import micro
from nats.aio.client import Client
from nats.micro.request import Request
from nats.micro.service import Service as MicroService

from contracts import subjects
from contracts.aggregates import REGISTRY, CommandEnvelope, ServiceName
from contracts.commands.base import Command, CommandMetadata, CommandResult, R
from contracts.commands.base import result_type_of as command_result_type_of
from contracts.errors import Behind, ErrorReply, Invalid, LogFull, LoratoryError, SetupError, TooLarge, Unavailable
from contracts.queries.base import EncodedPage, Page, Query, QueryPage, query_name_of, result_type_of
from contracts.queries.owners import QUERIES, owner_of
from contracts.retry import RetryPolicy, retry
from contracts.validation import describe_decode_error
from contracts.wire.service import request_ids, tracing
from contracts.wire.system.files import NO_SPACE

T = TypeVar("T")
QueryHandler = Callable[[Any], Awaitable[msgspec.Struct]]
CommandHandler = Callable[[CommandMetadata, Any], Awaitable[CommandResult]]
CommandHandlers = Mapping[type[Command[Any]], CommandHandler]
QueryHandlers = Mapping[type[Query[Any]], QueryHandler]

PING_TIMEOUT_SECONDS = 1
ERROR_HEADER = "Nats-Service-Error-Code"

_log = structlog.get_logger()


class RequestLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Maximum concurrent and maximum queued requests of a service; further ones are rejected.

    `queue_timeout`: seconds after which a queued request is rejected.
    """

    concurrent: int = 64
    queued: int = 512
    queue_timeout: float = 5.0


class RequestTimings(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds. `resend` of a command: a service that crashed in the middle of one sends no reply, so it is sent again.

    `retry`: the pause before a query is retried.
    """

    resend: float = 4.0
    retry: float = 0.3


RequestKind = Literal["command", "query"]
Observe = Callable[[RequestKind, str, str, float], None]
"""Called with each request that was answered: name of the message, `ok` or the code of the error, seconds."""
DEFAULT_LIMITS = RequestLimits()
DEFAULT_TIMINGS = RequestTimings()


def require_all_handlers(owner: ServiceName, commands: CommandHandlers, queries: QueryHandlers) -> None:
    """SetupError: a command or query that this service owns has no handler."""
    owned = [*REGISTRY.commands_of(owner), *QUERIES.get(owner, ())]
    missing = [message.__name__ for message in owned if message not in commands and message not in queries]
    if missing:
        raise SetupError(f"the {owner} has no handler for {', '.join(missing)}")


class Service:
    """Handles the commands and queries of one service until it is closed."""

    def __init__(
        self,
        bus: Client,
        name: str,
        version: str,
        limits: RequestLimits = DEFAULT_LIMITS,
        *,
        observe: Observe = lambda *_: None,
    ) -> None:
        self._bus = bus
        self._observe = observe
        self._limits = limits
        self._name = name
        self._version = version
        self._slots = asyncio.Semaphore(limits.concurrent)
        self._tasks: set[asyncio.Task[None]] = set()
        self._commands_in_progress: dict[bytes, Request] = {}
        """Commands in progress by body, with the latest request for each: a resent one is not executed concurrently."""
        self._micro: MicroService | None = None

    async def start(self, *, commands: CommandHandlers | None = None, queries: QueryHandlers | None = None) -> None:
        """Registers handlers by message type; requests are served when this returns."""
        commands, queries = commands or {}, queries or {}
        name, version = f"loratory-{self._name}", _to_semver(self._version)
        self._micro = await micro.add_service(self._bus, name=name, version=version)
        for kind in {REGISTRY.kind_of(command).name: REGISTRY.kind_of(command) for command in commands}.values():

            async def execute(envelope: CommandEnvelope[Any]) -> CommandResult:
                return await commands[type(envelope.command)](envelope.metadata, envelope.command)

            subject = subjects.command(self._name, kind.name)
            envelope = CommandEnvelope[kind.commands]  # type: ignore[name-defined]  # the union of a record
            await self._endpoint(f"cmd-{kind.name}", subject, envelope, execute, is_command=True)
        for query, handler in queries.items():
            name = query_name_of(query)
            await self._endpoint(f"qry-{name}", subjects.query(self._name, name), query, handler, is_command=False)
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

    async def _endpoint(
        self, name: str, subject: str, content: Any, handler: QueryHandler, *, is_command: bool
    ) -> None:
        endpoint = _Endpoint(name, msgspec.json.Decoder(content), handler, "command" if is_command else "query")

        async def on_request(request: Request) -> None:
            if request.data in self._commands_in_progress:
                self._commands_in_progress[request.data] = request
                return
            if len(self._tasks) >= self._limits.concurrent + self._limits.queued:
                await _refuse(request, Unavailable(f"the {self._name} is busy", service=self._name))
                return
            if is_command:
                self._commands_in_progress[request.data] = request
            task = asyncio.create_task(self._respond(request, endpoint), name=f"{self._name}:{name}")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        assert self._micro is not None  # noqa: S101 - for the type checker; start() made it
        await self._micro.add_endpoint(name=name, subject=subject, handler=on_request, queue_group=self._name)

    async def _respond(self, request: Request, endpoint: "_Endpoint") -> None:
        """Answers a request, and reports how that went to the log, the trace and the metrics."""
        headers = request.headers or {}
        parent = headers.get(tracing.TRACE_HEADER)
        with request_ids.bind_from_bus(headers), tracing.span(endpoint.name, "server", parent) as span:
            started = time.perf_counter()
            name, outcome = await self._answer(request, endpoint)
            seconds = time.perf_counter() - started
            if outcome != "ok":
                span.fail(outcome)
            log = _log.info if endpoint.kind == "command" else _log.debug
            log(f"{endpoint.kind}_handled", name=name, outcome=outcome, seconds=round(seconds, 4))
            self._observe(endpoint.kind, name, outcome, seconds)

    async def _answer(self, request: Request, endpoint: "_Endpoint") -> tuple[str, str]:
        """Handles the request and replies; the name of its message and the outcome."""
        name = endpoint.name
        try:
            async with self._slot():
                message = endpoint.decoder.decode(request.data)
                name = type(message.command if isinstance(message, CommandEnvelope) else message).__name__
                body = msgspec.json.encode(await endpoint.handler(message))
                if len(body) > self._bus.max_payload:
                    raise TooLarge("the result is too large for one message; request a smaller page")
                await self._latest_request(request).respond(body)
                return name, "ok"
        except nats.errors.Error as error:
            self._commands_in_progress.pop(request.data, None)
            _log.warning("reply_not_sent", subject=request.subject, error=str(error))
            return name, "no-reply"
        except Exception as error:  # noqa: BLE001 - the edge of the service: the caller learns that it failed, the log why
            public = self._public_error(request, error)
            await _refuse(self._latest_request(request), public)
            return name, public.code

    @asynccontextmanager
    async def _slot(self) -> AsyncIterator[None]:
        """One of the concurrent requests. Unavailable: none was free in time."""
        try:
            # Without a queue it is acquired at once; a timeout costs something.
            async with asyncio.timeout(self._limits.queue_timeout) if self._slots.locked() else nullcontext():
                await self._slots.acquire()
        except TimeoutError as error:
            raise Unavailable(f"the {self._name} is busy", service=self._name) from error
        try:
            yield
        finally:
            self._slots.release()

    def _public_error(self, request: Request, error: Exception) -> LoratoryError:
        """What the caller learns; an unexpected error is logged, and reveals nothing."""
        match error:
            case LoratoryError():
                return error
            case msgspec.DecodeError():
                return Invalid(describe_decode_error(error))
        _log.error("request_failed", subject=request.subject, exc_info=error)
        if isinstance(error, OSError) and error.errno in NO_SPACE:
            return LogFull(f"the disk of the {self._name} is full")
        return LoratoryError("internal error; see the log of the service")

    def _latest_request(self, request: Request) -> Request:
        """The most recent request for a command: a client that resent it ignores replies to earlier requests."""
        return self._commands_in_progress.pop(request.data, request)


@dataclass(frozen=True)
class _Endpoint:
    """One subject of a service: how its requests are decoded and handled."""

    name: str
    decoder: msgspec.json.Decoder[Any]
    handler: QueryHandler
    kind: RequestKind


def _to_semver(version: str) -> str:
    """`0.2.0` for `0.2.0rc1`: NATS accepts only semantic versions (https://semver.org)."""
    numbers = re.findall(r"\d+", version)[:3]
    return ".".join([*numbers, "0", "0", "0"][:3])


def _context_headers() -> dict[str, str] | None:
    """The request id and the trace that this task belongs to."""
    context = {request_ids.BUS_HEADER: request_ids.current(), tracing.TRACE_HEADER: tracing.traceparent()}
    return {name: value for name, value in context.items() if value} or None


async def _refuse(request: Request, error: LoratoryError) -> None:
    try:
        await request.respond_error(error.code, "refused", msgspec.json.encode(ErrorReply.from_error(error)))
    except nats.errors.Error as lost:
        _log.warning("reply_not_sent", subject=request.subject, error=str(lost))


class _NoReply(Unavailable):
    """The request may have been received all the same."""


class ServiceClient:
    """Sends commands and queries to the services that own them, and raises the errors they reply with."""

    def __init__(self, bus: Client, timings: RequestTimings = DEFAULT_TIMINGS) -> None:
        self._bus = bus
        self._timings = timings

    async def query(self, query: Query[T], *, timeout: float = 5.0, retry_timeout: float = 0.0) -> T:
        """The result of a query. Unavailable if the service is not running or silent for `timeout` seconds.

        While the service is unavailable or behind, the query is retried for up to `retry_timeout` seconds; for workers
        in the middle of an attempt.
        """
        body = await self._query(query, timeout, retry_timeout)
        return msgspec.json.decode(body, type=result_type_of(type(query)))

    async def query_encoded(self, query: QueryPage[Page[Any]], *, timeout: float = 5.0) -> EncodedPage:
        """As `query`, but the items are left as they are: to read them takes longer than all else."""
        return msgspec.json.decode(await self._query(query, timeout), type=EncodedPage)

    async def command(self, metadata: CommandMetadata, command: Command[R], *, timeout: float = 30.0) -> R:
        """The result of a command. After Unavailable it may still be executed: retry with the same command id."""
        kind = REGISTRY.kind_of(type(command))
        subject, resend = subjects.command(kind.owner, kind.name), self._timings.resend
        envelope = CommandEnvelope(metadata=metadata, command=command)
        policy = RetryPolicy(first_delay=0, time_limit=timeout)
        body = await retry(lambda: self._request(kind.owner, subject, envelope, resend), policy, on=_NoReply)
        return msgspec.json.decode(body, type=command_result_type_of(type(command)))

    async def _query(self, query: Query[Any], timeout: float, retry_timeout: float = 0.0) -> bytes:
        owner = owner_of(type(query))
        subject = subjects.query(owner, query_name_of(type(query)))
        policy = RetryPolicy(first_delay=self._timings.retry, time_limit=retry_timeout)
        return await retry(lambda: self._request(owner, subject, query, timeout), policy, on=(Unavailable, Behind))

    async def _request(self, owner: str, subject: str, content: msgspec.Struct, timeout: float) -> bytes:
        with tracing.span(subject, "client"):
            return await self._request_once(owner, subject, msgspec.json.encode(content), timeout)

    async def _request_once(self, owner: str, subject: str, body: bytes, timeout: float) -> bytes:
        try:
            reply = await self._bus.request(subject, body, timeout=timeout, headers=_context_headers())
        except nats.errors.NoRespondersError as error:
            raise Unavailable(f"the {owner} is not running", service=owner) from error
        except nats.errors.TimeoutError as error:
            raise await self._no_reply(owner, timeout) from error
        except (nats.errors.Error, OSError) as error:
            raise Unavailable("the bus is not connected", service="nats") from error
        if reply.headers and ERROR_HEADER in reply.headers:
            raise msgspec.json.decode(reply.data, type=ErrorReply).to_error()
        return reply.data

    async def _no_reply(self, owner: str, timeout: float) -> _NoReply:
        """Which one did not reply: the service, or NATS itself? A connection to a server that hangs looks open."""
        try:
            await self._bus.flush(PING_TIMEOUT_SECONDS)
        except (nats.errors.Error, OSError):
            return _NoReply(f"NATS did not answer within {timeout:g} s", service="nats")
        return _NoReply(f"the {owner} did not answer within {timeout:g} s", service=owner)
