"""Commands and queries over the bus: how a service answers, and how another asks.

It sits on `nats.micro` (ADR-32: discovery, ping, stats). Its endpoints handle one request at a time and tell the caller
`repr(error)`; so each request becomes a task of its own, bounded, and every error becomes a `Trouble` here.
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
from contracts.commands import FAMILIES, Command, Receipt
from contracts.errors import Behind, Invalid, LogFull, LoratoryError, TooLarge, Trouble, Unavailable
from contracts.queries import Query, answer_of, name_of
from contracts.wire.tasks import wanted

T = TypeVar("T")
Handler = Callable[[Any], Awaitable[msgspec.Struct]]

CONCURRENT = 64
WAITING = 512
"""So many requests are answered at once, and so many more may wait; what comes beyond is turned away."""
ASK_AGAIN_SECONDS = 0.3
PING_SECONDS = 1
TELL_AGAIN_SECONDS = 4.0
"""Who dies with a wish in hand says nothing: after so long it is told again, and the next life takes it up."""
ERROR_HEADER = "Nats-Service-Error-Code"

_log = structlog.get_logger()


class Service:
    """Answers commands and queries of one service until it is closed."""

    def __init__(self, bus: Client, name: str, version: str) -> None:
        self._bus = bus
        self._name = name
        self._version = version
        self._turns = asyncio.Semaphore(CONCURRENT)
        self._tasks: set[asyncio.Task[None]] = set()
        self._in_hand: dict[bytes, Request] = {}
        """Commands being handled, and who asked last: told again, byte for byte, one is not done beside itself."""
        self._micro: MicroService | None = None

    async def start(
        self,
        *,
        commands: dict[type[Command], Handler] | None = None,
        queries: dict[type[Query[Any]], Handler] | None = None,
    ) -> None:
        """Answer these types from now on; ready when this returns."""
        self._micro = await micro.add_service(self._bus, name=f"loratory-{self._name}", version=_plain(self._version))
        for command, handler in (commands or {}).items():
            family = FAMILIES[command]
            await self._endpoint(f"cmd-{family}", subjects.command(self._name, family), command, handler)
        for query, handler in (queries or {}).items():
            name = name_of(query)
            await self._endpoint(f"qry-{name}", subjects.query(self._name, name), query, handler)
        await self._bus.flush()

    async def close(self) -> None:
        """Take no more requests, and end those under way."""
        if self._micro is not None and not self._bus.is_closed:
            try:
                await self._micro.stop()
            except nats.errors.Error as error:  # the line is gone, and with it what asks
                _log.warning("service_not_signed_off", error=str(error))
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _endpoint(self, name: str, subject: str, kind: type[msgspec.Struct], handler: Handler) -> None:
        decoder = msgspec.json.Decoder(kind)
        is_command = kind in FAMILIES

        async def on_request(request: Request) -> None:
            if request.data in self._in_hand:
                self._in_hand[request.data] = request
                return
            if len(self._tasks) >= CONCURRENT + WAITING:
                await _refuse(request, Unavailable(f"the {self._name} is busy", service=self._name))
                return
            if is_command:
                self._in_hand[request.data] = request
            task = asyncio.create_task(self._answer(request, decoder, handler), name=f"{self._name}:{name}")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        assert self._micro is not None  # noqa: S101 - for the type checker; start() made it
        await self._micro.add_endpoint(name=name, subject=subject, handler=on_request, queue_group=self._name)

    async def _answer(self, request: Request, decoder: msgspec.json.Decoder[Any], handler: Handler) -> None:
        try:
            async with self._turns:
                body = msgspec.json.encode(await handler(decoder.decode(request.data)))
                if len(body) > self._bus.max_payload:
                    raise TooLarge("the answer is too large for one message; ask for less at a time")
                await self._asker(request).respond(body)
        except LoratoryError as error:
            await _refuse(self._asker(request), error)
        except msgspec.DecodeError as error:
            await _refuse(self._asker(request), Invalid(str(error)))
        except nats.errors.Error as error:
            _log.warning("answer_not_sent", subject=request.subject, error=str(error))
        except Exception as error:  # noqa: BLE001 - the service's edge: the caller learns that, not what; the log does
            _log.exception("request_failed", subject=request.subject)
            await _refuse(self._asker(request), self._told(error))

    def _told(self, error: Exception) -> LoratoryError:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            return LogFull(f"the disk of the {self._name} is full")
        return LoratoryError("an internal error; the log of the service says more")

    def _asker(self, request: Request) -> Request:
        """Who waits for the answer: whoever asked last, for they have stopped listening where they asked before."""
        return self._in_hand.pop(request.data, request)


def _plain(version: str) -> str:
    """`0.2.0` of `0.2.0rc1`: Python's versions are more than the bus understands (https://semver.org)."""
    numbers = re.findall(r"\d+", version)[:3]
    return ".".join([*numbers, "0", "0", "0"][:3])


