"""Commands on jobs: each job is folded from its own history."""

from dataclasses import replace

from catalog.database import Connection
from catalog.domain import jobs as rules
from catalog.domain import versions as version_rules
from catalog.lookup import require_dataset
from catalog.service.context import CommandContext, locked
from catalog.service.execution import Change, CommandOutcome
from catalog.service.locks import Scope
from catalog.service.presets import require_recipe
from catalog.views import jobs, presence, sets, versions
from catalog.views.datasets import DatasetRow
from catalog.watch.losses import Losses
from catalog.watch.requirements import require_pictures
from contracts.commands.base import CommandMetadata
from contracts.commands.jobs import CancelJob, CreateJob, EditJob, JobResult, RemoveJob, StartJob
from contracts.commits import StreamRevision
from contracts.errors import Rejected
from contracts.events.datasets import VersionFrozen
from contracts.ids import JobId, derived
from contracts.jobs import fold, status_of


def scope_of_job(connection: Connection, command: EditJob | StartJob | CancelJob | RemoveJob) -> Scope:
    """StartJob takes the data set's lock too, so that no image is erased between the check and the start."""
    job = jobs.find(connection, command.job) if isinstance(command, StartJob) else None
    return Scope((command.job,) if job is None else (command.job, job.request.dataset_id))


def scope_of_new_job(connection: Connection, command: CreateJob) -> Scope:
    """The data set's lock for a version that is there, so that none of its images is erased before the job is queued.

    Without a version nothing is pinned yet, and the job does not wait for what is at work on the data set.
    """
    dataset_id = require_dataset(connection, command.dataset).id
    return Scope((f"new jobs of {dataset_id}" if command.version is None else dataset_id,))


@locked(scope_of_new_job)
async def create_job(context: CommandContext, metadata: CommandMetadata, command: CreateJob) -> CommandOutcome:
    """If no version is named, the data set is frozen afterwards (`job_freezing`). Rejected: the data set is empty, or
    the version has another trigger.

    BlobMissing, KeyMissing, Lost: pictures or keys of the version are missing.
    """
    preset = None if command.preset is None else await require_recipe(context, command.preset)
    recipe = rules.resolve_recipe(command, preset)
    row, version = await context.read(lambda now: _select_version(now, command, context.losses()))
    dataset = rules.TrainedDataset(id=row.id, name=row.name, trigger=row.text_settings.trigger)
    events = rules.create(command, recipe, dataset=dataset, version=version)
    job_id = JobId(derived("job", metadata.command_id))
    number = None if version is None else version.version
    result = JobResult(id=job_id, name=command.name or row.name, status="pending", version=number)
    return CommandOutcome(result, [Change("job", job_id, events, StreamRevision())])


def _select_version(
    connection: Connection, command: CreateJob, known: Losses
) -> tuple[DatasetRow, VersionFrozen | None]:
    """The data set, and the version that the command names; none if it names none."""
    row, number = require_dataset(connection, command.dataset), command.version
    if number is None:
        version_rules.refuse_empty(row.name, len(sets.load(connection, row.id, "live")))
        return row, None
    version = versions.find(connection, row.id, number)
    if version is None:
        raise Rejected(f"the data set {row.name!r} has no version {number}", reason="unknown-version")
    version_rules.refuse_erased_images(number, _count_erased_in(connection, version))
    require_pictures(connection, row.id, version.event, known)
    return row, version.event


@locked(scope_of_job)
async def change_job(
    context: CommandContext, _: CommandMetadata, command: EditJob | StartJob | CancelJob | RemoveJob
) -> CommandOutcome:
    if isinstance(command, StartJob):
        await context.read(lambda connection: _require_pictures(connection, command.job, context.losses()))
    history = await context.executor.log.load("job", command.job)
    erased = await context.read(lambda connection: _count_erased(connection, command.job))
    job = replace(rules.fold(history.events()), erased_images=erased)
    events = rules.decide(job, command)
    state = fold([(event, job.work.dispatch) for event in events], job.work).state
    result = JobResult(id=command.job, status=status_of(state))
    return CommandOutcome(result, [Change("job", command.job, events, history.revision)])


def _require_pictures(connection: Connection, job_id: JobId, known: Losses) -> None:
    """BlobMissing, KeyMissing, Lost: pictures or keys of the version a job trains on are missing."""
    if version := _version_of(connection, job_id):
        require_pictures(connection, version.dataset_id, version.event, known)


def _count_erased(connection: Connection, job_id: JobId) -> int:
    """The number of images that were erased from the version a job trains on."""
    version = _version_of(connection, job_id)
    return 0 if version is None else _count_erased_in(connection, version)


def _count_erased_in(connection: Connection, version: versions.VersionRow) -> int:
    return presence.count_erased_in_version(connection, version.dataset_id, version.as_of, version.sequence)


def _version_of(connection: Connection, job_id: JobId) -> versions.VersionRow | None:
    """None while its data set is being frozen."""
    job = jobs.find(connection, job_id)
    return None if job is None or job.version is None else versions.by_id(connection, job.version.version_id)
