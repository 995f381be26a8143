"""Progress, presence and metrics: published, not stored as events. What would be missed in a year is an event instead.

A message for live clients is a class here and a line in `LIVE_MESSAGES`: who may publish it, who receives it, its frame
(`contracts.frames`) and its place in the AsyncAPI document follow.
"""

import re
from datetime import datetime
from typing import ClassVar, Literal

import msgspec

from contracts.ids import JobId, RunId, WorkerId
from contracts.losses import LossReport

BLOCK_STEPS = 100
"""Maximum steps in one loss block; a message for each step would cost a hundred times as much to read."""


class Telemetry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Base class of messages that may be lost; a newer one replaces the one before it on the same subject."""

    address: ClassVar[str]
    """The subject, with names of fields in braces."""
    publishers: ClassVar[tuple[str, ...]]
    """The services that may publish it; where the address has a field `service`, each only as itself."""
    receivers: ClassVar[tuple[str, ...]]
    """The services that receive it."""

    @property
    def subject(self) -> str:
        return self.address.format_map({name: getattr(self, name) for name in self.__struct_fields__})

    @classmethod
    def kind_name(cls) -> str:
        """`import_progress` for ImportProgress."""
        return re.sub(r"(?<!^)(?=[A-Z])", "_", cls.__name__).lower()

    @classmethod
    def pattern(cls, **fields: str) -> str:
        """All subjects of such messages, or of those with these fields."""
        return re.sub(r"\{(\w+)\}", lambda field: fields.get(field[1], "*"), cls.address)


class LiveMessage(Telemetry, frozen=True):
    """Passed on to all live clients, and to those that connect later until it has expired."""

    receivers = ("catalog", "gateway")
    lifetime: ClassVar[float] = 5.0
    """Seconds after which a message without a successor has expired."""

    at: datetime

    @property
    def work_id(self) -> str:
        """The job or tagging run it is about; clients of another one do not receive it."""
        return ""

    def expired(self) -> "LiveMessage | None":
        """What live clients receive when it has expired; None: nothing."""
        return None


class TrainingProgress(LiveMessage, frozen=True, tag="progress.job", tag_field="type"):
    """Where a running job is. Sent several times a second and again every second; the last one counts.

    `phase` is one of loading, caching, training, sampling, saving; `message` a short text for display. `rate` in steps
    a second over the last few seconds; `eta` in seconds to the last step.
    """

    address = "prog.train.{job_id}"
    publishers = ("trainer",)

    job_id: JobId
    attempt: int
    phase: str
    step: int = 0
    steps: int = 0
    epoch: int = 0
    loss: float | None = None
    learning_rate: float | None = None
    rate: float | None = None
    eta: float | None = None
    message: str = ""

    @property
    def work_id(self) -> str:
        return self.job_id


class TaggingProgress(LiveMessage, frozen=True, tag="progress.tagging", tag_field="type"):
    """Where a running tagging run is, in images."""

    address = "prog.tag.{run_id}"
    publishers = ("tagger",)

    run_id: RunId
    attempt: int
    phase: str
    done: int = 0
    total: int = 0
    message: str = ""

    @property
    def work_id(self) -> str:
        return self.run_id


Progress = TrainingProgress | TaggingProgress


class Presence(LiveMessage, frozen=True):
    """A worker's heartbeat, published every second. After three seconds without one the worker counts as gone.

    `state`: `starting` (importing, loading), `idle`, `busy`, `stopping`; live clients receive `gone` once it has
    expired. `holds` is the id of the work it runs.
    """

    address = "wrk.{service}.{worker}"
    publishers = ("trainer", "tagger")
    lifetime = 3.0

    service: Literal["trainer", "tagger"]
    worker: WorkerId
    state: Literal["starting", "idle", "busy", "stopping", "gone"]
    holds: str | None = None
    device: str = ""
    message: str = ""
    models: tuple[str, ...] = ()
    """Names of the models a tagger can load."""

    def expired(self) -> LiveMessage:
        return msgspec.structs.replace(self, state="gone")


LIVE_MESSAGES: tuple[type[LiveMessage], ...] = (TrainingProgress, TaggingProgress, Presence)


class LossBlock(msgspec.Struct, frozen=True, kw_only=True):
    """Steps `first` … `first + len(losses) - 1` of a job. Keyed by (job, step): a later attempt replaces."""

    job_id: JobId
    attempt: int
    first: int
    losses: tuple[float, ...]
    rates: tuple[float, ...]


class PendingAggregate(msgspec.Struct, frozen=True, kw_only=True):
    """An aggregate of which the commits from `sequence` on are not shown completely yet."""

    aggregate_kind: str
    aggregate_id: str
    sequence: int


class Applied(Telemetry, frozen=True):
    """How far the catalog's read model has applied the log; published after each transaction and every second.

    Queries show all events up to `sequence`, but for those of `pending` aggregates, in which the catalog still works.
    `log_id` identifies the log; `verified` is false until the catalog has compared the log with its archive: before
    that no service serves or appends. `last_foreign`: sequence of the newest foreign message up to there
    (`ListForeign` has all of them); 0: there is none.
    """

    address = "news.applied"
    publishers = ("catalog",)
    receivers = ("gateway", "tagger", "trainer")

    log_id: str
    sequence: int
    verified: bool
    last_foreign: int = 0
    pending: tuple[PendingAggregate, ...] = ()
    damage: str = ""
    """What is wrong with the log, as a sentence; the last message of a catalog that stops because of it."""


class Appended(Telemetry, frozen=True):
    """A worker appended a commit; the catalog reads it at once. Without this message it looks every second."""

    address = "news.appended.{service}"
    publishers = ("trainer", "tagger")
    receivers = ("catalog",)

    service: str
    sequence: int


class ImagesErased(Telemetry, frozen=True):
    """Images were erased: services that keep copies query which (`ListErased`) and delete them."""

    address = "news.erased"
    publishers = ("catalog",)
    receivers = ("gateway", "tagger", "trainer")


class LossesFound(Telemetry, frozen=True):
    """What is missing of the stored bytes and keys; published when that changes, and every few seconds."""

    address = "news.losses"
    publishers = ("catalog",)
    receivers = ("gateway",)

    report: LossReport


TELEMETRY: tuple[type[Telemetry], ...] = (*LIVE_MESSAGES, Applied, Appended, ImagesErased, LossesFound)
