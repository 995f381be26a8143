"""Which images an event is about. Events have ordinals of their data set, clients know image ids.

An ordinal is never reused, so an id that is known stays valid. It is learned from the event that added the image, or
else from the catalog.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from msgspec import UNSET
from pyroaring import BitMap

from contracts.errors import LogDamaged, NotFound
from contracts.events.base import Event
from contracts.events.datasets import ImageAdded
from contracts.events.image_sets import ImageSet, ImageSetEvent, OneImageEvent
from contracts.events.tagging import ImagePredictions, TaggingPredicted, TaggingRequested
from contracts.frames import MAX_NAMED_IMAGES, EventImages
from contracts.ids import DatasetId, Digest, ImageId, RunId
from contracts.queries.base import Query
from contracts.queries.datasets import MAX_ORDINALS, ListImageIds
from contracts.queries.log import ListForeign
from contracts.queries.tagging import GetTagging

T = TypeVar("T")
MAX_CACHED_IDS = 100_000

Key = tuple[DatasetId, int]
"""An image, by its ordinal."""
AggregateEvent = tuple[str, Event]
"""The id of an aggregate, and an event of it."""


class QueryClient(Protocol):
    async def query(self, query: Query[T]) -> T: ...


@dataclass(frozen=True, slots=True)
class _Images:
    """The images of one event: their number, those that are to be named, and the blob with their ordinals, if any."""

    count: int
    keys: tuple[Key, ...]
    blob: Digest | None = None


class ImageIds:
    """Finds the images of events, with a cache."""

    def __init__(self, catalog: QueryClient, *, max_cached: int = MAX_CACHED_IDS) -> None:
        self._catalog = catalog
        self._max_cached = max_cached
        self._ids: dict[Key, ImageId] = {}
        self._datasets: dict[str, DatasetId] = {}
        """The data sets of tagging runs."""

    async def foreign(self, after: int, to: int) -> set[int]:
        """The sequences of foreign messages after one sequence and up to another."""
        found: set[int] = set()
        while True:
            page = await self._catalog.query(ListForeign(after=after, until=to, min_seq=to))
            found |= {one.sequence for one in page.items}
            if page.next is None:
                return found
            after = int(page.next)

    async def images_of(self, events: Sequence[AggregateEvent], *, applied: int) -> list[EventImages | None]:
        """The images of each event; None where it is not about images.

        What is not known here the catalog answers once it has applied the log up to `applied`.
        """
        self._learn(events)
        found = [await self._locate(aggregate_id, event, applied) for aggregate_id, event in events]
        ids = await self._find({key for images in found if images is not None for key in images.keys}, applied)
        return [None if images is None else _view(images, ids) for images in found]

    def _learn(self, events: Iterable[AggregateEvent]) -> None:
        for aggregate_id, event in events:
            match event:
                case ImageAdded(ordinal=ordinal, image_id=image):
                    self._ids[DatasetId(aggregate_id), ordinal] = image
                case TaggingRequested(dataset_id=dataset):
                    self._datasets[aggregate_id] = dataset
                case _:
                    pass

    async def _locate(self, aggregate_id: str, event: Event, applied: int) -> _Images | None:
        match event:
            case OneImageEvent(ordinal=ordinal):
                return _Images(1, ((DatasetId(aggregate_id), ordinal),))
            case TaggingRequested(dataset_id=dataset):
                return _images(dataset, event.images)
            case ImageSetEvent():
                return _images(DatasetId(aggregate_id), event.images)
            case TaggingPredicted(images=predicted):
                return _predicted(await self._dataset_of(RunId(aggregate_id), applied), predicted)
            case _:
                return None

    async def _dataset_of(self, run: RunId, applied: int) -> DatasetId | None:
        if run not in self._datasets:
            try:
                self._datasets[run] = (await self._catalog.query(GetTagging(run=run, min_seq=applied))).dataset_id
            except NotFound:
                return None
        return self._datasets[run]

    async def _find(self, keys: Iterable[Key], applied: int) -> dict[Key, ImageId]:
        found: dict[Key, ImageId] = {}
        missing: defaultdict[DatasetId, list[int]] = defaultdict(list)
        for key in keys:
            if key in self._ids:
                found[key] = self._ids[key]
            else:
                missing[key[0]].append(key[1])
        for dataset, ordinals in missing.items():
            for start in range(0, len(ordinals), MAX_ORDINALS):
                part = tuple(ordinals[start : start + MAX_ORDINALS])
                ids = (await self._catalog.query(ListImageIds(dataset=dataset, ordinals=part, min_seq=applied))).ids
                found |= {(dataset, ordinal): image for ordinal, image in ids.items()}
        self._ids |= found
        while len(self._ids) > self._max_cached:
            del self._ids[next(iter(self._ids))]
        return found


def _images(dataset: DatasetId, images: ImageSet) -> _Images:
    """A large set is only counted; where it is in a blob, this is named."""
    if images.count > MAX_NAMED_IMAGES:
        return _Images(images.count, (), images.blob)
    try:
        return _Images(images.count, tuple((dataset, ordinal) for ordinal in BitMap.deserialize(images.bitmap)))
    except (ValueError, IndexError) as error:
        raise LogDamaged("an event has a set of images that cannot be read") from error


def _predicted(dataset: DatasetId | None, predicted: Sequence[ImagePredictions]) -> _Images:
    """`dataset` None: of a tagging run that the catalog does not know."""
    if dataset is None or len(predicted) > MAX_NAMED_IMAGES:
        return _Images(len(predicted), ())
    return _Images(len(predicted), tuple((dataset, one.ordinal) for one in predicted))


def _view(images: _Images, ids: dict[Key, ImageId]) -> EventImages:
    """Images of a lost commit have no id."""
    found = tuple(ids[key] for key in images.keys if key in ids)
    return EventImages(count=images.count, ids=found, blob=images.blob or UNSET)
