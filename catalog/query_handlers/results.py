"""Builds the results of queries from rows of the read model, current or past."""

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from pyroaring import BitMap

from catalog.database import Connection
from catalog.domain.compose import compose
from catalog.domain.effective_tags import EffectiveTags
from catalog.domain.manifest import ManifestLine, ManifestRoot
from catalog.keys import open_if_present
from catalog.lookup import require_dataset, require_image, require_job, require_run
from catalog.views import datasets, decisions, image_counts, images, jobs, presence, repeats, reviews, sets, work
from catalog.views.datasets import DatasetRow
from catalog.views.image_counts import ImageCounts
from catalog.views.tag_names import Names
from catalog.views.versions import VersionRow
from catalog.watch.absent_keys import AbsentKeys
from contracts.events.datasets import TextSettingsSet
from contracts.ids import DatasetId, ImageId
from contracts.jobs import status_of
from contracts.queries.datasets import DatasetView, ImageView, VersionView
from contracts.queries.jobs import JobView
from contracts.queries.tagging import TaggingView
from contracts.sealed import CAPTION, NAME, open_sealed
from contracts.texts.writing import write_tags
from contracts.training_text import training_text


class TaggedImage(NamedTuple):
    """An image, what other views say of it, and how its text is written; read in one transaction."""

    row: images.ImageRow
    tags: EffectiveTags
    reviewed: bool
    repeats: int
    text_settings: TextSettingsSet


def read_dataset(connection: Connection, ref: str) -> DatasetView:
    """NotFound if there is none, Gone if it was removed."""
    return dataset_view(connection, require_dataset(connection, ref))


def dataset_view(connection: Connection, row: DatasetRow) -> DatasetView:
    return counted_dataset(row, image_counts.count_images(connection, row.id))


def counted_dataset(row: DatasetRow, counts: ImageCounts) -> DatasetView:
    return compose(
        DatasetView,
        row,
        counts,
        thresholds=row.thresholds.categories,
        tag_thresholds=row.thresholds.tags,
        denied_tags=row.rules.deny,
    )


def version_view(connection: Connection, dataset: DatasetRow, row: VersionRow) -> VersionView:
    return compose(
        VersionView,
        row,
        version=row.number,
        dataset=dataset.name,
        etag=max(row.sequence, dataset.name_sequence),
        erased=presence.count_erased_in_version(connection, dataset.id, row.as_of, row.sequence),
    )


def training_text_of(root: ManifestRoot, line: ManifestLine, keys: dict[ImageId, bytes], absent: AbsentKeys) -> str:
    """The training text of an image of a frozen version; empty if it was erased, or without the key of its caption."""
    if line.image in absent.erased or (line.caption is not None and line.image not in keys):
        return ""
    written = None if line.caption is None else open_sealed(keys[line.image], line.caption, CAPTION)
    return root.text_of(line, written)


def read_image(connection: Connection, image_id: str, known: Names) -> TaggedImage:
    """NotFound if there is none, Gone if it or its data set was removed, or if it was erased."""
    (image,) = with_tags(connection, [require_image(connection, image_id)], known)
    return image


def with_tags(
    connection: Connection, rows: Sequence[images.ImageRow], known: Names, as_of: int | None = None
) -> list[TaggedImage]:
    """These images with their tags, review states, repeats and text settings, now or as of a sequence.

    `known` gets the names of tags that are read for it.
    """
    ordinals: defaultdict[DatasetId, list[int]] = defaultdict(list)
    for row in rows:
        ordinals[row.dataset_id].append(row.ordinal)
    found = {
        dataset_id: decisions.effective_tags(connection, dataset_id, some, as_of, known)
        for dataset_id, some in ordinals.items()
    }
    reviewed = {
        dataset_id: sets.load(connection, dataset_id, "reviewed")
        if as_of is None
        else reviews.reviewed_at(connection, dataset_id, BitMap(some), as_of)
        for dataset_id, some in ordinals.items()
    }
    repeated = {
        dataset_id: repeats.of_images(connection, dataset_id, some)
        if as_of is None
        else repeats.of_images_at(connection, dataset_id, some, as_of)
        for dataset_id, some in ordinals.items()
    }
    settings = {
        dataset_id: datasets.current_text_settings(connection, dataset_id)
        if as_of is None
        else datasets.text_settings_at(connection, dataset_id, as_of)
        for dataset_id in ordinals
    }
    return [
        TaggedImage(
            row=row,
            tags=found[row.dataset_id][row.ordinal],
            reviewed=row.ordinal in reviewed[row.dataset_id],
            repeats=repeated[row.dataset_id][row.ordinal],
            text_settings=settings[row.dataset_id],
        )
        for row in rows
    ]


def image_view(image: TaggedImage, keys: dict[ImageId, bytes], absent: AbsentKeys) -> ImageView:
    """Texts are plain as far as there are keys; `absent`: why there are none."""
    row, effective, settings = image.row, image.tags, image.text_settings
    written = None if row.caption is None else open_if_present(keys, row.id, row.caption, CAPTION)
    return compose(
        ImageView,
        row,
        effective,
        name=open_if_present(keys, row.id, row.name, NAME),
        caption=write_tags(effective.names, settings.style) if written is None else written,
        training_text=training_text(
            settings.trigger, effective.names, written, settings.template, style=settings.style
        ),
        caption_source=row.caption_source or "tags",
        reviewed=image.reviewed,
        repeats=image.repeats,
        erased=row.id in absent.erased,
        key_missing=row.id not in keys and row.id not in absent.erased,
    )


def read_job(connection: Connection, job_id: str) -> JobView:
    """NotFound if there is none, Gone if it was removed."""
    job, work_row = require_job(connection, job_id)
    request, plan, state, version = job.request, job.plan, work_row.work, job.version
    checkpoints, samples = jobs.count_outputs(connection, job.id)
    return compose(
        JobView,
        job,
        work_row,
        state,
        request,
        status=status_of(state.state),
        phase=state.state,
        version=None if version is None else version.version,
        version_id=None if version is None else version.version_id,
        images=None if version is None else version.images,
        captions_lost=0 if version is None else version.captions_lost,
        step=state.completed_units,
        steps=None if plan is None else plan.steps,
        device=None if plan is None else plan.device,
        precision=None if plan is None else plan.precision,
        attempts=work.attempts(connection, "train", job.id),
        checkpoints=checkpoints,
        samples=samples,
        position=work.queue_position(connection, "train", state),
    )


def read_run(connection: Connection, run_id: str) -> TaggingView:
    """NotFound if there is none."""
    run, work_row = require_run(connection, run_id)
    request, loaded, state = run.request, run.loaded_model, work_row.work
    return compose(
        TaggingView,
        run,
        work_row,
        state,
        request,
        status=status_of(state.state),
        phase=state.state,
        done=state.completed_units,
        total=request.count,
        model_digest=None if loaded is None else loaded.model,
        tags_digest=None if loaded is None else loaded.tags,
        preprocessing=None if loaded is None else loaded.preprocessing,
        provider=None if loaded is None else loaded.provider,
        position=work.queue_position(connection, "tag", state),
    )
