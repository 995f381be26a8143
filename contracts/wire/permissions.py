"""Who may say and hear what on the bus: one user for each service, and nothing it does not need. Pure.

The table guards against mistakes of our own code (a worker that appends another's facts, a gateway that writes at all).
It does not contain an attacker who runs code inside a service: NATS lets whoever may create a consumer choose where it
delivers.
"""

from typing import Literal, get_args

import msgspec

from contracts import subjects
from contracts.subjects import Kind, WorkClass

Role = Literal["admin", "catalog", "gateway", "tagger", "trainer"]
ROLES: tuple[Role, ...] = get_args(Role)

FACTS: dict[str, tuple[Kind, ...]] = {
    "catalog": ("dataset", "preset", "job", "tagging", "log"),
    "trainer": ("job",),
    "tagger": ("tagging",),
}
"""The kinds of things each service appends facts about (`evt.<kind>.<id>`)."""

WORK: dict[str, WorkClass] = {"trainer": "train", "tagger": "tag"}
"""The class of work each worker takes from the queue."""

BUCKETS: dict[str, tuple[str, ...]] = {"catalog": ("catalog", "sessions"), "gateway": ("sessions",)}
"""The key-value buckets each service writes: the catalog's lease and log id, and everybody's session."""

READABLE = (subjects.FACTS, subjects.METRICS, "KV_catalog", "KV_sessions")
"""Streams every service may read."""


class Permissions(msgspec.Struct, frozen=True):
    """Subjects a user may publish to and subscribe to; `answers`: may it reply to what it is asked, once each?"""

    publish: tuple[str, ...]
    subscribe: tuple[str, ...]
    answers: bool = True


def inbox(role: str) -> str:
    """Where answers to this role arrive; nobody else may listen there."""
    return f"_INBOX_{role}"


def permissions(role: Role) -> Permissions:
    """What this role may publish and subscribe to in the account LORATORY."""
    match role:
        case "admin":
            return Permissions(publish=(">",), subscribe=(">",), answers=False)
        case "catalog":
            return Permissions(
                publish=(*_common_publish(role), "jobs.>", "news.>", "ctl.>", "qry.>", *_manage(subjects.QUEUE)),
                subscribe=(*_common_subscribe(role), "wrk.>", "prog.>"),
            )
        case "gateway":
            return Permissions(
                publish=(*_common_publish(role), "cmd.>", "qry.>", "ctl.>", "$SRV.>"),
                subscribe=(*_common_subscribe(role), "wrk.>", "prog.>", "met.>"),
            )
        case "tagger" | "trainer":
            return _worker(role)


def _worker(role: Literal["tagger", "trainer"]) -> Permissions:
    work = WORK[role]
    metrics = ("met.job.*",) if role == "trainer" else ()
    return Permissions(
        publish=(*_common_publish(role), "qry.catalog.>", f"prog.{work}.*", f"wrk.{role}.*", *metrics, *_take(work)),
        subscribe=(*_common_subscribe(role), f"ctl.{work}.*"),
    )


def _common_publish(role: str) -> tuple[str, ...]:
    facts = tuple(f"evt.{kind}.*" for kind in FACTS.get(role, ()))
    buckets = tuple(f"$KV.{bucket}.>" for bucket in BUCKETS.get(role, ()))
    reading = tuple(subject for stream in READABLE for subject in _read(stream))
    return (*facts, *buckets, "$JS.API.INFO", "$JS.API.STREAM.NAMES", "$JS.API.STREAM.INFO.*", *reading)


def _common_subscribe(role: str) -> tuple[str, ...]:
    return (f"{inbox(role)}.>", f"cmd.{role}.>", f"qry.{role}.>", "news.>", "evt.>", "$SRV.>")


def _read(stream: str) -> tuple[str, ...]:
    """Direct and leader reads, and consumers. Ordered consumers of nats-py are made on the unnamed create subject."""
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


def _take(work: WorkClass) -> tuple[str, ...]:
    """Take work of one class: its durable consumers, made by the catalog or the migrate step."""
    queue = subjects.QUEUE
    named = [subjects.queue_consumer(work, priority) for priority in subjects.PRIORITIES]
    return (
        f"$JS.API.CONSUMER.INFO.{queue}.*",
        f"$JS.API.STREAM.MSG.GET.{queue}",
        *(f"$JS.API.CONSUMER.MSG.NEXT.{queue}.{name}" for name in named),
        *(f"$JS.ACK.{queue}.{name}.>" for name in named),
    )


def _manage(stream: str) -> tuple[str, ...]:
    """All a dispatcher does with its queue: also making it anew when it is lost, but not changing or deleting it."""
    return (
        *_read(stream),
        f"$JS.API.STREAM.CREATE.{stream}",
        f"$JS.API.STREAM.PURGE.{stream}",
        f"$JS.API.STREAM.MSG.DELETE.{stream}",
        f"$JS.API.CONSUMER.DURABLE.CREATE.{stream}.*",
        f"$JS.API.CONSUMER.NAMES.{stream}",
        f"$JS.API.CONSUMER.LIST.{stream}",
    )
