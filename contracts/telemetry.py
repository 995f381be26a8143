"""Progress and metrics: published, not stored as events. What would be missed in a year is an event instead."""

from datetime import datetime
from typing import Literal

import msgspec

from contracts.ids import JobId, RunId, WorkerId

BLOCK_STEPS = 100
"""Maximum steps in one loss block; a message for each step would cost a hundred times as much to read."""


class _Telemetry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="type"):
    """Base class of telemetry: not stored, and may be lost."""


class TrainingProgress(_Telemetry, frozen=True, tag="progress.job"):
    """Where a running job is. Sent several times a second and again every second; the last one counts.

    `phase` is one of loading, caching, training, sampling, saving; `message` a short text for display. `rate` in steps
    a second over the last few seconds; `eta` in seconds to the last step.
    """

    job_id: JobId
    attempt: int
    phase: str
    at: datetime
    step: int = 0
    steps: int = 0
    epoch: int = 0
    loss: float | None = None
    learning_rate: float | None = None
    rate: float | None = None
    eta: float | None = None
    message: str = ""


class TaggingProgress(_Telemetry, frozen=True, tag="progress.tagging"):
    """Where a running tagging run is, in images."""

    run_id: RunId
    attempt: int
    phase: str
    at: datetime
    done: int = 0
    total: int = 0
    message: str = ""


Progress = TrainingProgress | TaggingProgress


class Presence(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A worker's heartbeat, published every second. After three seconds without one the worker counts as gone.

    `state`: `starting` (importing, loading), `idle`, `busy`, `stopping`. `holds` is the id of the work it runs.
    """

    service: Literal["trainer", "tagger"]
    worker: WorkerId
    state: Literal["starting", "idle", "busy", "stopping"]
    at: datetime
    holds: str | None = None
    device: str = ""
    message: str = ""
    models: tuple[str, ...] = ()
    """Names of the models a tagger can load."""


class LossBlock(msgspec.Struct, frozen=True, kw_only=True):
    """Steps `first` … `first + len(losses) - 1` of a job. Keyed by (job, step): a later attempt replaces."""

    job_id: JobId
    attempt: int
    first: int
    losses: tuple[float, ...]
    rates: tuple[float, ...]


class Applied(msgspec.Struct, frozen=True, kw_only=True):
    """How far the catalog's read model has applied the log; published after each transaction and every second.

    Queries show all events up to `sequence`. `log_id` identifies the log; `verified` is false until the catalog has
    compared the log with its archive: before that no service serves or appends.
    """

    log_id: str
    sequence: int
    verified: bool
    damage: str = ""
    """What is wrong with the log, as a sentence; the last message of a catalog that stops because of it."""
