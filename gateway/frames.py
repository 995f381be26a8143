"""What a socket is told, as text. Pure: facts and telemetry in, JSON out."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec

from contracts import subjects
from contracts.events import Stored
from contracts.queries import EventView
from contracts.telemetry import Presence, Progress, TrainingProgress
from gateway.cursor import WHOLE, Place, cursor_of


@dataclass(frozen=True, slots=True)
class FactFrame:
    """A fact ready to be sent, encoded once for all sockets."""

    place: Place
    kind: str
    thing: str
    type: str
    text: str


def frame(type_: str, data: object, *, seq: str | None = None, subject: str = "", time: datetime | None = None) -> str:
    """The envelope all frames share; `seq` is null on frames that do not move the cursor."""
    envelope = {"type": type_, "seq": seq, "time": time or datetime.now(UTC), "subject": subject, "data": data}
    return msgspec.json.encode(envelope).decode()


def of_commit(stored: Stored, log_id: str) -> list[FactFrame]:
    """One frame for each fact of a commit, in order."""
    commit = stored.commit
    last = len(commit.facts) - 1
    frames = []
    for index, fact in enumerate(commit.facts):
        data = msgspec.to_builtins(fact)
        place = Place(stored.sequence, WHOLE if index == last else index)
        frames.append(
            _fact(
                place,
                commit.kind,
                commit.thing,
                data,
                actor=commit.actor,
                command=commit.command,
                at=commit.at,
                log=log_id,
            )
        )
    return frames


def of_event(event: EventView, place: Place, log_id: str) -> FactFrame:
    """The same frame, made from what the catalog keeps."""
    data = msgspec.json.decode(event.data)
    return _fact(
        place, event.kind, event.thing, data, actor=event.actor, command=event.command, at=event.time, log=log_id
    )


def _fact(  # noqa: PLR0913 - the frame spelt out
    place: Place, kind: str, thing: str, data: dict[str, Any], *, actor: str, command: str, at: datetime, log: str
) -> FactFrame:
    data |= {"actor": actor, "command": command}
    type_ = data["type"]
    subject = f"evt.{kind}.{thing}"
    text = frame(type_, data, seq=cursor_of(log, place), subject=subject, time=at)
    return FactFrame(place, kind, thing, type_, text)


def places(events: Sequence[EventView]) -> list[Place]:
    """The place after each of these events, which are whole commits, or all of them that somebody wants."""
    following = [*(event.sequence for event in events[1:]), 0]
    return [
        Place(event.sequence, WHOLE if event.sequence != after else event.index)
        for event, after in zip(events, following, strict=False)  # without events there is still the 0
    ]


def thing_of(progress: Progress) -> str:
    return progress.job_id if isinstance(progress, TrainingProgress) else progress.run_id


def of_progress(progress: Progress) -> str:
    """`progress_update`, with the names the training seed gave its members and a few more."""
    if isinstance(progress, TrainingProgress):
        kind, done, total, epoch = "job", progress.step, progress.steps, progress.epoch
        numbers = {name: getattr(progress, name) for name in ("loss", "learning_rate", "rate", "eta")}
    else:
        kind, done, total, epoch = "tagging", progress.done, progress.total, 0
        numbers = dict.fromkeys(("loss", "learning_rate", "rate", "eta"))
    data = {
        "job_id": thing_of(progress),
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
    subject = subjects.progress(subjects.CLASS_OF[kind], thing_of(progress))
    return frame("progress_update", data, subject=subject, time=progress.at)


def of_presence(presence: Presence, *, gone: bool = False) -> str:
    """A worker's state; `gone` is said once, when it has been silent for too long."""
    data = msgspec.to_builtins(presence) | ({"state": "gone"} if gone else {})
    return frame("presence", data, subject=subjects.presence(presence.service, presence.worker), time=presence.at)
