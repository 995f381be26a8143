"""What a version that is to be trained on lacks: keys that are gone, and pictures that are missing."""

from catalog.database import Connection
from catalog.views import losses, presence
from catalog.watch.absent_keys import AbsentKeys
from catalog.watch.losses import MAX_NAMED_IMAGES, Losses
from contracts.errors import BlobMissing, Lost
from contracts.events.datasets import VersionFrozen
from contracts.losses import CURE


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
