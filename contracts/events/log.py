"""Events of the log itself."""

from contracts.definitions import union_in
from contracts.events.base import Event
from contracts.wording import count


class LogCreated(Event, frozen=True, tag="log.created"):
    """The first commit of a log: its id, and the format of the data folder. A cursor is valid for one `log_id` only."""

    log_id: str
    format: int

    def describe(self) -> str:
        return "Created the event log"


class LogRestored(Event, frozen=True, tag="log.restored"):
    """All earlier commits were restored from copies, each at its original sequence, into a new log `log_id`.

    `before` is the id of the log they came from; `voided` counts the commits of which no copy was left (`log.voided`).
    """

    log_id: str
    before: str
    voided: int = 0

    def describe(self) -> str:
        lost = f"; {count(self.voided, 'commit')} could not be recovered" if self.voided else ""
        return f"Restored the event log{lost}"


class LogVoided(Event, frozen=True, tag="log.voided"):
    """Placeholder for a lost commit: it keeps the sequence occupied, so that no sequence is used twice."""

    reason: str

    def describe(self) -> str:
        return f"Lost a commit: {self.reason}"


LogEvent = union_in(__name__, Event)
