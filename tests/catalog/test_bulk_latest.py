"""Edits of many images are ready for each image: what is read for one does not depend on how many edits there were."""

import random
import sqlite3
from collections.abc import Iterator
from contextlib import closing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyroaring import BitMap

from catalog import views
from catalog.database import Connection
from catalog.domain.edits import Edit
from catalog.views import bulk_history, bulk_latest, decisions, edits
from catalog.views.batch import BULK
from catalog.views.bulk_latest import MANY, PART
from contracts.events.datasets import CommitsUndone, TagsEdited
from tests.catalog.log_builder import LogBuilder, bitmap
from tests.limits import examples

DATASET = "ds_cats"
IMAGES = 3 * PART - 100
PAGE = (0, 1, MANY, PART - 1, PART, 2 * PART + 5, IMAGES - 1)
EDITS = 300


@pytest.fixture(name="connection")
def empty() -> Iterator[Connection]:
    with empty_rows() as connection:
        yield connection


def empty_rows() -> closing[Connection]:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.row_factory = sqlite3.Row
    connection.executescript(views.TABLES)
    return closing(connection)


SETS = st.one_of(
    st.just(BitMap(range(IMAGES))),
    st.builds(lambda start, step: BitMap(range(start, IMAGES, step)), st.integers(0, 40), st.integers(1, 60)),
    st.builds(lambda start, size: BitMap(range(start, start + size)), st.integers(0, PART + 40), st.integers(65, PART)),
)
STEPS = st.lists(st.tuples(SETS, st.sets(st.integers(0, 3), min_size=1)) | st.integers(0, 20), min_size=1, max_size=12)


@settings(max_examples=examples(30), deadline=None)
@given(STEPS)
def test_the_latest_edit_of_each_tag_and_image_is_that_among_the_edits_that_count(
    steps: list[tuple[BitMap, set[int]] | int],
) -> None:
    """A number undoes an edit, or the undo of it."""
    made: list[tuple[Edit, BitMap]] = []
    voided: set[int] = set()
    with empty_rows() as connection:
        for sequence, step in enumerate(steps, start=1):
            if isinstance(step, tuple):
                images, tags = step
                edit = Edit(sequence, 0, "person", "ann", asserted=tuple(tags))
                made.append((edit, images))
                bulk_history.add(connection, DATASET, edit, images.serialize())
                bulk_latest.add(connection, DATASET, edit, images)
            elif made:
                voided ^= {(undone := made[step % len(made)][0].sequence)}
                for tag, images in bulk_history.edited_by(connection, DATASET, [undone]).items():
                    newer = bulk_history.of_tag(connection, DATASET, tag, voided)
                    bulk_latest.decide_again(connection, DATASET, tag, images, newer)
        expected = {
            (ordinal, tag): edit.sequence
            for edit, images in made
            if edit.sequence not in voided
            for tag in edit.asserted
            for ordinal in BitMap(PAGE) & images
        }
        assert latest(connection) == expected


def latest(connection: Connection) -> dict[tuple[int, int], int]:
    found = [
        ((ordinal, tag), edit.sequence)
        for ordinal, edits_of_image in edits.edits_of(connection, DATASET, PAGE).items()
        for edit in edits_of_image
        for tag in edit.asserted
    ]
    assert len(found) == len(dict(found))
    return dict(found)


@pytest.mark.slow
def test_what_is_read_for_an_image_does_not_grow_with_the_edits_of_all_images(connection: Connection) -> None:
    builder, everything = LogBuilder(), bitmap(*range(BULK + 1))
    builder.create_dataset()
    for ordinal in range(BULK + 1):
        builder.add_image(ordinal, tags=["cat"])
    for _ in range(2):
        builder.append("dataset", DATASET, TagsEdited(images=everything, asserted=("dog",), rejected=("sky",)))
    views.apply(connection, builder.commits)
    after_few, applied = instructions_to_read(connection), len(builder.commits)

    for number in range(EDITS):
        edited = TagsEdited(images=everything, asserted=("dog",), rejected=("sky",))
        if number % 3 == 0:
            edited = TagsEdited(images=everything, withdrawn=("dog",), rejected=("sky",))
        sequence = builder.append("dataset", DATASET, edited).sequence
        if number % 10 == 0:
            builder.append("dataset", DATASET, CommitsUndone(commits=(sequence,), images=everything))
    views.apply(connection, builder.commits[applied:])
    assert decisions.tag_names(connection, DATASET, 0) == ("cat", "dog")
    assert instructions_to_read(connection) == after_few


def test_what_is_read_for_an_image_does_not_grow_with_the_edits_of_others(connection: Connection) -> None:
    """Of images here and there: few in each part, so these edits are kept with their images."""
    rng = random.Random(3)
    for sequence in range(1, EDITS):
        images = BitMap(rng.sample(range(1, 40 * PART), BULK + 1))
        edit = Edit(sequence, 0, "person", "ann", asserted=(sequence,))
        bulk_history.add(connection, DATASET, edit, images.serialize())
        bulk_latest.add(connection, DATASET, edit, images)
        if sequence == 1:
            after_few = instructions_to_read(connection)
    assert instructions_to_read(connection) == after_few


def instructions_to_read(connection: Connection) -> int:
    """Of SQLite's virtual machine, for the tags of the first image: rows that are read are instructions."""
    steps = 0

    def count() -> int:
        nonlocal steps
        steps += 1
        return 0

    connection.set_progress_handler(count, 1)
    decisions.effective_tags(connection, DATASET, [0])
    connection.set_progress_handler(None, 1)
    return steps


def test_what_was_decided_since_is_found_for_few_images_as_for_many(connection: Connection) -> None:
    builder, everything = LogBuilder(), range(BULK + 1)
    builder.create_dataset()
    for ordinal in everything:
        builder.add_image(ordinal, tags=["cat"])
    start = builder.edit_tags(1, add=["before"]).sequence
    single = builder.edit_tags(1, add=["dog"]).sequence
    voided = builder.edit_tags(1, add=["sky"]).sequence
    builder.append("dataset", DATASET, CommitsUndone(commits=(voided,), images=bitmap(1)))
    bulk = builder.append("dataset", DATASET, TagsEdited(images=bitmap(*everything), asserted=("tree",))).sequence
    views.apply(connection, builder.commits)
    for images in (BitMap([1]), BitMap(everything)):
        found = edits.edits_after(connection, DATASET, images, start)
        assert [(edit.sequence, len(edited)) for edit, edited in found] == [(single, 1), (bulk, BULK + 1)]
    assert [edit.sequence for edit, _ in edits.edits_after(connection, DATASET, BitMap([2]), start)] == [bulk]
