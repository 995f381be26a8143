"""Response types of the client that are more than a view of `contracts.queries`."""

from datetime import datetime
from typing import Any, Literal, TypedDict

import msgspec

from contracts.commands.datasets import ImportedFile, TextCounts
from contracts.queries.datasets import AffectedLoraView
from contracts.queries.jobs import JobView
from contracts.queries.log import EventView
from contracts.queries.tagging import TaggingView
from contracts.recipe import Recipe
from contracts.subjects import Priority
from contracts.telemetry import Progress

ENDED = frozenset({"completed", "failed", "cancelled"})


class WaitReason(msgspec.Struct, frozen=True, kw_only=True):
    """Why a job or tagging run is waiting: `code` for programs, `why` for people; `position` 1 = next in the queue."""

    why: str
    code: str = ""
    position: int | None = None
    since: datetime | None = None

    @property
    def sentence(self) -> str:
        return f"{self.why} in the queue" if self.code == "queued" else self.why


class LiveState(msgspec.Struct, frozen=True, kw_only=True):
    """The last progress report of the worker, and the reason while the work is waiting."""

    progress: Progress | None = None
    waiting: WaitReason | None = None


class Job(JobView, frozen=True):
    live: LiveState | None = None

    @property
    def ended(self) -> bool:
        return self.status in ENDED


class TaggerModel(msgspec.Struct, frozen=True):
    """`description`: what it is for, if that is known. `is_default`: it is used where none is named."""

    name: str
    description: str
    is_default: bool


class TaggingRun(TaggingView, frozen=True):
    live: LiveState | None = None

    @property
    def ended(self) -> bool:
        return self.status in ENDED


class TrainingOptions(TypedDict, total=False):
    """Options of a training besides its data set. `changes`: overrides of the preset's recipe, dotted path to value."""

    version: int
    preset: str
    recipe: Recipe
    changes: dict[str, object]
    name: str
    trigger: str | None
    priority: Priority
    description: str
    labels: list[str]
    auto_start: bool


class LoggedEvent(EventView, frozen=True):
    """`cursor`: pass it as `after` to continue after this event."""

    cursor: str = ""


class ImportSummary(msgspec.Struct, frozen=True, kw_only=True):
    """The result of an import.

    `files` in the order they were sent; `other_files`: number of files that are no images; `outside_links`: number
    of symbolic links that lead out of the folder, not followed; `others`: names and reasons of both; `unmatched`: text
    files of no image; `unreadable`: name and reason of files that could not be read on this machine, or were not
    used; `notes`: what folders and files were taken for.
    """

    files: tuple[ImportedFile, ...] = ()
    other_files: int = 0
    others: tuple[tuple[str, str], ...] = ()
    outside_links: int = 0
    unmatched: tuple[str, ...] = ()
    unreadable: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()

    def of(self, outcome: Literal["added", "existing", "refused"]) -> list[ImportedFile]:
        return [file for file in self.files if file.outcome == outcome]


class TextsPreview(msgspec.Struct, frozen=True, kw_only=True):
    """What reading texts another way would do. `new_tags`: the first that would be in the log, unencrypted."""

    dataset_id: str
    dataset: str
    counts: TextCounts
    new_tags: tuple[str, ...]


class ErasureResult(msgspec.Struct, frozen=True, kw_only=True):
    """The result of an erasure. `loras` were trained on it and remain; `pending`: places still to be purged."""

    id: str
    sequence: int
    changed: bool
    images: int
    erased_at: datetime
    loras: tuple[AffectedLoraView, ...] = ()
    pending: tuple[str, ...] = ()


class Frame(msgspec.Struct, frozen=True, kw_only=True):
    """One WebSocket frame. Frames of events have `seq` (the cursor) and `description`; others have neither.

    `data`: the event with its actor and command id, or the frame's own content (`progress_update`: step, loss, eta …).
    """

    type: str
    seq: str | None = None
    time: datetime | None = None
    subject: str | None = None
    description: str | None = None
    data: dict[str, Any] = {}
