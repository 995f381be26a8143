"""Which images have which tags, ready for filters and counts: the result of decisions, predictions and rules.

This view comes after `edits` and `predictions`, whose changes it takes over.
"""

from array import array
from collections import defaultdict
from collections.abc import Iterable
from itertools import groupby, islice

import msgspec
import numpy as np
from pyroaring import BitMap

from catalog.database import Connection
from catalog.domain.edits import Edit, choice_groups, set_choices, tags_of
from catalog.domain.tag_sets import CHOICES
from catalog.rows import fetch, fetch_number, json_array
from catalog.views import (
    columns,
    datasets,
    edits,
    image_predictions,
    images,
    pairs,
    sets,
    tag_digits,
    tag_sets,
)
from catalog.views.batch import BULK, CommitBatch, DeleteRows, GoOn, PairChange, Step
from catalog.views.images import SELECT_IMAGE, ImageRow
from catalog.views.pairs import by_tag
from catalog.views.tag_sets import DatasetTags, find_predicted
from contracts.events.datasets import (
    DatasetErased,
    DatasetRemoved,
    ImageErased,
)
from contracts.queries.datasets import TagCount

TABLES = tag_sets.TABLES + tag_digits.TABLES

PAGE_OF_ALL = f"""{SELECT_IMAGE}
WHERE image.removed_sequence = 0 AND dataset.removed = 0
    AND (image.added_sequence, image.ordinal) > (:added, :ordinal)
ORDER BY image.added_sequence, image.ordinal LIMIT :limit
"""
PAGE = f"""{SELECT_IMAGE}
WHERE image.dataset_id = :dataset AND image.ordinal IN (SELECT value FROM json_each(:ordinals))
    AND (image.added_sequence, image.ordinal) > (:added, :ordinal)
ORDER BY image.ordinal LIMIT :limit
"""  # noqa: S608 - constants
COUNT_LIVE = """
SELECT IFNULL(SUM(size), 0) FROM image_set JOIN dataset ON dataset.id = dataset_id AND dataset.removed = 0
WHERE image_set.name = 'live' AND (:dataset IS NULL OR dataset_id = :dataset)
"""
COUNT_TAGGED = """
SELECT IFNULL(SUM(images), 0) FROM tag WHERE tag = :tag AND (:dataset IS NULL OR dataset_id = :dataset)
"""
TAG_COUNTS = """
SELECT tag, images FROM tag INDEXED BY {index}
WHERE dataset_id = :dataset AND images > 0 AND tag >= :low AND tag < :high
    AND (images < :images OR (images = :images AND tag > :tag))
ORDER BY images DESC, tag LIMIT :limit
"""
TAGS_BY_USE, TAGS_WITH_PREFIX = TAG_COUNTS.format(index="tag_by_use"), TAG_COUNTS.format(index="tag_by_name")
TAG_COUNTS_OF_ALL = """
SELECT tag, SUM(images) AS images FROM tag WHERE images > 0 AND tag >= :low AND tag < :high GROUP BY tag
HAVING SUM(images) < :images OR (SUM(images) = :images AND tag > :tag)
ORDER BY 2 DESC, tag LIMIT :limit
"""
COUNT_TAGS = "SELECT COUNT(*) FROM tag INDEXED BY tag_by_use WHERE dataset_id = :dataset AND images > 0"
COUNT_TAGS_WITH_PREFIX = """
SELECT COUNT(*) FROM tag INDEXED BY tag_by_name
WHERE dataset_id = :dataset AND images > 0 AND tag >= :low AND tag < :high
"""
COUNT_TAGS_OF_ALL = "SELECT COUNT(DISTINCT tag) FROM tag WHERE images > 0 AND tag >= :low AND tag < :high"
TAGS_AT_ONCE = 100
"""Tags that are counted before asking whether to go on."""
CODES = {choice: code for code, choice in enumerate(CHOICES)}
LAST_CHARACTER = "\U0010ffff"
"""Sorts after every character that a tag can begin with."""


