"""What an image, or a version that is to be trained on, lacks: keys that are gone, and pictures that are missing."""

from collections.abc import Container, Iterable
from dataclasses import dataclass, replace

from catalog.database import Connection
from catalog.keys import Keys
from catalog.store import Store
from catalog.views import erasures, losses, presence
from catalog.views.losses import AcceptedLoss
from catalog.watch.losses import MAX_NAMED_IMAGES, Losses, keys_missing
from contracts.errors import BlobMissing, Lost
from contracts.events.datasets import VersionFrozen
from contracts.ids import ImageId
from contracts.losses import CURE


@dataclass(frozen=True)
class AbsentKeys:
    """Why images have no key: they were erased, or its loss was accepted, or it is missing and nobody knows why."""

    erased: frozenset[str] = frozenset()
    accepted: tuple[AcceptedLoss, ...] = ()
    missing: frozenset[ImageId] = frozenset()

    def require(self) -> None:
        """KeyMissing: a key is missing. Lost: the loss of a key was accepted."""
        self.refuse_missing()
        for loss in self.accepted:
            raise Lost(f"the key of image {loss.id} is {loss.describe()}", image=loss.id)

    def refuse_missing(self) -> None:
        """KeyMissing: a key is missing whose loss was not accepted."""
        if self.missing:
            raise keys_missing(self.missing)

    def among(self, images: Container[ImageId]) -> "AbsentKeys":
        """The same, but losses are accepted only of these images' keys."""
        return replace(self, accepted=tuple(loss for loss in self.accepted if loss.id in images))


async def keys_of(store: Store, keys: Keys, images: Iterable[ImageId]) -> tuple[dict[ImageId, bytes], AbsentKeys]:
    """The keys of these images, and why the others have none."""
    ids = list(images)
    found = await keys.keys_of(ids)
    return found, await _explain(store, keys, set(ids) - found.keys())


async def _explain(store: Store, keys: Keys, absent: set[ImageId]) -> AbsentKeys:
    if not absent:
        return AbsentKeys()

    def read(connection: Connection) -> tuple[set[str], dict[str, AcceptedLoss]]:
        return erasures.erased_among(connection, absent), losses.accepted_keys(connection, absent)

    erased, accepted = await store.read(read)
    erased |= await keys.erased_among(absent)
    kept = tuple(loss for image, loss in accepted.items() if image not in erased)
    return AbsentKeys(frozenset(erased), kept, frozenset(absent - erased - accepted.keys()))


def require_pictures(connection: Connection, dataset_id: str, version: VersionFrozen, known: Losses) -> None:
    """BlobMissing, KeyMissing, Lost: pictures or keys of the version are missing, so nothing can be trained on it."""
    if not known and not losses.any_accepted(connection):
        return
    rows = presence.pictures_of_version(connection, dataset_id, version.as_of)
    AbsentKeys(missing=known.lost_keys & {image for image, _ in rows}).require()
    missing = [image for image, picture in rows if picture in known.lost_blobs]
    if missing:
        raise BlobMissing(
            f"the pictures of {len(missing)} images of version {version.version} are missing, "
            f"the first is that of {missing[0]}; {CURE}, or freeze a version without these images",
            images=missing[:MAX_NAMED_IMAGES],
        )
    for loss in losses.accepted_blobs(connection, (picture for _, picture in rows)).values():
        detail = f"a picture of version {version.version} is {loss.describe()}; freeze a version without this image"
        raise Lost(detail)
    for loss in losses.accepted_keys(connection, (image for image, _ in rows)).values():
        if loss.sequence > version.as_of:  # else the version was frozen without this caption
            what = f"the key of an image of version {version.version} is {loss.describe()}"
            raise Lost(f"{what}; freeze the data set again: this image then goes with its tags")
