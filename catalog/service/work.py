"""Wishes about jobs, tagging runs and presets. They are small: each is folded from its own history."""

from dataclasses import dataclass
from functools import partial
from typing import assert_never, cast

from catalog.database import Connection
from catalog.dispatch import Dispatcher
from catalog.domain import builtin_presets
from catalog.domain import datasets as dataset_rules
from catalog.domain import jobs as job_rules
from catalog.domain import presets as preset_rules
from catalog.service.datasets import present
from catalog.service.desk import Change, Desk
from catalog.service.versions import Frozen, Versions, frozen_before, frozen_by
from catalog.views import erasures, images, predictions, presets, versions
from catalog.views import jobs as job_views
from catalog.views.datasets import DatasetRow
from catalog.views.sets import unpacked
from catalog.views.versions import VersionRow
from contracts import jobs
from contracts.commands import (
    CancelJob,
    CancelTagging,
    CreateJob,
    EditJob,
    JobCommand,
    Origin,
    PresetCommand,
    Receipt,
    RemoveJob,
    RequestTagging,
    SavePreset,
    StartJob,
    TaggingCommand,
)
from contracts.errors import NotFound, Rejected
from contracts.events import AnyFact, JobCreated, JobQueued, TaggingQueued, TaggingRequested
from contracts.ids import DatasetId, JobId, RunId, derived
from contracts.jobs import Work, status_of
from contracts.recipe import Recipe
from contracts.wire.log import Head


@dataclass(frozen=True)
class Jobs:
    desk: Desk
    versions: Versions
    dispatcher: Dispatcher

    async def handle(self, command: JobCommand) -> Receipt:
        return await self.desk.answered(command.origin) or await self._decided(command)

    async def _decided(self, command: JobCommand) -> Receipt:
        origin, wish = command.origin, command.wish
        if isinstance(wish, CreateJob):
            # The data set's lane, because what is trained on is frozen now, if no version is named.
            row = await self.desk.store.read(lambda connection: present(connection, wish.dataset))
            return await self.desk.settle(origin, row.id, partial(self._create, wish, row.id, origin))
        return await self.desk.settle(origin, await self._lane_of(wish), partial(self._change, command))

    async def _lane_of(self, wish: EditJob | StartJob | CancelJob | RemoveJob) -> str:
        """A job is started in the turn of its data set: nothing of it is erased between the look and the start."""
        if not isinstance(wish, StartJob):
            return wish.job
        found = await self.desk.store.read(lambda connection: job_views.find(connection, wish.job))
        return wish.job if found is None else found[0].asked.dataset_id

    async def _create(self, wish: CreateJob, dataset_id: DatasetId, origin: Origin) -> Receipt:
        preset = await self._preset(wish.preset)
        recipe = job_rules.resolved(wish, preset)
        version = await self._version(wish, dataset_id, origin)
        job_id = JobId(derived("job", origin.command))
        created = JobCreated(
            name=wish.name or version.dataset,
            mode=wish.mode,
            dataset_id=version.dataset_id,
            dataset=version.dataset,
            version=version.number,
            version_id=version.version_id,
            manifest=version.manifest,
            images=version.images,
            recipe=recipe,
            preset=wish.preset,
            trigger=version.trigger,
            priority=wish.priority,
            description=wish.description,
            labels=wish.labels,
        )
        facts: list[AnyFact] = [created, *([JobQueued(priority=wish.priority)] if wish.start else [])]
        receipt = Receipt(id=job_id, name=created.name, status="pending", version=version.number)
        change = Change("job", job_id, facts, Head())
        changes = [change] if version.change is None else [version.change, change]
        done = await self.desk.append_together(changes, origin, receipt)
        if wish.start:
            await self.dispatcher.hint("train", job_id, done.sequence, wish.priority)
        return done

    async def _preset(self, name: str | None) -> Recipe | None:
        if name is None:
            return None
        recipe = await recipe_of(self.desk, name)
        if recipe is None:
            raise Rejected(f"there is no preset {name!r}", reason="unknown-preset")
        return recipe

    async def _version(self, wish: CreateJob, dataset_id: DatasetId, origin: Origin) -> Frozen:
        """The version that was named, or the data set as it is now, to be frozen with the job.

        Logs of before hold versions whose job was never stored: asked for again, it still gets that one.
        """
        before = await self.desk.store.read(lambda connection: versions.by_id(connection, frozen_by(origin)))
        number = before.number if before is not None else wish.version
        if number is None:
            return await self.versions.draw_up(dataset_id, wish.trigger, origin)

        def look(connection: Connection) -> tuple[DatasetRow, VersionRow | None, int]:
            version = versions.find(connection, dataset_id, number)
            erased = 0 if version is None else erasures.in_version(connection, dataset_id, version.as_of)
            return present(connection, dataset_id), version, erased

        row, version, erased = await self.desk.store.read(look)
        if version is None:
            raise Rejected(f"the data set {row.name!r} has no version {number}", reason="unknown-version")
        dataset_rules.whole(version.number, erased)
        if wish.trigger.strip() not in ("", version.trigger):
            raise Rejected(f"version {number} was frozen with the trigger {version.trigger!r}; freeze another")
        return frozen_before(row, version)

    async def _change(self, command: JobCommand) -> Receipt:
        wish = command.wish
        if isinstance(wish, CreateJob):
            raise TypeError("a job is created elsewhere")
        history = await self.desk.log.load("job", wish.job)
        job = job_rules.fold(history.facts())
        facts = cast("list[AnyFact]", job_rules.decide(job, wish))
        if isinstance(wish, StartJob) and facts:
            await self._refuse_erased(wish.job)
        receipt = Receipt(id=wish.job, status=status_of(_after(job.work, facts)))
        if not facts:
            return self.desk.unchanged(receipt)
        done = await self.desk.append(Change("job", wish.job, facts, history.head), command.origin, receipt)
        await self.dispatcher.follow("train", wish.job, facts, done.sequence)
        return done

    async def _refuse_erased(self, job: JobId) -> None:
        def look(connection: Connection) -> tuple[int, int]:
            found = job_views.find(connection, job)
            version = None if found is None else versions.by_id(connection, found[0].asked.version_id)
            if version is None:
                return 0, 0
            return version.number, erasures.in_version(connection, version.dataset_id, version.as_of)

        dataset_rules.whole(*await self.desk.store.read(look))


