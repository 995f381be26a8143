"""Which blobs and keys must be there: what events name, minus what was erased or given up. Pure.

The catalog answers the same from the rows of its read model (`catalog.views.live_blobs`); this is for archives without
one, such as those of backups, and a test compares both. An event type that names blobs has an arm in `blobs_named_by`;
a blob that lists further blobs needs none, if the events that name it, or those of what it lists, name these as well.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from catalog.domain.image_sets import SET_EVENTS
from contracts.commits import RecordedCommit
from contracts.events.base import Event
from contracts.events.datasets import DatasetErased, ImageAdded, ImageErased, ImageRefused, MaskSet, VersionFrozen
from contracts.events.image_sets import ImageSet, ImageSetEvent
from contracts.events.jobs import JobCheckpointed, JobSampled, JobSucceeded, JobVersionSet
from contracts.events.log import LossAccepted
from contracts.ids import Digest, ImageId
from contracts.losses import BlobKind

NAMING_EVENTS: tuple[type[Event], ...] = (
    *(ImageAdded, MaskSet, VersionFrozen, JobVersionSet, JobCheckpointed, JobSampled, JobSucceeded),
    *SET_EVENTS,
)
"""The types of events that name blobs."""

Place = tuple[str, ...]
"""Where a name stands: a later name in the same place replaces it."""


class BlobReference(NamedTuple):
    """One name of a blob: as what, by which image, version or job (`owner`), and its size in bytes if it is known."""

    digest: Digest
    kind: BlobKind
    owner: str
    size: int | None = None


def blobs_named_by(event: Event, aggregate_id: str) -> tuple[BlobReference, ...]:
    """The blobs that an event of this aggregate names. Of a mask the owner is then the data set."""
    match event:
        case ImageAdded(image_id=image):
            picture_size = event.size if event.picture == event.source else None
            source = BlobReference(event.source, "source", image, event.size)
            if event.cut is not None:  # with the picture it gives the source, of which there is no blob
                source = BlobReference(event.cut, "source", image)
            return (
                source,
                BlobReference(event.picture, "picture", image, picture_size),
                BlobReference(event.thumbnail, "thumbnail", image),
            )
        case MaskSet(mask=str(mask)):
            return (BlobReference(Digest(mask), "mask", aggregate_id),)
        case VersionFrozen(manifest=manifest, pages=pages, version_id=version):
            return tuple(BlobReference(digest, "manifest", version) for digest in (manifest, *pages))
        case JobVersionSet(manifest=manifest):
            return (BlobReference(manifest, "manifest", aggregate_id),)
        case JobCheckpointed(checkpoint=checkpoint, size=size):
            return (BlobReference(checkpoint, "checkpoint", aggregate_id, size),)
        case JobSampled(picture=picture):
            return (BlobReference(picture, "sample", aggregate_id),)
        case JobSucceeded(artifacts=artifacts):
            return tuple(BlobReference(one.digest, "artifact", aggregate_id, one.size) for one in artifacts)
        case ImageSetEvent(images=ImageSet(blob=str(digest))):
            return (BlobReference(Digest(digest), "image-set", aggregate_id),)
        case _:
            return ()


@dataclass
class LiveBlobs:
    """The blobs and keys that must be there after the commits applied so far, in the order of the log."""

    _named: dict[Place, tuple[BlobReference, ...]] = field(default_factory=dict)
    _keys: dict[ImageId, str] = field(default_factory=dict)
    """The data set of each image, and of each refused file, whose key was not destroyed."""
    _accepted_blobs: set[Digest] = field(default_factory=set)
    _accepted_keys: set[ImageId] = field(default_factory=set)

    def apply(self, commits: Iterable[RecordedCommit]) -> None:
        for recorded in commits:
            for event in recorded.commit.events:
                self._apply(event, recorded.commit.aggregate_id)

    def references(self) -> Iterator[BlobReference]:
        """Each name of each blob that must be there."""
        named = (reference for references in self._named.values() for reference in references)
        return (reference for reference in named if reference.digest not in self._accepted_blobs)

    def keys(self) -> set[ImageId]:
        """The images, and refused files, whose keys must be there."""
        return self._keys.keys() - self._accepted_keys

    def _apply(self, event: Event, aggregate_id: str) -> None:
        if named := blobs_named_by(event, aggregate_id):
            place = _place_of(event, aggregate_id)
            self._named[place] = self._with_mask(place, *named) if isinstance(event, MaskSet) else named
            self._accepted_blobs.difference_update(reference.digest for reference in named)
        match event:
            case ImageAdded(image_id=image) | ImageRefused(image_id=image):
                self._keys[image] = aggregate_id
            case ImageErased(ordinal=ordinal, image_id=image):
                self._named.pop(("image", aggregate_id, str(ordinal)), None)
                self._keys.pop(image, None)
            case DatasetErased():
                self._named = {
                    place: kept for place, kept in self._named.items() if place[:2] != ("image", aggregate_id)
                }
                self._keys = {image: dataset for image, dataset in self._keys.items() if dataset != aggregate_id}
            case LossAccepted(blobs=blobs, images=images):
                self._accepted_blobs.update(blobs)
                self._accepted_keys.update(images)
            case _:
                pass

    def _with_mask(self, image: Place, mask: BlobReference) -> tuple[BlobReference, ...]:
        """All blobs of an image: its earlier masks stay, for an undo brings them back."""
        named = self._named.get(image, ())
        owned = [mask._replace(owner=reference.owner) for reference in named[:1]]
        return (*named, *(one for one in owned if one not in named))


def _place_of(event: Event, aggregate_id: str) -> Place:
    match event:
        case ImageAdded(ordinal=ordinal) | MaskSet(ordinal=ordinal):
            return "image", aggregate_id, str(ordinal)
        case VersionFrozen(version_id=version):
            return "version", version
        case JobCheckpointed(step=step):
            return "checkpoint", aggregate_id, str(step)
        case JobSampled(step=step, index=index):
            return "sample", aggregate_id, str(step), str(index)
        case ImageSetEvent(images=images):
            return "image-set", aggregate_id, images.blob or ""
        case _:
            return event.type_name, aggregate_id