async def _refuse(request: Request, error: LoratoryError) -> None:
    try:
        await request.respond_error(error.code, "refused", msgspec.json.encode(Trouble.of(error)))
    except nats.errors.Error as lost:
        _log.warning("answer_not_sent", subject=request.subject, error=str(lost))


class _NoAnswer(Unavailable):
    """Somebody may have taken it."""


class Door:
    """The way into another service: asks, and raises what it answers as errors."""

    def __init__(self, bus: Client, service: str = "catalog") -> None:
        self._bus = bus
        self._service = service

    async def ask(self, query: Query[T], *, within: float = 5.0, patience: float = 0.0) -> T:
        """The answer to a question. Unavailable when nobody is there, or nothing came `within` seconds.

        With `patience` seconds a service that is away or behind is asked again: for those who hold work meanwhile.
        """
        kind = type(query)
        until = asyncio.get_running_loop().time() + patience
        while True:
            try:
                body = await self._request(subjects.query(self._service, name_of(kind)), query, within)
                return msgspec.json.decode(body, type=answer_of(kind))
            except (Unavailable, Behind):
                if asyncio.get_running_loop().time() >= until or not wanted():
                    raise
            await asyncio.sleep(ASK_AGAIN_SECONDS)

    async def tell(self, command: Command, *, within: float = 30.0) -> Receipt:
        """What became of a wish. After Unavailable it may still have happened: tell again with the same command id."""
        subject = subjects.command(self._service, FAMILIES[type(command)])
        until = asyncio.get_running_loop().time() + within
        while True:
            try:
                return msgspec.json.decode(await self._request(subject, command, TELL_AGAIN_SECONDS), type=Receipt)
            except _NoAnswer as error:
                if asyncio.get_running_loop().time() >= until or not wanted():
                    raise Unavailable(error.detail, **error.facts) from error

    async def _request(self, subject: str, content: msgspec.Struct, within: float) -> bytes:
        try:
            reply = await self._bus.request(subject, msgspec.json.encode(content), timeout=within)
        except nats.errors.NoRespondersError as error:
            raise Unavailable(f"the {self._service} is not running", service=self._service) from error
        except nats.errors.TimeoutError as error:
            raise await self._nobody(within) from error
        except (nats.errors.Error, OSError) as error:
            raise Unavailable("the bus is not connected", service="nats") from error
        if reply.headers and ERROR_HEADER in reply.headers:
            raise msgspec.json.decode(reply.data, type=Trouble).raised()
        return reply.data

    async def _nobody(self, within: float) -> _NoAnswer:
        """Who was silent: the service, or NATS itself? A line to a server that hangs looks as if it stood."""
        try:
            await self._bus.flush(PING_SECONDS)
        except (nats.errors.Error, OSError):
            return _NoAnswer(f"NATS did not answer within {within:g} s", service="nats")
        return _NoAnswer(f"the {self._service} did not answer within {within:g} s", service=self._service)
