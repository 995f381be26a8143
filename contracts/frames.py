"""Frames: what WebSockets and streams of server-sent events send to clients. Pure.

All frames share one envelope. Those of events and of live messages are derived from their types, so a new event or live
message has its frame without a change here.
"""

from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, Union, get_args

import msgspec
from msgspec import UNSET, UnsetType

from contracts.aggregates import AnyEvent
from contracts.events.base import Event
from contracts.events.datasets import (
    CaptionSet,
    CommitsUndone,
    ImageAdded,
    ImageErased,
    ImagesRemoved,
    ImagesReviewed,
    MaskSet,
    RepeatsSet,
    TagsEdited,
    TagsOrdered,
    TextReceived,
)
from contracts.events.tagging import TaggingPredicted, TaggingRequested
from contracts.ids import CommandId, Digest, ImageId
from contracts.queries.log import EventView
from contracts.telemetry import LIVE_MESSAGES, LiveMessage, Progress, TaggingProgress, TrainingProgress

MAX_NAMED_IMAGES = 100
IMAGE_EVENTS = (
    *(ImageAdded, ImageErased, CaptionSet, TextReceived, TagsEdited, TagsOrdered, ImagesRemoved, ImagesReviewed),
    *(RepeatsSet, MaskSet, CommitsUndone, TaggingRequested, TaggingPredicted),
)
"""Events about images: clients receive ids instead of bitmaps or lists of ordinals."""


class EventImages(msgspec.Struct, frozen=True, kw_only=True):
    """The images an event is about: how many, and their ids if there are at most 100.

    `blob`: the digest of the set of their ordinals, where it is too large for the event.
    """

    count: int
    ids: tuple[ImageId, ...] = ()
    blob: Digest | UnsetType = UNSET


class EventItem(EventView, frozen=True, kw_only=True):
    """An event with the metadata of its commit; `cursor` is the position after it, for `after`."""

    cursor: str
    images: EventImages | None = None
    """Null for events that are not about individual images."""


class Frame(msgspec.Struct, frozen=True, kw_only=True, tag_field="type"):
    """The envelope. `seq` is the cursor after an event; it and `description` are null on all other frames."""

    seq: str | None = None
    time: datetime
    subject: str = ""
    description: str | None = None


# --- the connection


class NoData(msgspec.Struct, frozen=True):
    """The frame's type says it all."""


class CursorData(msgspec.Struct, frozen=True, kw_only=True):
    cursor: str


class ConnectionData(CursorData, frozen=True, kw_only=True):
    log_id: str


class StatsData(CursorData, frozen=True, kw_only=True):
    active_connections: int


class ByeData(msgspec.Struct, frozen=True, kw_only=True):
    reason: str
    resume_after: str


class StaleData(msgspec.Struct, frozen=True, kw_only=True):
    """`reason`: that the log is damaged, and what cures it; empty where the catalog is only silent."""

    reason: str = ""


class ConnectionEstablished(Frame, frozen=True, tag="connection_established"):
    """The first frame; events after `cursor` follow."""

    data: ConnectionData


class CaughtUp(Frame, frozen=True, tag="caught_up"):
    """All events up to `cursor` were sent; the next ones are sent as they happen."""

    data: CursorData


class Stale(Frame, frozen=True, tag="stale"):
    """The catalog is silent, or found the log damaged: reads may be outdated, and events are held back."""

    data: StaleData = StaleData()


class Fresh(Frame, frozen=True, tag="fresh"):
    """The catalog responds again."""

    data: NoData = NoData()


class Pong(Frame, frozen=True, tag="pong"):
    data: NoData = NoData()


class ConnectionStats(Frame, frozen=True, tag="connection_stats"):
    data: StatsData


class Bye(Frame, frozen=True, tag="bye"):
    """The last frame before the gateway restarts: reconnect with `after` = `resume_after`."""

    data: ByeData


class Ping(msgspec.Struct, frozen=True, tag="ping"):
    """A client's request, answered by `pong`."""


class GetStats(msgspec.Struct, frozen=True, tag="get_stats"):
    """A client's request, answered by `connection_stats`."""


ClientFrame = Ping | GetStats


# --- live messages


