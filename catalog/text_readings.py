"""Texts as received: of images that are imported again, and of a selection whose texts are read another way."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice

from catalog.database import Connection
from catalog.domain import text_readings as rules
from catalog.domain.effective_tags import Decision, TagState
from catalog.domain.received_texts import NONE_OLDER, OlderDecisions, TextState
from catalog.keys import Keys
from catalog.lookup import require_dataset
from catalog.store import Store
from catalog.views import decisions, images, index, texts
from catalog.views.datasets import DatasetRow
from catalog.views.images import ImageRow
from catalog.views.index import InMemory
from contracts.commands.datasets import ReadTexts
from contracts.ids import DatasetId, ImageId
from contracts.queries.datasets import PreviewTexts
from contracts.sealed import CAPTION, TEXT, open_sealed
from contracts.texts.reading import TextReading, read_text

MAX_IMAGES = 500
"""Of one command: deciding about them takes a few tenths of a second."""


@dataclass(frozen=True)
class ReceivedImage:
    """An image as the read model shows it.

    `order`: the tags in the order that was set last, and `captioned`: the source of the latest decision about its
    caption, each with its sequence, 0 if there is none. `left_to_models`: tags of which a person's decision was
    withdrawn last.
    """

    row: ImageRow
    text: texts.ReceivedText | None
    decided: Mapping[str, Decision]
    order: tuple[Sequence[str], int]
    captioned: tuple[str | None, int]
    left_to_models: frozenset[str]
    tags: TagState

    def state(self, key: bytes) -> TextState:
        """What a decision about its text is made from; `key` opens its texts."""
        row, received = self.row, self.text
        (order, ordered_at), (caption_by, captioned_at) = self.order, self.captioned
        state = TextState(
            ordinal=row.ordinal,
            decided={tag: (one.choice, one.source) for tag, one in self.decided.items()},
            order=order,
            shown=self.tags.effective,
            predicted=self.tags.predicted,
            caption=None if row.caption is None else open_sealed(key, row.caption, CAPTION),
            by_person=caption_by == "person",
        )
        if received is not None:
            before = read_text(self.open_text(key), received.read_as)
            older = OlderDecisions(
                tags=frozenset(tag for tag, one in self.decided.items() if one.sequence < received.since),
                order=ordered_at < received.since,
                caption=captioned_at < received.since,
            )
            return replace(state, base=(received.text, received.read_as), before=before, older=older)
        if row.caption_source == "import":  # before texts were kept, what stood beside a file was its caption
            return replace(state, before=TextReading(kind="caption", caption=state.caption, reason="requested"))
        return state

    def open_text(self, key: bytes) -> str:
        """The text as received; empty if there is none."""
        return "" if self.text is None else open_sealed(key, self.text.text, TEXT)


def load(connection: Connection, dataset_id: DatasetId, rows: Sequence[ImageRow]) -> list[ReceivedImage]:
    """These images of a data set."""
    ordinals = [row.ordinal for row in rows]
    received = texts.received(connection, dataset_id, ordinals)
    decided, left = decisions.decided(connection, dataset_id, ordinals)
    orders = texts.order_decisions(connection, dataset_id, ordinals)
    captions = texts.caption_decisions(connection, dataset_id, ordinals)
    states = decisions.states_of(connection, dataset_id, ordinals)
    return [
        ReceivedImage(
            row=row,
            text=received.get(row.ordinal),
            decided=decided[row.ordinal],
            order=orders.get(row.ordinal, ((), 0)),
            captioned=captions.get(row.ordinal, (None, 0)),
            left_to_models=left[row.ordinal],
            tags=states[row.ordinal],
        )
        for row in rows
    ]


@dataclass(frozen=True)
class TextReadings:
    """`next`: the ordinal after which the rest of the selection follows, if there is more."""

    dataset: DatasetRow
    decision: rules.ReadingDecision
    next: int | None


async def decide(
    store: Store, keys: Keys, dataset_id: DatasetId, request: ReadTexts | PreviewTexts, memory: InMemory
) -> TextReadings:
    """The first images of a selection after an ordinal. Rejected: it names images that the data set does not have."""
    row, found, more = await store.read(partial(_read, dataset_id, request, memory))
    opened = await keys.keys_of([image.row.id for image in found if image.text is not None])
    decision = await asyncio.to_thread(lambda: rules.decide(_known(found, opened), request.read_as))
    stopped = bool(found) and decision.last < found[-1].row.ordinal
    return TextReadings(row, decision, decision.last if more or stopped else None)


def _read(
    dataset_id: DatasetId, request: ReadTexts | PreviewTexts, memory: InMemory, connection: Connection
) -> tuple[DatasetRow, list[ReceivedImage], bool]:
    """The data set, its first selected images, and whether there are more."""
    row = require_dataset(connection, dataset_id)
    selected = index.select(connection, row.id, request.selection, memory)
    ordinals = list(islice(selected.iter_equal_or_larger(request.after + 1), MAX_IMAGES + 1))
    rows = images.by_ordinals(connection, row.id, ordinals[:MAX_IMAGES])
    return row, load(connection, row.id, rows), len(ordinals) > MAX_IMAGES


def _known(found: Iterable[ReceivedImage], keys: Mapping[ImageId, bytes]) -> Iterable[rules.KnownText]:
    """What persons decided stands, also what they decided before the text was received.

    A tag that a person left to the models again is not asserted by a reading, and none of the models is rejected.
    """
    for image in found:
        ordinal, key = image.row.ordinal, keys.get(image.row.id)
        if image.text is None or key is None:
            yield rules.KnownText(ordinal=ordinal, has_text=image.text is not None)
            continue
        state = image.state(key)
        state = replace(state, left_to_models=image.left_to_models, predicted=frozenset(), older=NONE_OLDER)
        yield rules.KnownText(ordinal=ordinal, has_text=True, text=image.open_text(key), state=state, key=key)