def apply(connection: Connection, batch: CommitBatch) -> None:
    for dataset_id, some in _edits(batch).items():
        _write_edits(connection, dataset_id, some)
    for dataset_id, change in batch.predicted.items():
        _write_pairs(connection, dataset_id, change)
    for toggle in batch.toggles:  # what images show after it is found by other views
        columns.mark_changed(connection, toggle.dataset_id, toggle.images, toggle.sequence)
    for dataset_id, moved in batch.moved.items():
        _recount(connection, batch, dataset_id, moved)
    for recorded, erased in batch.events(ImageErased):
        _erase(connection, recorded.commit.aggregate_id, erased.ordinal, batch.tags_of_erased)
    for recorded, _ in batch.events(DatasetRemoved, DatasetErased):
        dataset_id = recorded.commit.aggregate_id
        batch.steps.append(DeleteRows(dataset_id=dataset_id, tables=("tag", "tag_set"), column="tag_id"))
        batch.steps.append(DeleteRows(dataset_id=dataset_id, tables=("tag_digit",), column="digit"))


def _edits(batch: CommitBatch) -> dict[str, list[tuple[Edit, BitMap]]]:
    found: defaultdict[str, list[tuple[Edit, BitMap]]] = defaultdict(list)
    for dataset_id, edit, edited in batch.once(edits.edits_in):
        found[dataset_id].append((edit, batch.ordinals(edited)))
    return found


def _write_edits(connection: Connection, dataset_id: str, some: list[tuple[Edit, BitMap]]) -> None:
    """The edits of a batch, in order: of each tag and image the last one counts."""
    tags = DatasetTags(connection, dataset_id)
    tags.load(tags_of([[edit for edit, _ in some]]))
    for is_bulk, run in groupby(some, key=lambda one: len(one[1]) > BULK):
        if is_bulk:
            _decide_bulk(tags, run)
        else:
            _decide_own(tags, run)
    tags.save()


def _decide_own(tags: DatasetTags, run: Iterable[tuple[Edit, BitMap]]) -> None:
    """Edits that are kept with images: of each tag and image the last choice."""
    edited, groups = array("I"), list[tuple[int, int, int]]()
    for edit, ordinals in run:
        for choice, some in choice_groups(edit):
            if some:
                for ordinal in ordinals:
                    edited.extend(some)
                    groups.append((len(some), ordinal, CODES[choice]))
    sizes, of_images, chosen = np.array(groups, dtype=np.uint32).reshape(-1, 3).T
    found = pairs.of_columns(np.frombuffer(edited, dtype=np.uint32), np.repeat(of_images, sizes))
    found, codes = pairs.last_values(found, np.repeat(chosen, sizes))
    for code, choice in enumerate(CHOICES):
        for tag, ordinals in by_tag(found[codes == code]):
            tags[tag].decide(ordinals, choice)
            tags[tag].decide_own(ordinals, choice)


def _decide_bulk(tags: DatasetTags, run: Iterable[tuple[Edit, BitMap]]) -> None:
    for edit, ordinals in run:
        for tag, choice in set_choices(edit):
            tags[tag].begin_bulk()
            tags[tag].decide(ordinals, choice)


def _write_pairs(connection: Connection, dataset_id: str, change: PairChange) -> None:
    """Predictions that pass since, or no longer."""
    tags = sorted(pairs.tags_of(change.added, change.removed))
    images = (pairs.images_by_tag(some, tags) for some in (change.added, change.removed))
    find_predicted(connection, dataset_id, list(zip(tags, *images, strict=True))).save(connection, dataset_id)


class CountAgain(Step, frozen=True, kw_only=True):
    """Counts how many images have each tag, after images came or went. `after`: the last tag that is done."""

    after: int = -1

    def run(self, connection: Connection, _: object, go_on: GoOn, /) -> "Step | None":
        live, after = sets.load(connection, self.dataset_id, "live"), self.after
        while counted := tag_sets.recount(connection, self.dataset_id, live, after, TAGS_AT_ONCE):
            after = counted
            if not go_on():
                return msgspec.structs.replace(self, after=after)
        return None


