"""Progress and metrics: told, not facts. Would we miss it in a year? Then it is a fact and does not belong here."""

from datetime import datetime
from typing import Literal

import msgspec

from contracts.ids import JobId, RunId, WorkerId

BLOCK_STEPS = 100
"""A loss block holds at most so many steps; a message each step would cost a hundred times as much to read."""


class _Told(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="type"):
    """Nobody keeps it for ever, and it may be lost."""


class TrainingProgress(_Told, frozen=True, tag="progress.job"):
    """Where a running job is. Sent several times a second and again every second; the last one counts.

    `phase` is one of loading, caching, training, sampling, saving; `message` a few words for people. `rate` in steps
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


class TaggingProgress(_Told, frozen=True, tag="progress.tagging"):
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
    """A worker says every second that it lives. Three seconds of silence: it is gone.

    `state`: `starting` (importing, loading), `idle`, `busy`, `stopping`. `holds` is the id of the work it is at.
    """

    service: Literal["trainer", "tagger"]
    worker: WorkerId
    state: Literal["starting", "idle", "busy", "stopping"]
    at: datetime
    holds: str | None = None
    device: str = ""
    message: str = ""
    models: tuple[str, ...] = ()
    """What a tagger can load by name."""


class LossBlock(msgspec.Struct, frozen=True, kw_only=True):
    """Steps `first` … `first + len(losses) - 1` of a job. Keyed by (job, step): a later attempt replaces."""

    job_id: JobId
    attempt: int
    first: int
    losses: tuple[float, ...]
    rates: tuple[float, ...]


class Applied(msgspec.Struct, frozen=True, kw_only=True):
    """How far the catalog's read model has come, said after each transaction and every second.

    Facts up to `sequence` can be shown: who asks again sees them. `log_id` tells logs apart; `verified` is false until
    the catalog has compared the log with its archive, and nobody serves or appends before that.
    """

    log_id: str
    sequence: int
    verified: bool
    damage: str = ""
    """What is wrong with the log, in words; the last thing a catalog says that ends by it."""
