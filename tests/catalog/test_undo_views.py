"""Undo: after any history the rows say what a plain model of the rules says, now and in the past."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyroaring import BitMap

from catalog import views
from catalog.database import Connection
from catalog.domain.edits import voided_commits
from catalog.views import (
    datasets,
    decisions,
    erasures,
    image_counts,
    images,
    presence,
    sets,
    tag_digits,
    tag_sets,
    tags,
)
from catalog.views.batch import BULK
from contracts.events.base import Source
from contracts.events.datasets import (
    CaptionSet,
    CommitsUndone,
    DatasetErased,
    DatasetRenamed,
    ImageErased,
    ImagesRemoved,
    ImagesReviewed,
    RulesSet,
    TagsEdited,
    TagsOrdered,
    ThresholdsSet,
)
from contracts.ids import RunId
from tests.catalog.log_builder import LogBuilder, bitmap, image_id
from tests.catalog.plain_images import assert_filters_match
from tests.catalog.slicing import apply_in_slices, smallest_slices
from tests.catalog.test_store import dump
from tests.limits import examples

IMAGES = BULK + 6
"""Enough that an edit of nearly all of them is kept once, not with each image."""
LOOKED_AT = (0, 1, 2, IMAGES - 1)
TAGS = ("cat", "dog", "sky")


@dataclass
class Model:
    """Commits by sequence, and what holds of them, found the slow way."""

    changes: dict[int, Any] = field(default_factory=dict)
    undos: dict[int, tuple[int, ...]] = field(default_factory=dict)
    runs_undone: dict[int, str] = field(default_factory=dict)

    def counting(self) -> Iterator[tuple[int, Any]]:
        void = voided_commits(self.undos)
        undone_runs = {run for at, run in self.runs_undone.items() if at not in void}
        for sequence, change in sorted(self.changes.items()):
            if sequence not in void and not (change[0] == "predict" and change[1] in undone_runs):
                yield sequence, change

    def expected(self, ordinal: int) -> tuple[str, ...] | None:  # noqa: PLR0912 - one case for each change
        """The tags of an image; None: it is not part of the data set."""
        decided: dict[str, str] = {}
        predicted: dict[str, dict[str, float]] = {}
        threshold, deny = 0.35, frozenset[str]()
        order: tuple[str, ...] = ()
        present = True
        for _, change in self.counting():
            match change:
                case "edit", ordinals, choices if ordinal in ordinals:
                    for tag, choice in choices:
                        decided.pop(tag, None)
                        decided[tag] = choice
                case "predict", _, model, at, found if at == ordinal:
                    predicted[model] = found
                case "thresholds", value:
                    threshold = value
                case "rules", denied:
                    deny = frozenset(denied)
                case "order", at, tags_in_order if at == ordinal:
                    order = tags_in_order
                case "remove", ordinals if ordinal in ordinals:
                    present = False
                case "erase", at if at == ordinal:
                    return None
                case _:
                    pass
        if not present:
            return None
        best: dict[str, float] = {}
        for name, probability in (one for found in predicted.values() for one in found.items()):
            if probability > threshold and name not in deny and decided.get(name, "withdrawn") == "withdrawn":
                best[name] = max(best.get(name, 0.0), probability)
        asserted = [one for one, choice in decided.items() if choice == "asserted"]
        shown = [*asserted, *sorted(best, key=lambda one: (-best[one], one))]
        first = [one for one in order if one in shown]
        return (*first, *(one for one in shown if one not in first))

    def reviewed(self, ordinal: int) -> bool:
        found = False
        for _, change in self.counting():
            match change:
                case "review", ordinals, value if ordinal in ordinals:
                    found = value
                case _:
                    pass
        return found


FEW = st.sets(st.integers(0, IMAGES - 1), min_size=1, max_size=3)
MANY = FEW.map(lambda few: set(range(IMAGES)) - few)
CHOICES = st.lists(
    st.tuples(st.sampled_from(TAGS), st.sampled_from(["asserted", "rejected", "withdrawn"])),
    min_size=1,
    max_size=3,
    unique_by=lambda choice: choice[0],
)
SOURCE: st.SearchStrategy[Source] = st.sampled_from(["person", "import"])
ORDINAL = st.sampled_from(LOOKED_AT)
CHANGES = st.lists(
    st.one_of(
        st.tuples(st.just("edit"), FEW | MANY, CHOICES, SOURCE),
        st.tuples(st.just("edit"), st.sets(ORDINAL, min_size=1) | MANY, CHOICES, SOURCE),
        st.tuples(
            st.just("predict"),
            st.sampled_from(["wd", "other"]),
            ORDINAL,
            st.dictionaries(st.sampled_from(TAGS), st.floats(0.1, 0.99)),
        ),
        st.tuples(st.just("thresholds"), st.floats(0.1, 0.9)),
        st.tuples(st.just("rules"), st.sets(st.sampled_from(TAGS))),
        st.tuples(st.just("order"), ORDINAL, st.permutations(TAGS)),
        st.tuples(st.just("remove"), st.sets(ORDINAL, min_size=1) | MANY),
        st.tuples(st.just("review"), st.sets(ORDINAL, min_size=1) | MANY, st.booleans()),
        st.tuples(st.just("erase"), st.sampled_from(LOOKED_AT[1:])),
        st.tuples(st.just("undo"), st.integers(0, 30)),
        st.tuples(st.just("undo"), st.integers(0, 30)),
    ),
    max_size=14,
)


def _append(builder: LogBuilder, model: Model, change: Any) -> None:
    def add(event: Any) -> int:
        return builder.append("dataset", "ds_cats", event).sequence

    match change:
        case "edit", ordinals, choices, source:
            parts = {kind: tuple(tag for tag, choice in choices if choice == kind) for kind in KINDS}
            asserted, rejected, withdrawn = (parts[kind] for kind in KINDS)
            edited = TagsEdited(
                images=bitmap(*ordinals), asserted=asserted, rejected=rejected, withdrawn=withdrawn, source=source
            )
            model.changes[add(edited)] = (
                "edit",
                ordinals,
                [(tag, kind) for kind in KINDS for tag in parts[kind]],
            )
        case "predict", name, ordinal, found:
            run = f"run_{builder.sequence}"
            attempt = builder.start_run(run, ordinal, model=name)
            recorded = builder.predict(run, attempt, ordinal, *sorted(found.items()))
            model.changes[recorded.sequence] = ("predict", run, name, ordinal, found)
        case "thresholds", value:
            model.changes[add(ThresholdsSet(categories={"general": value}))] = change
        case "rules", denied:
            model.changes[add(RulesSet(deny=tuple(sorted(denied))))] = change
        case "order", ordinal, in_order:
            model.changes[add(TagsOrdered(ordinal=ordinal, tags=tuple(in_order)))] = change
        case "remove", ordinals:
            model.changes[add(ImagesRemoved(images=bitmap(*ordinals)))] = change
        case "review", ordinals, value:
            model.changes[add(ImagesReviewed(images=bitmap(*ordinals), reviewed=value))] = change
        case "erase", ordinal:
            erased = {one[1] for one in model.changes.values() if one[0] == "erase"}
            if ordinal not in erased:
                model.changes[add(ImageErased(ordinal=ordinal, image_id=image_id("ds_cats", ordinal)))] = change
        case "undo", number:
            _undo(builder, model, number)


KINDS = ("asserted", "rejected", "withdrawn")


def _undo(builder: LogBuilder, model: Model, number: int) -> None:
    """Undoes one of the commits that count."""
    void = voided_commits(model.undos)
    undone_runs = {run for at, run in model.runs_undone.items() if at not in void}
    candidates = [*(at for at, one in model.changes.items() if one[0] != "erase"), *model.undos]
    candidates = sorted(at for at in candidates if at not in void)
    if not candidates:
        return
    target = candidates[number % len(candidates)]
    change = model.changes.get(target)
    everything = bitmap(*range(IMAGES))
    if change is not None and change[0] == "predict":
        if change[1] in undone_runs:
            return
        event = CommitsUndone(runs=(RunId(change[1]),), images=everything)
        sequence = builder.append("dataset", "ds_cats", event).sequence
        model.undos[sequence], model.runs_undone[sequence] = (), change[1]
    else:
        event = CommitsUndone(commits=(target,), images=everything)
        model.undos[builder.append("dataset", "ds_cats", event).sequence] = (target,)


@pytest.fixture(autouse=True, scope="module")
def _smallest_slices() -> Iterator[None]:
    with smallest_slices():
        yield


@pytest.mark.slow
@settings(max_examples=examples(120))
@given(changes=CHANGES, cuts=st.lists(st.integers(0, 150), max_size=3))
def test_what_holds_is_the_last_decision_among_commits_that_count(changes: list[Any], cuts: list[int]) -> None:
    builder, model = LogBuilder(), Model()
    builder.create_dataset()
    for ordinal in range(IMAGES):
        builder.add_image(ordinal)
    past: dict[int, dict[int, tuple[str, ...] | None]] = {}
    for change in changes:
        _append(builder, model, change)
        past[builder.sequence] = {ordinal: model.expected(ordinal) for ordinal in LOOKED_AT}

    with EmptyRows() as one_by_one, EmptyRows() as in_batches, EmptyRows() as in_slices:
        for recorded in builder.commits:
            before = _states(one_by_one)
            views.apply(one_by_one, [recorded])
            for ordinal, (etag, state) in _states(one_by_one).items():
                if before.get(ordinal, (0, None))[1] != state:
                    assert etag == recorded.sequence
        apply_in_slices(in_slices, builder.commits, cuts)
        edges = sorted({0, *(min(cut, len(builder.commits)) for cut in cuts), len(builder.commits)})
        for start, end in pairwise(edges):
            views.apply(in_batches, builder.commits[start:end])

        assert dump(in_batches) == dump(in_slices) == dump(one_by_one)
        assert {ordinal: shown(one_by_one, ordinal) for ordinal in LOOKED_AT} == {
            ordinal: model.expected(ordinal) for ordinal in LOOKED_AT
        }
        existing = BitMap(range(IMAGES)) - erasures.ordinals(one_by_one, "ds_cats")  # no event names others
        reviewed = sets.load(one_by_one, "ds_cats", "reviewed") & existing
        assert reviewed == BitMap(ordinal for ordinal in existing if model.reviewed(ordinal))
        assert_sets_match(one_by_one)
        assert_filters_match(one_by_one, "ds_cats", TAGS)
        erased = [ordinal for ordinal in LOOKED_AT if images.find(one_by_one, image_id("ds_cats", ordinal)) is None]
        for sequence, expected in past.items():
            for ordinal, names in expected.items():
                if names is not None and ordinal not in erased:
                    assert decisions.tag_names(one_by_one, "ds_cats", ordinal, sequence) == names


def _states(connection: Connection) -> dict[int, tuple[int, object]]:
    """The ETag of each image, and what it shows."""
    rows = images.by_ordinals(connection, "ds_cats", LOOKED_AT)
    effective = decisions.effective_tags(connection, "ds_cats", [row.ordinal for row in rows])
    reviewed = sets.load(connection, "ds_cats", "reviewed")
    return {
        row.ordinal: (row.etag, (row.removed, row.caption, effective[row.ordinal].tags, row.ordinal in reviewed))
        for row in rows
    }


class EmptyRows(closing[Connection]):
    def __init__(self) -> None:
        connection = sqlite3.connect(":memory:", isolation_level=None)
        connection.row_factory = sqlite3.Row
        connection.executescript(views.TABLES)
        super().__init__(connection)


def shown(connection: Connection, ordinal: int) -> tuple[str, ...] | None:
    if ordinal not in sets.load(connection, "ds_cats", "live"):
        return None
    return decisions.tag_names(connection, "ds_cats", ordinal)


def assert_sets_match(connection: Connection) -> None:
    """The sets of each tag, their counts and the numbers of tags say what the images show."""
    live = sets.load(connection, "ds_cats", "live")
    effective = decisions.effective_tags(connection, "ds_cats", list(live))
    for tag in TAGS:
        has = BitMap(ordinal for ordinal, found in effective.items() if tag in found.names)
        assert tag_sets.of_tag(connection, "ds_cats", tag).get("ds_cats", BitMap()) & live == has
    counted = {row.tag: row.images for row in tags.tag_counts(connection, "ds_cats", "", (2**62, ""), 100)}
    assert counted == {
        tag: number for tag in TAGS if (number := sum(tag in found.names for found in effective.values()))
    }
    digits = tag_digits.load_digits(connection, "ds_cats")
    for ordinal, found in effective.items():
        number = sum((ordinal in digit) << place for place, digit in enumerate(digits))
        assert number == len(found.names)
    counts = image_counts.count_images(connection, "ds_cats")
    assert (counts.images, counts.tagged) == (len(live), sum(bool(found.names) for found in effective.values()))


@pytest.fixture
def builder() -> LogBuilder:
    builder = LogBuilder()
    builder.create_dataset()
    for ordinal in range(3):
        builder.add_image(ordinal)
    return builder


def undo(builder: LogBuilder, *sequences: int, images: tuple[int, ...] = (0, 1, 2)) -> int:
    event = CommitsUndone(commits=sequences, images=bitmap(*images))
    return builder.append("dataset", "ds_cats", event).sequence


def apply(connection: Connection, builder: LogBuilder) -> None:
    views.apply(connection, builder.commits)


def test_a_name_a_caption_and_thresholds_come_back(builder: LogBuilder) -> None:
    first = builder.append("dataset", "ds_cats", CaptionSet(ordinal=0, caption=b"first"))
    changed = [
        builder.append("dataset", "ds_cats", DatasetRenamed(name="kittens")),
        builder.append("dataset", "ds_cats", CaptionSet(ordinal=0, caption=b"second")),
        builder.append("dataset", "ds_cats", ThresholdsSet(categories={"general": 0.9})),
    ]
    for recorded in changed:
        undo(builder, recorded.sequence)
    last = builder.sequence

    with EmptyRows() as connection:
        apply(connection, builder)
        row, image = datasets.find(connection, "cats"), images.find(connection, image_id("ds_cats", 0))
        assert row is not None
        assert image is not None
        assert row.thresholds == ThresholdsSet(categories={"general": 0.35, "character": 0.85})
        assert (image.caption, image.etag) == (b"first", last)
        assert len(sets.load(connection, "ds_cats", "captioned")) == 1

        undo(builder, first.sequence)
        views.apply(connection, builder.commits[-1:])
        again = images.find(connection, image_id("ds_cats", 0))
        assert again is not None
        assert (again.caption, again.caption_source) == (None, None)
        assert not sets.load(connection, "ds_cats", "captioned")


def test_an_import_is_undone_and_comes_back_with_its_tags(builder: LogBuilder) -> None:
    added = builder.add_image(3, tags=["cat", "dog"])
    edited = builder.edit_tags(3, add=["sky"])
    undone = undo(builder, added.sequence, images=(3,))
    later = undo(builder, edited.sequence, images=(3,))

    with EmptyRows() as connection:
        apply(connection, builder)
        assert 3 not in sets.load(connection, "ds_cats", "live")
        assert tags.tag_counts(connection, "ds_cats", "", (2**62, ""), 10) == []

        undo(builder, undone, images=(3,))
        undo(builder, later, images=(3,))
        views.apply(connection, builder.commits[-2:])
        assert decisions.tag_names(connection, "ds_cats", 3) == ("cat", "dog", "sky")
        assert {row.tag for row in tags.tag_counts(connection, "ds_cats", "", (2**62, ""), 10)} == {"cat", "dog", "sky"}


def test_each_set_of_images_that_one_commit_changes_gets_its_etag() -> None:
    builder = LogBuilder()
    builder.create_dataset()
    for ordinal in range(IMAGES + 1):
        builder.add_image(ordinal)
    first, second = bitmap(*range(IMAGES)), bitmap(*range(1, IMAGES + 1))
    edited = TagsEdited(images=first, asserted=("cat",)), TagsEdited(images=second, asserted=("dog",))
    last = builder.append("dataset", "ds_cats", *edited).sequence

    with EmptyRows() as connection:
        apply(connection, builder)
        rows = images.by_ordinals(connection, "ds_cats", range(IMAGES + 1))
        assert {row.etag for row in rows} == {last}
        assert_filters_match(connection, "ds_cats", TAGS)


def test_an_image_that_was_removed_before_is_in_no_later_version_of_an_erased_data_set(builder: LogBuilder) -> None:
    before = builder.sequence
    removed = builder.append("dataset", "ds_cats", ImagesRemoved(images=bitmap(0))).sequence
    builder.append("dataset", "ds_cats", DatasetErased())

    with EmptyRows() as connection:
        apply(connection, builder)
        counts = [presence.count_erased_in_version(connection, "ds_cats", at, at) for at in (before, removed)]
    assert counts == [3, 2]
