"""WebSocket frames as text. Pure: events and telemetry in, JSON out."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec

from contracts import subjects
from contracts.descriptions import describe
from contracts.events import RecordedCommit
from contracts.queries import EventView
from contracts.telemetry import Presence, Progress, TrainingProgress
from gateway.cursor import END_OF_COMMIT, LogPosition, encode_cursor


@dataclass(frozen=True, slots=True)
class EventFrame:
    """An event ready to be sent, encoded once for all sockets."""

    position: LogPosition
    aggregate_kind: str
    aggregate_id: str
    type: str
    text: str


def encode_frame(  # noqa: PLR0913 - all fields of the frame
    type_: str,
    data: object,
    *,
    seq: str | None = None,
    subject: str = "",
    time: datetime | None = None,
    description: str | None = None,
) -> str:
    """The envelope all frames share; `seq` and `description` are null on frames other than events."""
    envelope = {
        "type": type_,
        "seq": seq,
        "time": time or datetime.now(UTC),
        "subject": subject,
        "description": description,
        "data": data,
    }
    return msgspec.json.encode(envelope).decode()


def commit_frames(recorded: RecordedCommit, log_id: str) -> list[EventFrame]:
    """One frame for each event of a commit, in order."""
    commit = recorded.commit
    last = len(commit.events) - 1
    frames = []
    for index, event in enumerate(commit.events):
        data = msgspec.to_builtins(event)
        position = LogPosition(recorded.sequence, END_OF_COMMIT if index == last else index)
        frames.append(
            _build_event_frame(
                position,
                commit.aggregate_kind,
                commit.aggregate_id,
                data,
                actor=commit.actor,
                command_id=commit.command_id,
                at=commit.at,
                description=describe(event),
                log_id=log_id,
            )
        )
    return frames


def event_frame(event: EventView, position: LogPosition, log_id: str) -> EventFrame:
    """The same frame, built from an event as the catalog returns it."""
    data = msgspec.json.decode(event.data)
    return _build_event_frame(
        position,
        event.aggregate_kind,
        event.aggregate_id,
        data,
        actor=event.actor,
        command_id=event.command_id,
        at=event.time,
        description=event.description,
        log_id=log_id,
    )


def _build_event_frame(  # noqa: PLR0913 - all fields of the frame
    position: LogPosition,
    aggregate_kind: str,
    aggregate_id: str,
    data: dict[str, Any],
    *,
    actor: str,
    command_id: str,
    at: datetime,
    description: str,
    log_id: str,
) -> EventFrame:
    data |= {"actor": actor, "command_id": command_id}
    type_ = data["type"]
    subject = f"evt.{aggregate_kind}.{aggregate_id}"
    seq = encode_cursor(log_id, position)
    text = encode_frame(type_, data, seq=seq, subject=subject, time=at, description=description)
    return EventFrame(position, aggregate_kind, aggregate_id, type_, text)


def positions_after(events: Sequence[EventView]) -> list[LogPosition]:
    """The position after each event. `events` are whole commits, or all matching events of each commit."""
    next_sequences = [*(event.sequence for event in events[1:]), 0]
    return [
        LogPosition(event.sequence, END_OF_COMMIT if event.sequence != next_sequence else event.index)
        for event, next_sequence in zip(events, next_sequences, strict=False)  # without events there is still the 0
    ]


def aggregate_id_of(progress: Progress) -> str:
    return progress.job_id if isinstance(progress, TrainingProgress) else progress.run_id


def progress_frame(progress: Progress) -> str:
    """`progress_update`: the members that the training seed names, and a few more."""
    if isinstance(progress, TrainingProgress):
        kind, done, total, epoch = "job", progress.step, progress.steps, progress.epoch
        numbers = {name: getattr(progress, name) for name in ("loss", "learning_rate", "rate", "eta")}
    else:
        kind, done, total, epoch = "tagging", progress.done, progress.total, 0
        numbers = dict.fromkeys(("loss", "learning_rate", "rate", "eta"))
    data = {
        "job_id": aggregate_id_of(progress),
        "kind": kind,
        "status": "running",
        "phase": progress.phase,
        "progress_percentage": round(100 * done / total, 2) if total else 0.0,
        "current_step": done,
        "completed_steps": done,
        "total_steps": total,
        "epoch": epoch,
        **numbers,
        "message": progress.message,
        "timestamp": progress.at,
        "attempt": progress.attempt,
    }
    subject = subjects.progress(subjects.CLASS_OF[kind], aggregate_id_of(progress))
    return encode_frame("progress_update", data, subject=subject, time=progress.at)


def presence_frame(presence: Presence, *, gone: bool = False) -> str:
    """A worker's state. The state `gone` is sent once, when the worker has published nothing for too long."""
    data = msgspec.to_builtins(presence) | ({"state": "gone"} if gone else {})
    subject = subjects.presence(presence.service, presence.worker)
    return encode_frame("presence", data, subject=subject, time=presence.at)
