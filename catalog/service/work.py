"""Commands on jobs, tagging runs and presets: small aggregates, each folded from its own history."""

from dataclasses import dataclass
from functools import partial
from typing import assert_never, cast

from catalog.database import Connection
from catalog.dispatch import Dispatcher
from catalog.domain import builtin_presets
from catalog.domain import datasets as dataset_rules
from catalog.domain import jobs as job_rules
from catalog.domain import presets as preset_rules
from catalog.service.datasets import require_dataset
from catalog.service.execution import Change, CommandExecutor
from catalog.service.versions import FrozenVersion, VersionFreezer, existing_version, version_id_for
from catalog.views import erasures, images, predictions, presets, sets, versions
from catalog.views import jobs as job_views
from catalog.views.datasets import DatasetRow
from catalog.views.versions import VersionRow
from contracts import jobs
from contracts.commands import (
    CancelJob,
    CancelTagging,
    CommandMetadata,
    CommandResult,
    CreateJob,
    EditJob,
    JobEnvelope,
    JobResult,
    PresetEnvelope,
    PresetResult,
    RemoveJob,
    RequestTagging,
    SavePreset,
    StartJob,
    TaggingEnvelope,
    TaggingRunResult,
)
from contracts.errors import NotFound, Rejected
from contracts.events import AnyEvent, JobCreated, JobQueued, TaggingQueued, TaggingRequested
from contracts.ids import DatasetId, JobId, RunId, derived
from contracts.jobs import Work, status_of
from contracts.recipe import Recipe
from contracts.wire.log import StreamRevision


@dataclass(frozen=True)
class JobCommands:
    """Handles every `JobEnvelope`."""

    executor: CommandExecutor
    versions: VersionFreezer
    dispatcher: Dispatcher

    async def handle(self, envelope: JobEnvelope) -> CommandResult:
        return await self.executor.previous_result(envelope.metadata) or await self._execute(envelope)

    async def _execute(self, envelope: JobEnvelope) -> CommandResult:
        metadata, command = envelope.metadata, envelope.command
        if isinstance(command, CreateJob):
            # The data set's lock: if no version is named, the data set is frozen together with the job.
            row = await self.executor.store.read(lambda connection: require_dataset(connection, command.dataset))
            return await self.executor.execute_once(metadata, row.id, partial(self._create, command, row.id, metadata))
        return await self.executor.execute_once(
            metadata, await self._lock_for(command), partial(self._change, envelope)
        )

    async def _lock_for(self, command: EditJob | StartJob | CancelJob | RemoveJob) -> str:
        """StartJob takes the data set's lock, so that no image is erased between the check and the start."""
        if not isinstance(command, StartJob):
            return command.job
        found = await self.executor.store.read(lambda connection: job_views.find(connection, command.job))
        return command.job if found is None else found[0].request.dataset_id

    async def _create(self, command: CreateJob, dataset_id: DatasetId, metadata: CommandMetadata) -> CommandResult:
        preset = await self._require_preset(command.preset)
        recipe = job_rules.resolve_recipe(command, preset)
        version = await self._select_version(command, dataset_id, metadata)
        job_id = JobId(derived("job", metadata.command_id))
        created = JobCreated(
            name=command.name or version.dataset,
            mode=command.mode,
            dataset_id=version.dataset_id,
            dataset=version.dataset,
            version=version.number,
            version_id=version.version_id,
            manifest=version.manifest,
            images=version.images,
            recipe=recipe,
            preset=command.preset,
            trigger=version.trigger,
            priority=command.priority,
            description=command.description,
            labels=command.labels,
        )
        events: list[AnyEvent] = [created, *([JobQueued(priority=command.priority)] if command.start else [])]
        result = JobResult(id=job_id, name=created.name, status="pending", version=version.number)
        change = Change("job", job_id, events, StreamRevision())
        changes = [change] if version.change is None else [version.change, change]
        appended = await self.executor.append_atomically(changes, metadata, result)
        if command.start:
            await self.dispatcher.enqueue("train", job_id, appended.sequence, command.priority)
        return appended

    async def _require_preset(self, name: str | None) -> Recipe | None:
        if name is None:
            return None
        recipe = await find_recipe(self.executor, name)
        if recipe is None:
            raise Rejected(f"there is no preset {name!r}", reason="unknown-preset")
        return recipe

    async def _select_version(
        self, command: CreateJob, dataset_id: DatasetId, metadata: CommandMetadata
    ) -> FrozenVersion:
        """The version that the command names, or the data set as it is now, to be frozen together with the job.

        Older logs may hold a version of this command without its job: a repeated command uses that version.
        """
        existing = await self.executor.store.read(
            lambda connection: versions.by_id(connection, version_id_for(metadata))
        )
        number = existing.number if existing is not None else command.version
        if number is None:
            return await self.versions.build_version(dataset_id, command.trigger, metadata)

        def read(connection: Connection) -> tuple[DatasetRow, VersionRow | None, int]:
            version = versions.find(connection, dataset_id, number)
            erased = 0 if version is None else erasures.count_erased_in_version(connection, dataset_id, version.as_of)
            return require_dataset(connection, dataset_id), version, erased

        row, version, erased = await self.executor.store.read(read)
        if version is None:
            raise Rejected(f"the data set {row.name!r} has no version {number}", reason="unknown-version")
        dataset_rules.refuse_erased_images(version.number, erased)
        if command.trigger.strip() not in ("", version.trigger):
            raise Rejected(f"version {number} was frozen with the trigger {version.trigger!r}; freeze another")
        return existing_version(row, version)

    async def _change(self, envelope: JobEnvelope) -> CommandResult:
        command = envelope.command
        if isinstance(command, CreateJob):
            raise TypeError("CreateJob is handled by _create")
        history = await self.executor.log.load("job", command.job)
        job = job_rules.fold(history.events())
        events = cast("list[AnyEvent]", job_rules.decide(job, command))
        if isinstance(command, StartJob) and events:
            await self._refuse_erased(command.job)
        result = JobResult(id=command.job, status=status_of(_state_after(job.work, events)))
        if not events:
            return self.executor.unchanged(result)
        appended = await self.executor.append(
            Change("job", command.job, events, history.revision), envelope.metadata, result
        )
        await self.dispatcher.propagate("train", command.job, events, appended.sequence)
        return appended

    async def _refuse_erased(self, job: JobId) -> None:
        def read(connection: Connection) -> tuple[int, int]:
            found = job_views.find(connection, job)
            version = None if found is None else versions.by_id(connection, found[0].request.version_id)
            if version is None:
                return 0, 0
            return version.number, erasures.count_erased_in_version(connection, version.dataset_id, version.as_of)

        dataset_rules.refuse_erased_images(*await self.executor.store.read(read))


