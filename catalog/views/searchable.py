"""The sealed texts of images, from which the index in memory is built."""

from collections.abc import Sequence

import msgspec

from catalog.database import Connection
from catalog.rows import fetch, json_array
from contracts.events.base import Sealed
from contracts.ids import ImageId

SEALED = "SELECT ordinal, id, name, caption FROM image WHERE dataset_id = ?"
SEALED_AFTER = f"{SEALED} AND ordinal > ? ORDER BY ordinal LIMIT ?"
SEALED_OF = f"{SEALED} AND ordinal IN (SELECT value FROM json_each(?))"  # noqa: S608 - constants


class SealedTexts(msgspec.Struct, frozen=True, kw_only=True):
    """Name and written caption of an image, sealed."""

    ordinal: int
    id: ImageId
    name: Sealed
    caption: Sealed | None


def page(connection: Connection, dataset_id: str, after: int, limit: int) -> list[SealedTexts]:
    """The texts of images after an ordinal, in their order, removed ones included."""
    return fetch(connection, SealedTexts, SEALED_AFTER, (dataset_id, after, limit))


def of_images(connection: Connection, dataset_id: str, ordinals: Sequence[int]) -> list[SealedTexts]:
    """The texts of these images; none of erased ones."""
    return fetch(connection, SealedTexts, SEALED_OF, (dataset_id, json_array(ordinals)))
