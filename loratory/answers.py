"""What the client gives back, where that is more than a view of `contracts.queries`."""

from datetime import datetime
from typing import Any, Literal, TypedDict

import msgspec

from contracts.commands import ImportedFile
from contracts.events import Artifact
from contracts.queries import EventView, JobView, SawView, TaggingView
from contracts.recipe import Recipe
from contracts.subjects import Priority
from contracts.telemetry import Progress

ENDED = frozenset({"completed", "failed", "cancelled"})


class Waiting(msgspec.Struct, frozen=True, kw_only=True):
    """Why work is not under way: `code` for programs, `why` for people; `position` 1 = next."""

    why: str
    code: str = ""
    position: int | None = None
    since: datetime | None = None


class Live(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker last said of its work, and why work waits."""

    progress: Progress | None = None
    waiting: Waiting | None = None


class Job(JobView, frozen=True):
    live: Live | None = None

    @property
    def ended(self) -> bool:
        return self.status in ENDED


class TaggingRun(TaggingView, frozen=True):
    live: Live | None = None

    @property
    def ended(self) -> bool:
        return self.status in ENDED


class Training(TypedDict, total=False):
    """What may be asked of a training beside its data set. `changes` of the preset's recipe: dotted path to value."""

    version: int
    preset: str
    recipe: Recipe
    changes: dict[str, object]
    name: str
    trigger: str
    priority: Priority
    description: str
    labels: list[str]
    auto_start: bool


class Event(EventView, frozen=True):
    """`cursor`: give it back as `after` to go on behind this one."""

    cursor: str = ""


class EventPage(msgspec.Struct, frozen=True, kw_only=True):
    items: tuple[Event, ...]
    next: str | None = None


class Artifacts(msgspec.Struct, frozen=True, kw_only=True):
    items: tuple[Artifact, ...]


class ImportedFiles(msgspec.Struct, frozen=True, kw_only=True):
    items: tuple[ImportedFile, ...]


class Imported(msgspec.Struct, frozen=True, kw_only=True):
    """What became of an upload.

    `files` in the order they were sent; `captions` sent along; `others` files that are no pictures, `outside` links
    that lead out of the folder, both passed over; `unread` what could not be read here, with the reason.
    """

    files: tuple[ImportedFile, ...] = ()
    captions: int = 0
    others: int = 0
    outside: int = 0
    unread: tuple[tuple[str, str], ...] = ()

    def of(self, outcome: Literal["added", "existing", "refused"]) -> list[ImportedFile]:
        return [file for file in self.files if file.outcome == outcome]


class Erased(msgspec.Struct, frozen=True, kw_only=True):
    """What was erased for good. `loras` had seen it and stay; `left` says where something of it is not gone yet."""

    id: str
    sequence: int
    changed: bool
    images: int
    erased_at: datetime
    loras: tuple[SawView, ...] = ()
    left: tuple[str, ...] = ()


class Frame(msgspec.Struct, frozen=True, kw_only=True):
    """What a WebSocket says. `seq` is the cursor of a fact; frames that are no facts have none.

    `data` is the fact with its actor and command, or what else the frame tells (`progress_update`: step, loss, eta …).
    """

    type: str
    seq: str | None = None
    time: datetime | None = None
    subject: str | None = None
    data: dict[str, Any] = {}
