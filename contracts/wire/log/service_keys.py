"""A service's signing key: made once, kept in a file, and registered with the catalog before anything is appended.

The request goes to `key.<service>`, which only that service's account on the bus may publish to: so the catalog knows
who asks. It proves that the asker holds the private key.
"""

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path

import msgspec
import nats.errors
import structlog
from nats.aio.msg import Msg

from contracts import subjects
from contracts.commits import SchemaNumber
from contracts.errors import ErrorReply, Invalid, LoratoryError, Rejected, SetupError, Unavailable
from contracts.events.base import SCHEMA
from contracts.events.service_keys import SigningService
from contracts.queries.log import ListForeign
from contracts.signatures import Signature, Signer, SigningKey, is_valid, key_id_of
from contracts.wire.log.event_log import EventLog
from contracts.wire.service.bus import Bus
from contracts.wire.service.requests import ServiceClient
from contracts.wire.system.files import write_atomically

REPLY_TIMEOUT_SECONDS = 5.0
VERDICT_TIMEOUT_SECONDS = 20.0
"""How long the catalog may be behind with verifying what was appended."""

_log = structlog.get_logger()


class KeyRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Register this public key (hex); with `retire`: accept nothing more that it signs.

    `schema`: the newest schema of events that the service writes. `proof`: a signature in hex over `signed_bytes` with
    the private half.
    """

    public_key: str
    schema: SchemaNumber
    retire: bool = False
    proof: str = ""

    def signed_bytes(self, service: str) -> bytes:
        action = "retire" if self.retire else "register"
        return f"loratory service key 2\n{action}\n{service}\n{self.schema}\n{self.public_key}".encode()


class KeyReply(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The id of the log that signatures must name, or an error."""

    log_id: str = ""
    error: ErrorReply | None = None


Execute = Callable[[SigningService, KeyRequest], Awaitable[str]]
"""Executes a request of a service; returns the id of the log."""


async def serve_key_requests(bus: Bus, services: Sequence[SigningService], execute: Execute) -> None:
    """Answers the requests of these services until cancelled; only requests with a valid proof are executed."""
    subscriptions = [
        await bus.subscribe(subjects.service_key(service), cb=partial(_answer, service, execute))
        for service in services
    ]
    try:
        await asyncio.Event().wait()
    finally:
        for subscription in subscriptions:
            if bus.is_connected:
                await subscription.unsubscribe()


async def _answer(service: SigningService, execute: Execute, message: Msg) -> None:
    try:
        reply = KeyReply(log_id=await execute(service, _decode_request(service, message.data)))
    except LoratoryError as error:
        _log.warning("key_request_refused", asked_by=service, error=error.detail)
        reply = KeyReply(error=ErrorReply.from_error(error))
    await message.respond(msgspec.json.encode(reply))


def _decode_request(service: SigningService, body: bytes) -> KeyRequest:
    """Invalid: it is none. Rejected: its proof is wrong."""
    try:
        request = msgspec.json.decode(body, type=KeyRequest)
        public_key, proof = bytes.fromhex(request.public_key), bytes.fromhex(request.proof)
    except (msgspec.DecodeError, ValueError) as error:
        raise Invalid(f"this is no request about a signing key: {error}") from error
    if not is_valid(Signature(key_id_of(public_key), proof), public_key, request.signed_bytes(service)):
        raise Rejected("the proof is not a signature with the private half of this key")
    return request


def load_or_create_key(file: Path) -> SigningKey:
    """The key in a file that only this user can read; 64 hexadecimal digits. Where it is damaged, a new one is made.

    SetupError: the file cannot be read.
    """
    try:
        return SigningKey(bytes.fromhex(file.read_text().strip()))
    except (FileNotFoundError, ValueError):
        write_key(file)
    except OSError as error:
        raise SetupError(f"the signing key {file} cannot be read: {error}") from error
    return SigningKey(bytes.fromhex(file.read_text().strip()))


def write_key(file: Path) -> None:
    """A new key. The service that reads this file registers it before it begins its next work."""
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, secrets.token_hex(32).encode() + b"\n", mode=0o600)


class ServiceLog(EventLog):
    """The log of a worker service: what it appends is signed, and it reads what the catalog accepted."""

    def __init__(self, bus: Bus, service: SigningService, file: Path) -> None:
        super().__init__(bus, verdicts=CatalogVerdicts(ServiceClient(bus)))
        self._service: SigningService = service
        self._file = file

    async def authorize(self) -> None:
        """Registers the key of the file; another one than before replaces that one, which is retired.

        Unavailable: the catalog does not answer. SetupError: the file cannot be read, or the catalog is too old.
        """
        previous = self.signer
        key = await asyncio.to_thread(load_or_create_key, self._file)
        self.signer = Signer(key, await self._request(key))
        if previous is not None and previous.key.id != key.id:
            await self._request(previous.key, retire=True)
            _log.info("signing_key_rotated", key=key.id, retired=previous.key.id)

    async def _request(self, key: SigningKey, *, retire: bool = False) -> str:
        request = KeyRequest(public_key=key.public.hex(), schema=SCHEMA, retire=retire)
        proof = key.sign(request.signed_bytes(self._service)).hex()
        body = msgspec.json.encode(msgspec.structs.replace(request, proof=proof))
        try:
            reply = await self.bus.request(subjects.service_key(self._service), body, timeout=REPLY_TIMEOUT_SECONDS)
        except (nats.errors.Error, OSError) as error:
            raise Unavailable("the catalog does not register signing keys", service="catalog") from error
        content = msgspec.json.decode(reply.data, type=KeyReply)
        if content.error is not None:
            raise content.error.to_error()
        return content.log_id


class CatalogVerdicts:
    """Asks the catalog, which verifies each message of the log once."""

    def __init__(self, client: ServiceClient) -> None:
        self._client = client

    async def foreign(self, aggregate_kind: str, aggregate_id: str, after: int, to: int) -> frozenset[int]:
        """`contracts.wire.log.event_log.Verdicts`."""
        found: list[int] = []
        while True:
            query = ListForeign(
                after=found[-1] if found else after,
                until=to,
                aggregate_kind=aggregate_kind,
                aggregate_id=aggregate_id,
                min_seq=to,
            )
            page = await self._client.query(query, retry_timeout=VERDICT_TIMEOUT_SECONDS)
            found += [one.sequence for one in page.items]
            if page.next is None:
                return frozenset(found)
