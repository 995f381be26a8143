"""Finds one row of the read model, or raises: NotFound if it never existed, Gone if it was removed or erased."""

from typing import TypeVar

from catalog.database import MAX_SEQUENCE, Connection
from catalog.views import datasets, erasures, images, jobs, presets, tagging, versions, work
from contracts.errors import Gone, NotFound
from contracts.ids import DatasetId

T = TypeVar("T")


def known_dataset(connection: Connection, ref: str) -> datasets.DatasetRow:
    """By name or id; also a removed one, by its id, because its versions remain."""
    return _found(datasets.find(connection, ref), "data set", ref)


def require_dataset(connection: Connection, ref: str) -> datasets.DatasetRow:
    """By name or id; Gone if it was removed."""
    row = known_dataset(connection, ref)
    if row.removed:
        raise removed("data set", row.name)
    return row


def dataset_at(connection: Connection, ref: str, last: int) -> datasets.DatasetRow:
    """By id or current name. NotFound: it did not exist yet. Gone: it was removed by then, or erased since."""
    current = known_dataset(connection, ref)
    row = datasets.find_at(connection, current.id, last)
    if row is None:
        raise not_found_at(not_found("data set", ref), last)
    if row.removed or row.erased:
        raise removed("data set", row.name)
    return row


def known_image(connection: Connection, image_id: str) -> images.ImageRow | erasures.ErasedRow:
    """Also a removed or an erased one."""
    return images.find(connection, image_id) or _found(erasures.find(connection, image_id), "image", image_id)


def ordinal_of(connection: Connection, image_id: str) -> tuple[DatasetId, int]:
    """The data set and ordinal of an image, also of a removed or erased one. A refused file has no ordinal."""
    row = known_image(connection, image_id)
    return row.dataset_id, _found(row.ordinal, "image", image_id)


def require_image(connection: Connection, image_id: str) -> images.ImageRow:
    """Gone if it was erased, or if it or its data set was removed."""
    return require_image_and_dataset(connection, image_id)[0]


def require_image_and_dataset(connection: Connection, image_id: str) -> tuple[images.ImageRow, datasets.DatasetRow]:
    """Gone if it was erased, or if it or its data set was removed."""
    row = known_image(connection, image_id)
    if isinstance(row, erasures.ErasedRow):
        raise erased(image_id)
    if row.removed:
        raise removed("image", image_id)
    return row, require_dataset(connection, row.dataset_id)


def require_version(connection: Connection, dataset: datasets.DatasetRow, number: int) -> versions.VersionRow:
    row = versions.find(connection, dataset.id, number)
    if row is None:
        raise NotFound(f"the data set {dataset.name!r} has no version {number}")
    return row


def known_job(connection: Connection, job_id: str) -> tuple[jobs.JobRow, work.WorkRow]:
    """Also a removed one."""
    job, work_row = jobs.find(connection, job_id), work.find(connection, "train", job_id)
    return _found(job, "job", job_id), _found(work_row, "job", job_id)


def require_job(connection: Connection, job_id: str) -> tuple[jobs.JobRow, work.WorkRow]:
    """Gone if it was removed."""
    found = known_job(connection, job_id)
    if found[1].work.state == "removed":
        raise removed("job", job_id)
    return found


def require_run(connection: Connection, run_id: str) -> tuple[tagging.RunRow, work.WorkRow]:
    """A tagging run; these are never removed."""
    run, work_row = tagging.find(connection, run_id), work.find(connection, "tag", run_id)
    return _found(run, "tagging run", run_id), _found(work_row, "tagging run", run_id)


def require_preset(connection: Connection, name: str) -> presets.PresetRow:
    """A preset saved by a user; Gone if it was retired."""
    row = _found(presets.find(connection, name), "preset", name)
    if row.retired:
        raise Gone(f"the preset {name!r} was retired")
    return row


def aggregates_of_dataset(connection: Connection, dataset_id: str, last: int = MAX_SEQUENCE) -> list[tuple[str, str]]:
    """The aggregates with events about a data set up to a sequence: itself and the tagging runs on it."""
    runs = tagging.run_ids_of_dataset(connection, dataset_id, last)
    return [("dataset", dataset_id), *(("tagging", run) for run in runs)]


def _found(row: T | None, kind: str, ref: str) -> T:
    if row is None:
        raise not_found(kind, ref)
    return row


def not_found(kind: str, ref: str) -> NotFound:
    return NotFound(f"there is no {kind} {ref!r}")


def not_found_at(error: NotFound, sequence: int) -> NotFound:
    return NotFound(f"{error.detail} at sequence {sequence} of the log", sequence=sequence)


def removed(kind: str, ref: str) -> Gone:
    return Gone(f"the {kind} {ref!r} was removed")


def erased(image_id: str) -> Gone:
    return Gone(f"the image {image_id!r} was erased for good", reason="erased")
