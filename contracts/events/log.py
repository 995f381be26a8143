"""Events of the log itself."""

from contracts.definitions import union_in
from contracts.events.base import Event
from contracts.ids import Digest, ImageId
from contracts.wording import count, enumerated

MAX_ACCEPTED_LOSSES = 1_000
"""Maximum blobs, and maximum images, of one LossAccepted: as many fit into a commit."""


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


class LossAccepted(Event, frozen=True, tag="log.loss_accepted"):
    """Given up, because no copy exists: these blobs, and the keys of these images. They are not expected any more.

    At most MAX_ACCEPTED_LOSSES of each; a larger loss is several commits. A blob that a later event names is expected
    again.
    """

    blobs: tuple[Digest, ...] = ()
    images: tuple[ImageId, ...] = ()
    reason: str = ""

    def describe(self) -> str:
        lost = [count(len(self.blobs), "blob")] if self.blobs else []
        lost += [f"the keys of {count(len(self.images), 'image')}"] if self.images else []
        return f"Accepted the loss of {enumerated(lost)}" + (f": {self.reason}" if self.reason else "")


LogEvent = union_in(__name__, Event)
