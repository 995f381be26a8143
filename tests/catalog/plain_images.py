"""Images of the rows of a read model as plain ones, to compare what filters select with what images show."""

from itertools import chain

from pyroaring import BitMap

from catalog.database import Connection
from catalog.domain.selection import evaluate
from catalog.views import decisions, image_predictions, images, sets, tag_names
from catalog.views.images import ImageRow
from catalog.views.index import DatasetIndex
from contracts.filter_text import parse_filter
from contracts.filters import Filter, Matching
from tests.catalog.test_selection import PlainImage, selects

SOURCES = ("person", "import", "model")


def filters_on(tags: tuple[str, ...]) -> list[Filter]:
    """Each term that the read model answers, without the texts."""
    texts = [
        *tags,
        *(f"rejected:{tag}" for tag in tags),
        *(f"source:{source}" for source in SOURCES),
        *(f"source:{source}:{tag}" for source in SOURCES for tag in tags),
        *(f"conf:{tag}>=0.5" for tag in tags),
        *(
            "untagged",
            "reviewed",
            "unreviewed",
            "captioned",
            "bytes>1240",
            "width<640",
            "aspect>1.3",
            "source:model:no",
        ),
    ]
    return [parse_filter(text) for text in texts]


def assert_filters_match(connection: Connection, dataset: str, tags: tuple[str, ...]) -> None:
    """Every filter selects what the live images show; the columns are the numbers of tags and the ETags."""
    live = sets.load(connection, dataset, "live")
    rows = {row.ordinal: row for row in images.by_ordinals(connection, dataset, live)}
    plain = {ordinal: _plain(connection, dataset, row) for ordinal, row in rows.items()}
    index = DatasetIndex(connection, dataset)
    for filter_ in filters_on(tags):
        expected = BitMap(ordinal for ordinal, image in plain.items() if selects(filter_, image, list(plain.values())))
        assert evaluate(filter_, index) == expected, Matching(filter=filter_)
    assert index.column("tags", live).tolist() == [len(plain[ordinal].tags) for ordinal in live]
    assert index.column("changed", live).tolist() == [rows[ordinal].etag for ordinal in live]
    assert index.column("added", live).tolist() == [rows[ordinal].added_sequence for ordinal in live]
    some = BitMap(list(live)[::2])
    for tag in tags:
        confidences = [plain[ordinal].predicted.get(tag, 0.0) for ordinal in some]
        assert index.confidence(tag, some).tolist() == confidences


def _plain(connection: Connection, dataset: str, row: ImageRow) -> PlainImage:
    effective = decisions.effective_tags(connection, dataset, [row.ordinal])[row.ordinal]
    predicted: dict[str, float] = {}
    runs = image_predictions.load_current(connection, dataset, [row.ordinal]).get(row.ordinal, [])
    names = tag_names.names_of(connection, {found[0] for run in runs for found in run})
    for tag, _, probability, _, _ in chain.from_iterable(runs):
        predicted[names[tag]] = max(predicted.get(names[tag], 0.0), probability)
    return PlainImage(
        live=True,
        tags={tag.tag: tag.source for tag in effective.tags},  # type: ignore[misc]  # a view's source is any text
        rejected=frozenset(effective.rejected),
        predicted=predicted,
        width=row.width,
        height=row.height,
        size=row.size,
        dhash=int(row.dhash, 16),
        name="",
        caption="" if row.caption is None else "written",
        reviewed=row.ordinal in sets.load(connection, dataset, "reviewed"),
        added=row.added_sequence,
    )
