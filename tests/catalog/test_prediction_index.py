"""Predictions in memory: as the snapshot shows them, and within a limit."""

from pyroaring import BitMap

from catalog import views
from catalog.database import Connection
from catalog.prediction_index import PredictionIndex, PredictionLimits
from catalog.views import prediction_parts
from catalog.views.pairs import IMAGES_PER_PART, TagColumns
from contracts.events.datasets import CommitsUndone, ImageErased
from contracts.ids import RunId
from tests.catalog.log_builder import LogBuilder, bitmap, image_id
from tests.catalog.test_undo_views import EmptyRows

ALL = BitMap([0, 1, IMAGES_PER_PART + 1])


class CountingReader:
    """Counts the parts that are read from rows."""

    def __init__(self) -> None:
        self.parts: list[int] = []

    def __call__(self, connection: Connection, dataset_id: str, part: int, sequence: int) -> TagColumns:
        self.parts.append(part)
        return prediction_parts.read_current(connection, dataset_id, part, sequence)


def predicted(connection: Connection, index: PredictionIndex) -> list[float]:
    return list(prediction_parts.confidences(connection, "ds_cats", "cat", ALL, index.read_part))


def started_log() -> tuple[LogBuilder, int]:
    """A data set with three images in two parts, and an attempt of a run on them."""
    builder = LogBuilder()
    builder.create_dataset()
    for ordinal in ALL:
        builder.add_image(ordinal)
    return builder, builder.start_run("run_1", *ALL)


def test_parts_are_read_once_and_again_after_a_change() -> None:
    builder, attempt = started_log()
    for ordinal in ALL:
        builder.predict("run_1", attempt, ordinal, ("cat", 0.5), ("dog", 0.9))
    reader = CountingReader()
    index = PredictionIndex(reader)
    with EmptyRows() as connection:
        views.apply(connection, builder.commits)
        assert predicted(connection, index) == [0.5, 0.5, 0.5]
        assert predicted(connection, index) == [0.5, 0.5, 0.5]
        assert reader.parts == [0, 1]
        attempt = builder.start_run("run_2", 1, model="other")
        builder.predict("run_2", attempt, 1, ("cat", 0.75))
        views.apply(connection, builder.commits[-3:])
        assert predicted(connection, index) == [0.5, 0.75, 0.5]
        assert reader.parts == [0, 1, 0]


def test_an_undone_run_and_an_erased_image_are_not_in_memory_any_more() -> None:
    builder, attempt = started_log()
    for ordinal in ALL:
        builder.predict("run_1", attempt, ordinal, ("cat", 0.5))
    index = PredictionIndex(prediction_parts.read_current)
    with EmptyRows() as connection:
        views.apply(connection, builder.commits)
        assert predicted(connection, index) == [0.5, 0.5, 0.5]
        views.apply(
            connection, [builder.append("dataset", "ds_cats", ImageErased(ordinal=1, image_id=image_id("ds_cats", 1)))]
        )
        assert predicted(connection, index) == [0.5, 0.0, 0.5]
        undone = CommitsUndone(runs=(RunId("run_1"),), images=bitmap(*ALL))
        views.apply(connection, [builder.append("dataset", "ds_cats", undone)])
        assert predicted(connection, index) == [0.0, 0.0, 0.0]


def test_an_older_snapshot_gets_its_own_predictions() -> None:
    builder, attempt = started_log()
    builder.predict("run_1", attempt, 0, ("cat", 0.5))
    older = len(builder.commits)
    builder.predict("run_1", attempt, 1, ("cat", 0.75))
    index = PredictionIndex(prediction_parts.read_current)
    with EmptyRows() as before, EmptyRows() as after:
        views.apply(before, builder.commits[:older])
        views.apply(after, builder.commits)
        assert predicted(after, index) == [0.5, 0.75, 0.0]
        assert predicted(before, index) == [0.5, 0.0, 0.0]
        assert predicted(after, index) == [0.5, 0.75, 0.0]


def test_the_parts_used_last_are_kept_within_the_limit() -> None:
    builder, attempt = started_log()
    for ordinal in ALL:
        builder.predict("run_1", attempt, ordinal, ("cat", 0.5))
    reader = CountingReader()
    with EmptyRows() as connection:
        views.apply(connection, builder.commits)
        of_one = prediction_parts.read_current(connection, "ds_cats", 0, 0).bytes
        index = PredictionIndex(reader, PredictionLimits(memory=of_one))
        predicted(connection, index)
        assert 0 < index.bytes <= of_one
        reader.parts.clear()
        predicted(connection, index)
        assert reader.parts == [0, 1]
