"""What images were as of a sequence of the log, from their rows and histories: nothing is replayed.

Of an image that was erased since nothing is kept, so it is in no past either. The present is where the past is counted
from: an image that has not changed since a sequence was then what it is now.
"""

from collections.abc import Callable, Sequence
from itertools import islice

import numpy as np
from msgspec import structs
from pyroaring import BitMap

from catalog.database import Connection
from catalog.domain.edits import latest_choices
from catalog.views import (
    columns,
    datasets,
    edits,
    image_counts,
    image_predictions,
    images,
    masks,
    presence,
    sets,
    tag_digits,
    texts,
)
from catalog.views.bitmaps import from_array
from catalog.views.image_counts import ImageCounts
from catalog.views.images import ImageRow

COUNTED_AT_ONCE = 5_000
"""Changed images whose past tags are read at once."""


def present(connection: Connection, dataset_id: str, until: int) -> BitMap:
    """The images that were part of a data set."""
    added = columns.added_until(connection, dataset_id, until)
    return presence.present_at(connection, dataset_id, added, until)


def was_present(connection: Connection, row: ImageRow, until: int) -> bool:
    """Whether an image that had been added was part of its data set."""
    return bool(presence.present_at(connection, row.dataset_id, BitMap([row.ordinal]), until))


def rows_at(connection: Connection, found: Sequence[ImageRow], until: int) -> list[ImageRow]:
    """Rows of images of one data set, with the caption, the mask and the data set's name that they had.

    `etag`: of an image that has changed since, this sequence; what it was then it was at its last change before, too.
    """
    if not found:
        return []
    dataset_id = found[0].dataset_id
    name = datasets.name_at(connection, dataset_id, until)
    ordinals = [row.ordinal for row in found]
    captions = texts.captions_at(connection, dataset_id, ordinals, until)
    masked = masks.of_images_at(connection, dataset_id, ordinals, until)
    rows = []
    for row in found:
        caption, source = captions[row.ordinal]
        etag = min(row.etag, until)
        texts_then = {"caption": caption, "caption_source": source}
        rows.append(structs.replace(row, dataset=name, mask=masked[row.ordinal], etag=etag, **texts_then))
    return rows


def page(connection: Connection, dataset_id: str, until: int, after: int, limit: int) -> tuple[list[ImageRow], int]:
    """The first images after an ordinal that were part of a data set, and how many there were in all."""
    there = present(connection, dataset_id, until)
    ordinals = list(islice(there.iter_equal_or_larger(after + 1), limit))
    return rows_at(connection, images.by_ordinals(connection, dataset_id, ordinals), until), len(there)


def count_images(connection: Connection, dataset_id: str, until: int, check: Callable[[int], None]) -> ImageCounts:
    """The numbers of images as of a sequence. `check` is called now and then, with the number still to be read."""
    there = present(connection, dataset_id, until)
    row = datasets.find(connection, dataset_id)
    is_counted = row is not None and not row.removed  # of a removed data set there are no sets of tags
    changed = columns.changed_since(connection, dataset_id, until) & there if is_counted else BitMap(there)
    same = there - changed
    tagged = len(tag_digits.with_tags(tag_digits.load_digits(connection, dataset_id)) & same)
    captioned = len(sets.load(connection, dataset_id, "captioned") & same)
    while changed:
        check(len(changed))
        some = changed[:COUNTED_AT_ONCE]
        changed -= some
        tagged += len(_tagged(connection, dataset_id, some, until))
        captions = texts.captions_at(connection, dataset_id, some, until)
        captioned += sum(caption is not None for caption, _ in captions.values())
    cover = image_counts.cover(connection, dataset_id, there)
    return ImageCounts(images=len(there), tagged=tagged, captioned=captioned, cover=cover)


def _tagged(connection: Connection, dataset_id: str, ordinals: BitMap, until: int) -> BitMap:
    """Those of these images that had a tag."""
    found, rejected = BitMap(), []
    for ordinal, some in edits.edits_of(connection, dataset_id, list(ordinals), until).items():
        choices = latest_choices(some)
        if "asserted" in choices.values():
            found.add(ordinal)
        else:
            rejected += [tag << 32 | ordinal for tag in choices]
    rules = image_predictions.rules_by_id(connection, datasets.acceptance_at(connection, dataset_id, until))
    passing = image_predictions.passing_at(connection, dataset_id, ordinals - found, until, rules)
    left = np.setdiff1d(passing, np.array(rejected, dtype=np.uint64), assume_unique=True)
    return found | from_array((left & np.uint64(0xFFFFFFFF)).astype(np.uint32))
