"""Which images were marked as reviewed: a set of each data set."""

from collections import defaultdict

from pyroaring import BitMap

from catalog.database import Connection
from catalog.views import images, sets
from catalog.views.batch import CommitBatch
from contracts.events.datasets import ImageErased, ImagesReviewed

TABLES = ""


def apply(connection: Connection, batch: CommitBatch) -> None:
    """An image whose state changes gets a new ETag. The sets of erased data sets are deleted by `images`."""
    changes: defaultdict[str, list[tuple[int, BitMap, bool]]] = defaultdict(list)
    for recorded, event in batch.events(ImagesReviewed, ImageErased):
        match event:
            case ImagesReviewed(images=serialized, reviewed=reviewed):
                change = (recorded.sequence, BitMap(batch.ordinals(serialized)), reviewed)
            case ImageErased(ordinal=ordinal):
                change = (0, BitMap([ordinal]), False)
            case _:
                continue
        changes[recorded.commit.aggregate_id].append(change)
    for dataset_id, some in changes.items():
        found = sets.load(connection, dataset_id, "reviewed")
        for sequence, named, reviewed in some:
            changed = named - found if reviewed else named & found
            found ^= changed
            if sequence:
                images.mark_changed(connection, dataset_id, changed, sequence)
        sets.save(connection, dataset_id, "reviewed", found)
