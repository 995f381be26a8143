"""Accounts of the bus: which subject each account provides, and which other accounts may use it. Pure.

One NATS account for each service. `LORATORY` alone has JetStream, and `admin` is its only user; the services import
exactly what they need, so a reply subject named by one of them is only ever a subject of its own account: the server
puts `_R_.…` in its place before the request enters another one. Rules that are easy to break (tested):

* JetStream's API is imported under another name (`log.api.…`). Under its own it would collide with the `$JS.API.>` that
  every account has, which answers first: JetStream is not enabled.
* What creates or changes a stream or consumer is never exported: the bodies of those requests name subjects of the
  store's account, among them the one that messages are delivered to.
* What a stream stores comes by *service* import. A stream import keeps the reply subject, so the acknowledgement would
  be sent to any subject that the sender names.
* Exactly the exported subjects are imported, each by named accounts.
* Who serves requests may publish `_R_.>`. Nobody has `allow_responses`: with it a user grants itself any subject, by
  sending itself a request with that reply.
"""

from collections.abc import Iterable, Iterator
from typing import Literal, get_args

import msgspec

from contracts import subjects
from contracts.aggregates import REGISTRY, WORK_KINDS
from contracts.subjects import IMPORTED_API, PRIORITIES, STORE_API
from contracts.telemetry import TELEMETRY

Role = Literal["admin", "catalog", "gateway", "tagger", "trainer"]
ROLES: tuple[Role, ...] = get_args(Role)
SERVICES: tuple[Role, ...] = ROLES[1:]
STORE: Role = "admin"
"""The role whose account holds the streams."""
ADMIN_KINDS = ("log",)
"""Kinds of aggregates that no service writes, only `admin`: the migrate step and a restore."""

API: dict[str, tuple[Role, ...]] = {
    f"STREAM.INFO.{subjects.EVENTS}": SERVICES,
    f"STREAM.MSG.GET.{subjects.EVENTS}": SERVICES,
    f"DIRECT.GET.{subjects.EVENTS}": ("catalog", "gateway"),
    f"STREAM.INFO.{subjects.METRICS}": ("catalog",),
    f"DIRECT.GET.{subjects.METRICS}": ("catalog", "gateway"),
    f"STREAM.INFO.{subjects.QUEUE}": ("catalog",),
    f"STREAM.MSG.GET.{subjects.QUEUE}": ("catalog",),
    f"STREAM.PURGE.{subjects.QUEUE}": ("catalog",),
    f"STREAM.MSG.GET.{subjects.LEASES}": ("catalog",),
}
"""Requests of JetStream's API that services send, besides those of workers to their consumers of the queue."""


class Share(msgspec.Struct, frozen=True):
    """A subject of one account that others use: requests they send to it (service), or messages they get (stream)."""

    kind: Literal["service", "stream"]
    subject: str
    provider: str
    consumers: tuple[str, ...]

    @property
    def local_subject(self) -> str:
        """Its name in the accounts that import it."""
        api, dot, request = self.subject.partition(f"{STORE_API}.")
        return self.subject if api or not dot else f"{IMPORTED_API}.{request}"

    @property
    def has_many_replies(self) -> bool:
        """One request reads a batch of messages."""
        return self.subject.startswith(f"{STORE_API}.DIRECT.GET.")


class Permissions(msgspec.Struct, frozen=True):
    """Subjects that a user may publish and subscribe to, in its own account."""

    publish: tuple[str, ...]
    subscribe: tuple[str, ...]


def account_of(role: str) -> str:
    """The name of a role's account. The server's folder of the streams has it too."""
    return "LORATORY" if role == STORE else role.upper()


def shares() -> tuple[Share, ...]:
    """The table: everything that crosses from one account into another."""
    return (*_appends(), *_api(), *_queue(), *_requests(), *_messages())


def permissions(role: Role) -> Permissions:
    """What this role may publish and subscribe to: what its account shares with others, and its own inbox."""
    if role == STORE:
        return Permissions(publish=(">",), subscribe=(">",))
    used = [share for share in shares() if role in share.consumers]
    provided = [share for share in shares() if share.provider == role]
    serves = any(share.kind == "service" for share in provided)
    publish = [share.local_subject for share in used if share.kind == "service"]
    publish += [share.subject for share in provided if share.kind == "stream"]
    subscribe = [share.subject for share in used if share.kind == "stream"]
    subscribe += [share.subject for share in provided if share.kind == "service"]
    # One subscription covers all publishers of a message, each of which is imported from its own account.
    subscribe += [kind.pattern() for kind in TELEMETRY if role in kind.receivers]
    if serves:  # nats.micro also subscribes to its discovery
        publish, subscribe = [*publish, "_R_.>"], [*subscribe, "$SRV.>"]
    return Permissions(tuple(publish), (f"{subjects.inbox(role)}.>", *dict.fromkeys(subscribe)))


def _appends() -> Iterator[Share]:
    """What services store. An append is a request, which the stream answers."""
    for kind in REGISTRY.kinds:
        if kind.name not in ADMIN_KINDS:
            yield _service(subjects.aggregate(kind.name, "*"), STORE, (kind.owner, *kind.writers))
    yield _service(subjects.metrics("*"), STORE, ("trainer",))
    yield _service("jobs.*.*.*", STORE, ("catalog",))
    yield _service(subjects.WRITER, STORE, ("catalog",))


def _api() -> Iterator[Share]:
    for request, roles in API.items():
        yield _service(f"{STORE_API}.{request}", STORE, roles)


def _queue() -> Iterator[Share]:
    """A worker fetches from the consumers of its own class, and acknowledges to them."""
    for work in WORK_KINDS.values():
        for priority in PRIORITIES:
            consumer = f"{subjects.QUEUE}.{subjects.queue_consumer(work.work_class, priority)}"
            yield _service(f"{STORE_API}.CONSUMER.MSG.NEXT.{consumer}", STORE, (work.service,))
            yield _service(f"$JS.ACK.{consumer}.>", STORE, (work.service,))


def _requests() -> Iterator[Share]:
    """Commands come from the gateway, queries from all other services; a worker registers its own signing key."""
    for owner in dict.fromkeys(kind.owner for kind in REGISTRY.kinds):
        yield _service(subjects.command(owner, "*"), owner, ("gateway",))
        yield _service(subjects.query(owner, "*"), owner, (role for role in SERVICES if role != owner))
    for work in WORK_KINDS.values():
        yield _service(subjects.service_key(work.service), "catalog", (work.service,))


def _messages() -> Iterator[Share]:
    """Telemetry, and what wakes a worker."""
    for kind in TELEMETRY:
        for publisher in kind.publishers:
            yield _stream(kind.pattern(service=publisher), publisher, kind.receivers)
    for work in WORK_KINDS.values():
        for waker in ("catalog", "gateway"):
            yield _stream(subjects.wake(work.work_class, "*"), waker, (work.service,))


def _service(subject: str, provider: str, consumers: Iterable[str]) -> Share:
    return Share("service", subject, provider, tuple(consumers))


def _stream(subject: str, provider: str, consumers: Iterable[str]) -> Share:
    return Share("stream", subject, provider, tuple(consumers))