@dataclass(frozen=True)
class TaggingCommands:
    """Handles every `TaggingEnvelope`."""

    executor: CommandExecutor
    dispatcher: Dispatcher

    async def handle(self, envelope: TaggingEnvelope) -> CommandResult:
        return await self.executor.previous_result(envelope.metadata) or await self._execute(envelope)

    async def _execute(self, envelope: TaggingEnvelope) -> CommandResult:
        metadata = envelope.metadata
        match envelope.command:
            case RequestTagging() as command:
                row = await self.executor.store.read(lambda connection: require_dataset(connection, command.dataset))
                return await self.executor.execute_once(
                    metadata, row.id, partial(self._request_run, command, row.id, metadata)
                )
            case CancelTagging(run=run, reason=reason):
                return await self.executor.execute_once(metadata, run, partial(self._cancel_run, run, reason, metadata))
            case other:
                assert_never(other)

    async def _request_run(
        self, command: RequestTagging, dataset_id: DatasetId, metadata: CommandMetadata
    ) -> CommandResult:
        def read(connection: Connection) -> tuple[DatasetRow, list[int], list[int]]:
            row = require_dataset(connection, dataset_id)
            return (
                row,
                images.live_ordinals(connection, row.id),
                predictions.predicted_ordinals(connection, row.id, command.model),
            )

        row, ordinals, tagged = await self.executor.store.read(read)
        selected = dataset_rules.select_images_to_tag(row.name, ordinals, tagged, only_new=command.only_new)
        run_id = RunId(derived("run", metadata.command_id))
        requested = TaggingRequested(
            dataset_id=row.id,
            dataset=row.name,
            model=command.model,
            images=selected,
            count=len(sets.ordinals(selected)),
            priority=command.priority,
        )
        events: list[AnyEvent] = [requested, TaggingQueued(priority=command.priority)]
        result = TaggingRunResult(id=run_id, name=row.name, status="pending")
        appended = await self.executor.append(Change("tagging", run_id, events, StreamRevision()), metadata, result)
        await self.dispatcher.enqueue("tag", run_id, appended.sequence, command.priority)
        return appended

    async def _cancel_run(self, run: RunId, reason: str, metadata: CommandMetadata) -> CommandResult:
        history = await self.executor.log.load("tagging", run)
        if not history.commits:
            raise NotFound(f"there is no tagging run {run!r}")
        work = jobs.fold(history.events())
        events = cast("list[AnyEvent]", jobs.cancel(work, "tag", reason))
        result = TaggingRunResult(id=run, status=status_of(_state_after(work, events)))
        if not events:
            return self.executor.unchanged(result)
        appended = await self.executor.append(Change("tagging", run, events, history.revision), metadata, result)
        await self.dispatcher.propagate("tag", run, events, appended.sequence)
        return appended


@dataclass(frozen=True)
class PresetCommands:
    """Handles every `PresetEnvelope`."""

    executor: CommandExecutor

    async def handle(self, envelope: PresetEnvelope) -> CommandResult:
        aggregate_id = preset_rules.preset_id_of(envelope.command.name)
        return await self.executor.execute_once(envelope.metadata, aggregate_id, partial(self._change, envelope))

    async def _change(self, envelope: PresetEnvelope) -> CommandResult:
        command = envelope.command
        parent = Recipe()
        if isinstance(command, SavePreset) and command.parent is not None:
            found = await find_recipe(self.executor, command.parent)
            if found is None:
                raise Rejected(f"there is no preset {command.parent!r}", reason="unknown-preset")
            parent = found
        aggregate_id = preset_rules.preset_id_of(command.name)
        history = await self.executor.log.load("preset", aggregate_id)
        event = preset_rules.decide(preset_rules.fold(history.events()), command, parent)
        result = PresetResult(id=aggregate_id, name=command.name)
        if event is None:
            return self.executor.unchanged(result)
        return await self.executor.append(
            Change("preset", aggregate_id, [event], history.revision), envelope.metadata, result
        )


async def find_recipe(executor: CommandExecutor, preset: str) -> Recipe | None:
    """The recipe of a built-in or saved preset; None where there is no such preset."""
    builtin = builtin_presets.BY_NAME.get(preset)
    if builtin is not None:
        return builtin.recipe
    row = await executor.store.read(lambda connection: presets.find(connection, preset))
    return None if row is None or row.retired else row.recipe


def _state_after(work: Work, events: list[AnyEvent]) -> jobs.State:
    return jobs.fold([(event, work.dispatch) for event in events], work).state
