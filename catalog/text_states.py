"""Images with the texts that they were imported with, as decisions about these texts need them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from catalog.database import Connection
from catalog.domain.edits import Choice
from catalog.domain.received_texts import TextState
from catalog.views import decisions, texts
from catalog.views.images import ImageRow
from contracts.ids import DatasetId
from contracts.sealed import CAPTION, TEXT, open_sealed
from contracts.texts.reading import TextReading, read_text


@dataclass(frozen=True)
class ReceivedImage:
    """An image as the read model shows it; `caption_by`: the source of the latest decision about its caption, if any.

    `left_to_models`: tags of which a person's decision was withdrawn last.
    """

    row: ImageRow
    text: texts.ReceivedText | None
    decided: Mapping[str, tuple[Choice, str]]
    order: Sequence[str]
    caption_by: str | None
    left_to_models: frozenset[str]

    def state(self, key: bytes) -> TextState:
        """What a decision about its text is made from; `key` opens its texts."""
        row, received = self.row, self.text
        state = TextState(
            ordinal=row.ordinal,
            decided=self.decided,
            order=self.order,
            caption=None if row.caption is None else open_sealed(key, row.caption, CAPTION),
            by_person=self.caption_by == "person",
        )
        if received is not None:
            before = read_text(self.open_text(key), received.read_as)
            return replace(state, base=(received.text, received.read_as), before=before)
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
    orders = texts.orders(connection, dataset_id, ordinals)
    sources = texts.caption_sources(connection, dataset_id, ordinals)
    return [
        ReceivedImage(
            row=row,
            text=received.get(row.ordinal),
            decided=decided[row.ordinal],
            order=orders.get(row.ordinal, ()),
            caption_by=sources.get(row.ordinal),
            left_to_models=left[row.ordinal],
        )
        for row in rows
    ]
