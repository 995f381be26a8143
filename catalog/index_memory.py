"""What filters use that is in memory: names and captions in plain text, and predictions by tag."""

from typing import Protocol

from catalog.prediction_index import PredictionIndex
from catalog.text_index import TextIndexes
from catalog.views.index import InMemory
from contracts.filters import Filter, Matching, Selection, uses_text
from contracts.ids import DatasetId


class Indexes(Protocol):
    """Of the contexts of commands and queries."""

    @property
    def texts(self) -> TextIndexes: ...

    @property
    def predictions(self) -> PredictionIndex: ...


async def for_filter(indexes: Indexes, dataset_id: DatasetId, filter_: Filter | None) -> InMemory:
    """What evaluating a filter needs, before the snapshot is opened. Rejected: the texts take too much memory."""
    needs_texts = filter_ is not None and uses_text(filter_)
    texts = await indexes.texts.of(dataset_id) if needs_texts else None
    return InMemory(texts, indexes.predictions.read_part)


async def for_selection(indexes: Indexes, dataset_id: DatasetId, selection: Selection) -> InMemory:
    """The same for the images that a command is about."""
    return await for_filter(indexes, dataset_id, selection.filter if isinstance(selection, Matching) else None)
