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
from catalog.service.versions import FrozenVersion, build_version, version_id_for
from catalog.views import jobs, presence, versions
from catalog.watch.losses import Losses
from catalog.watch.requirements import require_pictures
from contracts.commands.base import CommandMetadata
from contracts.commands.jobs import CancelJob, CreateJob, EditJob, JobResult, RemoveJob, StartJob
from contracts.commits import StreamRevision
from contracts.errors import Rejected
from contracts.ids import JobId, derived
from contracts.jobs import fold, status_of


def scope_of_job(connection: Connection, command: EditJob | StartJob | CancelJob | RemoveJob) -> Scope:
    """StartJob takes the data set's lock too, so that no image is erased between the check and the start."""
    job = jobs.find(connection, command.job) if isinstance(command, StartJob) else None
    return Scope((command.job,) if job is None else (command.job, job.request.dataset_id))


@locked(lambda connection, command: Scope((require_dataset(connection, command.dataset).id,)))
async def create_job(context: CommandContext, metadata: CommandMetadata, command: CreateJob) -> CommandOutcome:
    """Under the data set's lock: if no version is named, the data set is frozen together with the job.

    BlobMissing, KeyMissing, Lost: pictures or keys of the version are missing.
    """
    preset = None if command.preset is None else await require_recipe(context, command.preset)
    recipe = rules.resolve_recipe(command, preset)
    frozen = await _select_version(context, metadata, command)
    dataset, version = frozen.dataset, frozen.version
    await context.read(lambda now: require_pictures(now, dataset.id, version, context.losses()))
    events = rules.create(command, recipe, dataset_id=dataset.id, dataset=dataset.name, version=version)
    job_id = JobId(derived("job", metadata.command_id))
    result = JobResult(id=job_id, name=command.name or dataset.name, status="pending", version=version.version)
    change = Change("job", job_id, events, StreamRevision())
    return CommandOutcome(result, [frozen.change, change])


async def _select_version(context: CommandContext, metadata: CommandMetadata, command: CreateJob) -> FrozenVersion:
    """The version that the command names, or the data set as it is now, to be frozen together with the job.

    Older logs may hold a version of this command without its job: a repeated command uses that version.
    """
    existing = await context.read(lambda connection: versions.by_id(connection, version_id_for(metadata)))
    number = command.version if existing is None else existing.number
    if number is None:
        return await build_version(context, metadata, command.dataset, command.trigger)

    def read(connection: Connection) -> FrozenVersion:
        row = require_dataset(connection, command.dataset)
        version = versions.find(connection, row.id, number)
        if version is None:
            raise Rejected(f"the data set {row.name!r} has no version {number}", reason="unknown-version")
        erased = presence.count_erased_in_version(connection, row.id, version.as_of)
        version_rules.refuse_erased_images(version.number, erased)
        return FrozenVersion(row, version.event)

    frozen = await context.read(read)
    if command.trigger.strip() not in ("", frozen.version.trigger):
        raise Rejected(f"version {number} was frozen with the trigger {frozen.version.trigger!r}; freeze another")
    return frozen


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
    return 0 if version is None else presence.count_erased_in_version(connection, version.dataset_id, version.as_of)


def _version_of(connection: Connection, job_id: JobId) -> versions.VersionRow | None:
    job = jobs.find(connection, job_id)
    return None if job is None else versions.by_id(connection, job.request.version_id)