class ProgressData(msgspec.Struct, frozen=True, kw_only=True):
    """The members that the training seed names, and a few more. `job_id` is also the id of a tagging run."""

    job_id: str
    kind: Literal["job", "tagging"]
    status: Literal["running"] = "running"
    phase: str
    progress_percentage: float
    current_step: int
    completed_steps: int
    total_steps: int
    epoch: int = 0
    loss: float | None = None
    learning_rate: float | None = None
    rate: float | None = None
    eta: float | None = None
    message: str
    timestamp: datetime
    attempt: int


class ProgressUpdate(Frame, frozen=True, tag="progress_update"):
    """How far a running job or tagging run is."""

    data: ProgressData


def message_frame(message: LiveMessage) -> Frame:
    data = _progress_data(message) if isinstance(message, TrainingProgress | TaggingProgress) else message
    frame: Frame = MESSAGE_FRAMES[type(message)](time=message.at, subject=message.subject, data=data)
    return frame


def _progress_data(progress: Progress) -> ProgressData:
    numbers: dict[str, Any]
    if isinstance(progress, TrainingProgress):
        kind, done, total = "job", progress.step, progress.steps
        numbers = {name: getattr(progress, name) for name in ("epoch", "loss", "learning_rate", "rate", "eta")}
    else:
        kind, done, total, numbers = "tagging", progress.done, progress.total, {}
    return ProgressData(
        job_id=progress.work_id,
        kind=kind,  # type: ignore[arg-type]  # mypy widens a literal in a tuple
        phase=progress.phase,
        progress_percentage=round(100 * done / total, 2) if total else 0.0,
        current_step=done,
        completed_steps=done,
        total_steps=total,
        message=progress.message,
        timestamp=progress.at,
        attempt=progress.attempt,
        **numbers,
    )


# --- events


def event_frame(  # noqa: PLR0913 - what a frame says beside the event itself
    event: Event,
    *,
    seq: str,
    subject: str,
    time: datetime,
    actor: str,
    command_id: CommandId,
    images: EventImages | None,
) -> Frame:
    """`images`: for IMAGE_EVENTS, the images that the event is about."""
    frame_type, data_type = EVENT_FRAMES[type(event)]
    fields = msgspec.structs.asdict(event) | {"actor": actor, "command_id": command_id}
    if images is not None:
        fields["images"] = images
    data = data_type(**fields)
    frame: Frame = frame_type(seq=seq, time=time, subject=subject, description=event.describe(), data=data)
    return frame


def _event_frame_types(event: type[Event]) -> tuple[type[Any], type[Any]]:
    """The frame of an event, and its data: the event's own fields, who caused it, and the images it is about."""
    added: dict[str, Any] = {"actor": str, "command_id": CommandId}
    if event in IMAGE_EVENTS:
        added["images"] = EventImages
    tag = str(event.__struct_config__.tag)
    data = _define(event, f"{event.__name__}Data", added, tag, event.__doc__)
    return _define(Frame, f"{event.__name__}Frame", {"data": data}, tag, event.__doc__), data


def _define(base: type, name: str, fields: dict[str, Any], tag: str, doc: str | None) -> type[Any]:
    described = {"__doc__": doc}
    return msgspec.defstruct(
        name, fields.items(), bases=(base,), module=__name__, namespace=described, kw_only=True, tag=tag
    )


EVENT_FRAMES: dict[type[Event], tuple[type[Any], type[Any]]] = {
    event: _event_frame_types(event) for event in get_args(AnyEvent)
}
MESSAGE_FRAMES: dict[type[LiveMessage], type[Any]] = {
    kind: _define(Frame, f"{kind.__name__}Frame", {"data": kind}, kind.kind_name(), kind.__doc__)
    for kind in LIVE_MESSAGES
} | {TrainingProgress: ProgressUpdate, TaggingProgress: ProgressUpdate}
FRAMES: tuple[type[Frame], ...] = (
    *(ConnectionEstablished, CaughtUp, Stale, Fresh, Pong, ConnectionStats, Bye),
    *dict.fromkeys(MESSAGE_FRAMES.values()),
    *(frame for frame, _ in EVENT_FRAMES.values()),
)

if TYPE_CHECKING:
    AnyFrame: TypeAlias = Frame
else:
    AnyFrame = Union[FRAMES]  # noqa: UP007 - built from the types of events and messages at run time
