"""Losses: blobs and keys that should be stored and are not, as reports and sentences. Pure."""

from datetime import datetime
from typing import Literal

import msgspec

BlobKind = Literal[
    "source", "picture", "thumbnail", "mask", "manifest", "checkpoint", "sample", "artifact", "image-set"
]
LossKind = Literal[
    "source", "picture", "thumbnail", "mask", "manifest", "checkpoint", "sample", "artifact", "image-set", "key"
]

MAX_REPORTED_LOSSES = 20
"""Maximum number of losses that a report lists one by one; all are counted."""
CURE = "restore them with `loratory restore --from BACKUP`, or give them up with `loratory accept-loss`"


class Loss(msgspec.Struct, frozen=True, kw_only=True):
    """A blob, or the key of an image, that should be there and is not.

    `id`: the digest of the blob, or the image whose key it is. `owner`: the image, version or job it belongs to.
    """

    kind: LossKind
    id: str
    owner: str


class LossReport(msgspec.Struct, frozen=True, kw_only=True):
    """What should be stored, and what of it is missing: counted by kind, and the first MAX_REPORTED_LOSSES.

    `blobs` and `keys`: how many should be there. `checked_at` null: not compared yet since the start. `cure`: commands
    with the folders of this workshop.
    """

    checked_at: datetime | None = None
    blobs: int = 0
    keys: int = 0
    counts: dict[str, int] = {}
    first: tuple[Loss, ...] = ()
    cure: str = ""

    @property
    def total(self) -> int:
        return sum(self.counts.values())

    def describe(self) -> str:
        """What is missing, without a full stop; empty if nothing is: `2 pictures, 1 key are missing; restore …`."""
        if not self.counts:
            return ""
        named = [f"{number} {kind}{'' if number == 1 else 's'}" for kind, number in sorted(self.counts.items())]
        return f"{', '.join(named)} {'is' if self.total == 1 else 'are'} missing; {self.cure or CURE}"


class BlobAudit(msgspec.Struct, frozen=True, kw_only=True):
    """All stored blobs are read: `read` so far, `damaged` of them not with the bytes that were put.

    `never`: not requested since the start. `failed`: the blobs could not be read; `error` says why.
    """

    state: Literal["never", "running", "ended", "failed"]
    read: int = 0
    damaged: int = 0
    error: str | None = None

    def describe(self) -> str:
        if self.state == "failed":
            return f"the blobs could not be read: {self.error}"
        return f"the bytes of {self.read} blobs were read; {self.damaged} of them are damaged"


def loss_lines(report: LossReport) -> list[str]:
    """What is missing, as lines of text; one line if nothing is."""
    if report.checked_at is None:
        return ["blobs and keys were not compared with what must be there"]
    if not report.counts:
        return [f"all {report.blobs} blobs and {report.keys} keys are there"]
    first = [f"missing  {loss.kind} {loss.id} of {loss.owner}" for loss in report.first]
    more = report.total - len(first)
    return [*first, *([f"missing  {more} more"] if more else []), report.describe()]
