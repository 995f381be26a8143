"""What is read of a data set for a version of it, from one snapshot: what there is to do, and then its pages."""

from pyroaring import BitMap

from catalog.database import Connection
from catalog.domain import manifest
from catalog.domain.manifest import EncodedPage
from catalog.freezing.source import FreezePlan, PageRequest, Unsettled
from catalog.lookup import known_dataset
from catalog.store import checkpoint
from catalog.views import datasets, pending, sets, version_content, versions
from catalog.views.tag_names import Names


def plan(dataset_id: str, connection: Connection) -> FreezePlan | Unsettled:
    """NotFound: the data set has never existed."""
    if (first := pending.first_of_dataset(connection, dataset_id)) is not None:
        return Unsettled(first)
    row, latest = known_dataset(connection, dataset_id), versions.find_latest(connection, dataset_id)
    changed = BitMap() if latest is None else version_content.changed_images(connection, dataset_id, latest.as_of)
    return FreezePlan(
        as_of=checkpoint(connection).sequence,
        name=row.name,
        text_settings=datasets.current_text_settings(connection, dataset_id),
        latest=None if latest is None else latest.event,
        live=sets.load(connection, dataset_id, "live").serialize(),
        changed=changed.serialize(),
    )


class PageReader:
    """Makes the pages of one data set; the names of their tags are kept for the next ones."""

    def __init__(self, dataset_id: str) -> None:
        self._dataset_id = dataset_id
        self._names: Names = {}

    def make(self, request: PageRequest, connection: Connection) -> EncodedPage:
        read = version_content.read_lines(self._dataset_id, request.read, self._names, connection)
        lines = [line.without_caption() if line.ordinal in request.uncaptioned else line for line in read]
        return manifest.replace_images(request.base, request.replaced, lines)
