"""What is lost: the result of a comparison, and the problems it causes. Pure."""

from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import islice

from catalog.domain.live_blobs import BlobReference
from contracts.errors import BlobMissing, KeyMissing
from contracts.ids import Digest, ImageId
from contracts.losses import CURE, MAX_REPORTED_LOSSES, Loss, LossReport

MAX_NAMED_IMAGES = 20
"""Maximum number of images that a problem names."""


@dataclass(frozen=True)
class Losses:
    """What was missing at `checked_at`, of so many `blobs` and `keys` that must be there."""

    checked_at: datetime | None = None
    blobs: int = 0
    keys: int = 0
    lost_blobs: Mapping[Digest, tuple[BlobReference, ...]] = field(default_factory=dict)
    """Each with everything that names it."""
    lost_keys: frozenset[ImageId] = frozenset()
    damaged: frozenset[Digest] = frozenset()
    """Those of the lost blobs of which there are bytes, but others."""

    def __bool__(self) -> bool:
        return bool(self.lost_blobs or self.lost_keys)

    def references(self) -> Iterator[BlobReference]:
        return (reference for references in self.lost_blobs.values() for reference in references)

    def all(self) -> Iterator[Loss]:
        """Blobs first, each once for everything that names it, then keys."""
        for reference in self.references():
            yield Loss(kind=reference.kind, id=reference.digest, owner=reference.owner)
        for image in sorted(self.lost_keys):
            yield Loss(kind="key", id=image, owner=image)

    def report(self) -> LossReport:
        counts: dict[str, int] = {}
        for loss in self.all():
            counts[loss.kind] = counts.get(loss.kind, 0) + 1
        first = tuple(islice(self.all(), MAX_REPORTED_LOSSES))
        return LossReport(checked_at=self.checked_at, blobs=self.blobs, keys=self.keys, counts=counts, first=first)

    def with_lost(self, references: Iterable[BlobReference]) -> "Losses":
        return replace(self, lost_blobs={**self.lost_blobs, **by_digest(references)})

    def without(self, digests: Container[Digest]) -> "Losses":
        """After these blobs were stored again."""
        return replace(self, lost_blobs={one: names for one, names in self.lost_blobs.items() if one not in digests})


def by_digest(references: Iterable[BlobReference]) -> dict[Digest, tuple[BlobReference, ...]]:
    found: dict[Digest, tuple[BlobReference, ...]] = {}
    for reference in references:
        found[reference.digest] = (*found.get(reference.digest, ()), reference)
    return found


def blob_missing(reference: BlobReference) -> BlobMissing:
    """The problem of whatever a missing blob belongs to."""
    return BlobMissing(
        f"the {reference.kind} of {reference.owner} is missing (blob {reference.digest}); {CURE}",
        kind=reference.kind,
        blob=reference.digest,
        owner=reference.owner,
    )


def keys_missing(images: Iterable[ImageId]) -> KeyMissing:
    """The problem of images whose keys are missing although they were not erased."""
    ids = sorted(images)
    named = f"{', '.join(ids[:MAX_NAMED_IMAGES])}{' and others' if len(ids) > MAX_NAMED_IMAGES else ''}"
    whose = f"key of image {named} is" if len(ids) == 1 else f"keys of {len(ids)} images are"
    more = "" if len(ids) == 1 else f" ({named})"
    return KeyMissing(
        f"the {whose} missing{more}, so file name and caption cannot be read; {CURE}", images=ids[:MAX_NAMED_IMAGES]
    )