def _recount(connection: Connection, batch: CommitBatch, dataset_id: str, ordinals: BitMap) -> None:
    """After images came or went: few images have few tags."""
    if len(ordinals) > BULK:
        batch.steps.append(CountAgain(dataset_id=dataset_id))
        return
    own = edits.edits_of(connection, dataset_id, list(ordinals))
    rules = image_predictions.rules_by_id(connection, datasets.acceptance_at(connection, dataset_id))
    tags = DatasetTags(connection, dataset_id)
    tags.load({tag for some in own.values() for edit in some for tag in edit.asserted})
    tags.load(image_predictions.passing_tags(connection, dataset_id, ordinals, rules))
    tags.save()


def _erase(connection: Connection, dataset_id: str, ordinal: int, had: set[int]) -> None:
    tags = DatasetTags(connection, dataset_id)
    tags.load(had)
    for tag in had:
        tags[tag].discard(ordinal)
    tags.save()


def page(
    connection: Connection, dataset_id: str | None, tag: str | None, after: tuple[int, int], limit: int
) -> list[ImageRow]:
    """Images in import order, those after (sequence of the import, ordinal)."""
    parameters = {"added": after[0], "ordinal": after[1], "limit": limit}
    if dataset_id is None and tag is None:
        return images.fetch_rows(connection, PAGE_OF_ALL, parameters)
    found: list[ImageRow] = []
    for one_dataset, ordinals in _matching(connection, dataset_id, tag).items():
        selected = ordinals if dataset_id is None else _first_after(ordinals, after, limit)
        in_dataset = parameters | {"dataset": one_dataset, "ordinals": json_array(selected)}
        found.extend(images.fetch_rows(connection, PAGE, in_dataset))
    return sorted(found, key=lambda row: (row.added_sequence, row.ordinal))[:limit]


def _first_after(ordinals: BitMap, after: tuple[int, int], limit: int) -> list[int]:
    """Within one data set, ordinals alone give the order."""
    added, ordinal = after
    return list(islice(ordinals.iter_equal_or_larger(ordinal + 1 if added else 0), limit))


def _matching(connection: Connection, dataset_id: str | None, tag: str | None) -> dict[str, BitMap]:
    """The matching images of each data set."""
    if dataset_id is not None and tag is None:
        return {dataset_id: sets.load(connection, dataset_id, "live")}
    found = tag_sets.of_tag(connection, dataset_id, tag or "")
    return {one: ordinals & sets.load(connection, one, "live") for one, ordinals in found.items()}


def count_images(connection: Connection, dataset_id: str | None, tag: str | None) -> int:
    query = COUNT_LIVE if tag is None else COUNT_TAGGED
    return fetch_number(connection, query, {"dataset": dataset_id, "tag": tag})


def tag_counts(
    connection: Connection, dataset_id: str | None, prefix: str, after: tuple[int, str], limit: int
) -> list[TagCount]:
    """The most used tags first, then by name; those after (images, tag)."""
    query = TAG_COUNTS_OF_ALL if dataset_id is None else TAGS_WITH_PREFIX if prefix else TAGS_BY_USE
    parameters = _prefix_range(dataset_id, prefix) | {"images": after[0], "tag": after[1], "limit": limit}
    return fetch(connection, TagCount, query, parameters)


def count_distinct(connection: Connection, dataset_id: str | None, prefix: str) -> int:
    query = COUNT_TAGS_OF_ALL if dataset_id is None else COUNT_TAGS_WITH_PREFIX if prefix else COUNT_TAGS
    return fetch_number(connection, query, _prefix_range(dataset_id, prefix))


def _prefix_range(dataset_id: str | None, prefix: str) -> dict[str, object]:
    return {"dataset": dataset_id, "low": prefix, "high": prefix + LAST_CHARACTER}
