"""Reads the texts of a selection of images for a decision to read them another way; commands and previews share it."""

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import Protocol

from catalog import index_memory, text_states
from catalog.database import Connection
from catalog.domain import text_readings as rules
from catalog.keys import Keys
from catalog.lookup import require_dataset
from catalog.store import Store
from catalog.text_states import ReceivedImage
from catalog.views import images, index
from catalog.views.datasets import DatasetRow
from catalog.views.index import InMemory
from contracts.commands.datasets import ReadTexts
from contracts.ids import ImageId
from contracts.queries.datasets import PreviewTexts

MAX_IMAGES = 500
"""Of one command: deciding about them takes a few tenths of a second."""


class Sources(index_memory.Indexes, Protocol):
    """Of the contexts of commands and queries."""

    @property
    def keys(self) -> Keys: ...


@dataclass(frozen=True)
class TextReadings:
    """`next`: the ordinal after which the rest of the selection follows, if there is more."""

    dataset: DatasetRow
    decision: rules.ReadingDecision
    next: int | None


async def decide(sources: Sources, store: Store, request: ReadTexts | PreviewTexts) -> TextReadings:
    """The first images of a selection after an ordinal. Rejected: it names images that the data set does not have."""
    dataset = await store.read(lambda connection: require_dataset(connection, request.dataset))
    memory = await index_memory.for_selection(sources, dataset.id, request.selection)
    row, found, more = await store.read(partial(_read, dataset, request, memory))
    keys = await sources.keys.keys_of([image.row.id for image in found if image.text is not None])
    decision = await asyncio.to_thread(lambda: rules.decide(_known(found, keys), request.read_as))
    stopped = bool(found) and decision.last < found[-1].row.ordinal
    return TextReadings(row, decision, decision.last if more or stopped else None)


def _read(
    dataset: DatasetRow, request: ReadTexts | PreviewTexts, memory: InMemory, connection: Connection
) -> tuple[DatasetRow, list[ReceivedImage], bool]:
    """The data set, its first selected images, and whether there are more."""
    row = require_dataset(connection, dataset.id)
    selected = index.select(connection, row.id, request.selection, memory)
    ordinals = list(islice(selected.iter_equal_or_larger(request.after + 1), MAX_IMAGES + 1))
    rows = images.by_ordinals(connection, row.id, ordinals[:MAX_IMAGES])
    return row, text_states.load(connection, row.id, rows), len(ordinals) > MAX_IMAGES


def _known(found: Iterable[ReceivedImage], keys: Mapping[ImageId, bytes]) -> Iterable[rules.KnownText]:
    """A tag that a person left to the models again is not asserted by a reading."""
    for image in found:
        ordinal, key = image.row.ordinal, keys.get(image.row.id)
        if image.text is None or key is None:
            yield rules.KnownText(ordinal=ordinal, has_text=image.text is not None)
            continue
        state = replace(image.state(key), left_to_models=image.left_to_models)
        yield rules.KnownText(ordinal=ordinal, has_text=True, text=image.open_text(key), state=state, key=key)