@dataclass(frozen=True)
class Tagging:
    desk: Desk
    dispatcher: Dispatcher

    async def handle(self, command: TaggingCommand) -> Receipt:
        return await self.desk.answered(command.origin) or await self._decided(command)

    async def _decided(self, command: TaggingCommand) -> Receipt:
        origin = command.origin
        match command.wish:
            case RequestTagging() as wish:
                row = await self.desk.store.read(lambda connection: present(connection, wish.dataset))
                return await self.desk.settle(origin, row.id, partial(self._request, wish, row.id, origin))
            case CancelTagging(run=run, reason=reason):
                return await self.desk.settle(origin, run, partial(self._cancel, run, reason, origin))
            case other:
                assert_never(other)

    async def _request(self, wish: RequestTagging, dataset_id: DatasetId, origin: Origin) -> Receipt:
        def look(connection: Connection) -> tuple[DatasetRow, list[int], list[int]]:
            row = present(connection, dataset_id)
            return row, images.ordinals(connection, row.id), predictions.covered(connection, row.id, wish.model)

        row, present_ones, covered = await self.desk.store.read(look)
        chosen = dataset_rules.to_tag(row.name, present_ones, covered, only_new=wish.only_new)
        run_id = RunId(derived("run", origin.command))
        requested = TaggingRequested(
            dataset_id=row.id,
            dataset=row.name,
            model=wish.model,
            images=chosen,
            count=len(unpacked(chosen)),
            priority=wish.priority,
        )
        facts: list[AnyFact] = [requested, TaggingQueued(priority=wish.priority)]
        receipt = Receipt(id=run_id, name=row.name, status="pending")
        done = await self.desk.append(Change("tagging", run_id, facts, Head()), origin, receipt)
        await self.dispatcher.hint("tag", run_id, done.sequence, wish.priority)
        return done

    async def _cancel(self, run: RunId, reason: str, origin: Origin) -> Receipt:
        history = await self.desk.log.load("tagging", run)
        if not history.commits:
            raise NotFound(f"there is no tagging run {run!r}")
        work = jobs.fold(history.facts())
        facts = cast("list[AnyFact]", jobs.cancel(work, "tag", reason))
        receipt = Receipt(id=run, status=status_of(_after(work, facts)))
        if not facts:
            return self.desk.unchanged(receipt)
        done = await self.desk.append(Change("tagging", run, facts, history.head), origin, receipt)
        await self.dispatcher.follow("tag", run, facts, done.sequence)
        return done


@dataclass(frozen=True)
class Presets:
    desk: Desk

    async def handle(self, command: PresetCommand) -> Receipt:
        thing = preset_rules.id_of(command.wish.name)
        return await self.desk.settle(command.origin, thing, partial(self._change, command))

    async def _change(self, command: PresetCommand) -> Receipt:
        wish = command.wish
        parent = Recipe()
        if isinstance(wish, SavePreset) and wish.parent is not None:
            found = await recipe_of(self.desk, wish.parent)
            if found is None:
                raise Rejected(f"there is no preset {wish.parent!r}", reason="unknown-preset")
            parent = found
        thing = preset_rules.id_of(wish.name)
        history = await self.desk.log.load("preset", thing)
        fact = preset_rules.decide(preset_rules.fold(history.facts()), wish, parent)
        receipt = Receipt(id=thing, name=wish.name)
        if fact is None:
            return self.desk.unchanged(receipt)
        return await self.desk.append(Change("preset", thing, [fact], history.head), command.origin, receipt)


async def recipe_of(desk: Desk, preset: str) -> Recipe | None:
    """The recipe of a preset that comes with Loratory or was saved; none where there is no such preset."""
    builtin = builtin_presets.BY_NAME.get(preset)
    if builtin is not None:
        return builtin.recipe
    row = await desk.store.read(lambda connection: presets.find(connection, preset))
    return None if row is None or row.retired else row.recipe


def _after(work: Work, facts: list[AnyFact]) -> jobs.State:
    return jobs.fold([(fact, work.dispatch) for fact in facts], work).state
