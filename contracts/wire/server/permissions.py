"""Permissions on the bus: one user for each service, with least privilege. Pure.

They guard against mistakes in our own code (a worker that appends events of another kind, a gateway that appends at
all). They do not contain an attacker who runs code inside a service: a NATS client that may create a consumer chooses
where it delivers.
"""

from typing import Literal, get_args

import msgspec

from contracts import subjects
from contracts.aggregates import REGISTRY, WORK_KINDS
from contracts.subjects import WorkClass
from contracts.telemetry import TELEMETRY

Role = Literal["admin", "catalog", "gateway", "tagger", "trainer"]
ROLES: tuple[Role, ...] = get_args(Role)

BUCKETS: dict[str, tuple[str, ...]] = {"catalog": ("catalog", "sessions"), "gateway": ("sessions",)}
"""The key-value buckets each service writes: the catalog's lease and log id, and the sessions."""
READABLE = (subjects.EVENTS, subjects.METRICS, "KV_catalog", "KV_sessions")
"""Streams every service may read."""


class Permissions(msgspec.Struct, frozen=True):
    """Subjects a user may publish and subscribe to; `may_reply`: it may reply once to each request it receives."""

    publish: tuple[str, ...]
    subscribe: tuple[str, ...]
    may_reply: bool = True


def permissions(role: Role) -> Permissions:
    """What this role may publish and subscribe to in the account LORATORY."""
    subscribe: tuple[str, ...] = ()
    match role:
        case "admin":
            return Permissions(publish=(">",), subscribe=(">",), may_reply=False)
        case "catalog":
            publish = ("jobs.>", "ctl.>", "qry.>", *_manage(subjects.QUEUE))
            subscribe = (subjects.service_key("*"),)
        case "gateway":
            publish, subscribe = ("cmd.>", "qry.>", "ctl.>", "$SRV.>"), ("met.>",)
        case "tagger" | "trainer":
            work = next(kind.work_class for kind in WORK_KINDS.values() if kind.service == role)
            metrics = ("met.job.*",) if role == "trainer" else ()
            publish, subscribe = (
                ("qry.catalog.>", subjects.service_key(role), *metrics, *_fetch(work)),
                (f"ctl.{work}.*",),
            )
    return Permissions((*_common_publish(role), *publish), (*_common_subscribe(role), *subscribe))


def _common_publish(role: str) -> tuple[str, ...]:
    events = tuple(subjects.aggregate(kind.name, "*") for kind in REGISTRY.kinds if role in (kind.owner, *kind.writers))
    telemetry = tuple(kind.pattern(service=role) for kind in TELEMETRY if role in kind.publishers)
    buckets = tuple(f"$KV.{bucket}.>" for bucket in BUCKETS.get(role, ()))
    reading = tuple(subject for stream in READABLE for subject in _read(stream))
    return (*events, *telemetry, *buckets, "$JS.API.INFO", "$JS.API.STREAM.NAMES", "$JS.API.STREAM.INFO.*", *reading)


def _common_subscribe(role: str) -> tuple[str, ...]:
    telemetry = (kind.pattern() for kind in TELEMETRY if role in kind.receivers)
    return (f"{subjects.inbox(role)}.>", f"cmd.{role}.>", f"qry.{role}.>", "evt.>", "$SRV.>", *telemetry)


def _read(stream: str) -> tuple[str, ...]:
    """Direct and leader reads, and consumers. nats-py creates ordered consumers on the unnamed create subject."""
    return (
        f"$JS.API.DIRECT.GET.{stream}",
        f"$JS.API.DIRECT.GET.{stream}.>",
        f"$JS.API.STREAM.MSG.GET.{stream}",
        f"$JS.API.CONSUMER.CREATE.{stream}",
        f"$JS.API.CONSUMER.CREATE.{stream}.>",
        f"$JS.API.CONSUMER.INFO.{stream}.*",
        f"$JS.API.CONSUMER.DELETE.{stream}.*",
        f"$JS.API.CONSUMER.MSG.NEXT.{stream}.*",
        f"$JS.ACK.{stream}.>",
        f"$JS.FC.{stream}.>",
    )


def _fetch(work: WorkClass) -> tuple[str, ...]:
    """Fetch work of one class from its durable consumers, which the catalog or the migrate step creates."""
    queue = subjects.QUEUE
    named = [subjects.queue_consumer(work, priority) for priority in subjects.PRIORITIES]
    return (
        f"$JS.API.CONSUMER.INFO.{queue}.*",
        f"$JS.API.STREAM.MSG.GET.{queue}",
        *(f"$JS.API.CONSUMER.MSG.NEXT.{queue}.{name}" for name in named),
        *(f"$JS.ACK.{queue}.{name}.>" for name in named),
    )


def _manage(stream: str) -> tuple[str, ...]:
    """All that the dispatcher does with the queue, including recreating a lost one, but not changing or deleting it."""
    return (
        *_read(stream),
        f"$JS.API.STREAM.CREATE.{stream}",
        f"$JS.API.STREAM.PURGE.{stream}",
        f"$JS.API.STREAM.MSG.DELETE.{stream}",
        f"$JS.API.CONSUMER.DURABLE.CREATE.{stream}.*",
        f"$JS.API.CONSUMER.NAMES.{stream}",
        f"$JS.API.CONSUMER.LIST.{stream}",
    )
