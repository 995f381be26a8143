"""What jobs and tagging runs have in common. `attempt` is the sequence of the attempt's own start."""

from contracts.events.facts import Fact
from contracts.ids import WorkerId
from contracts.subjects import Priority


class Queued(Fact, frozen=True):
    """It may be taken by a worker. The sequence of this fact is its dispatch number; only the newest counts."""

    priority: Priority


class AttemptStarted(Fact, frozen=True):
    """One worker's try begins, at `resumes` steps (images) already kept. Its sequence names the attempt."""

    worker: WorkerId
    boot: str
    resumes: int


class Interrupted(Fact, frozen=True):
    """A worker stopped politely; the next one goes on. Never counted against the work."""

    attempt: int
    step: int
    reason: str


class AttemptFailed(Fact, frozen=True):
    """A worker's child died or hung. Another attempt follows, unless this was one too many."""

    attempt: int
    step: int
    reason: str


class CancelRequested(Fact, frozen=True):
    """Somebody wants it stopped; a worker that holds it obeys."""

    reason: str = ""


class Cancelled(Fact, frozen=True):
    """It ended because somebody asked; `attempt` is 0 when no worker held it."""

    attempt: int = 0
    step: int = 0


class Failed(Fact, frozen=True):
    """It ended without a result. `code` is stable, `reason` a sentence that says what to do."""

    attempt: int
    code: str
    reason: str
