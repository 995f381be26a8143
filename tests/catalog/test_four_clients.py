"""Four clients change one data set at once: live, past, replayed and frozen state are what a plain model says.

The model folds the log the slow way: what holds is the last decision among commits that were not undone, and what was
erased stays erased.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from catalog.database import Connection
from catalog.domain.edits import voided_commits
from catalog.domain.image_sets import bitmap_of, image_set
from catalog.entries import last_sequence, sequences_of
from catalog.lookup import require_dataset
from catalog.rebuild import rebuild
from catalog.service.execution import Change, CommandOutcome
from catalog.service.locks import Scope
from catalog.views import decisions, sets
from catalog.views.batch import BULK
from contracts.commands.base import Command, CommandMetadata, CommandResult
from contracts.commands.datasets import (
    DatasetResult,
    EditTags,
    EraseDataset,
    EraseImage,
    FreezeVersion,
    OrderTags,
    RemoveImage,
    SetRules,
    SetThresholds,
    Undo,
    UndoResult,
    VersionResult,
)
from contracts.commands.tagging import RequestTagging
from contracts.commits import RecordedCommit
from contracts.errors import Conflict, Gone, IllegalTransition, LoratoryError, NotFound, Rejected
from contracts.events.datasets import (
    CommitsUndone,
    DatasetErased,
    ImageErased,
    ImagesRemoved,
    RulesSet,
    TagsEdited,
    TagsOrdered,
    ThresholdsSet,
    VersionFrozen,
)
from contracts.events.tagging import (
    ImagePredictions,
    Prediction,
    TaggingAttemptStarted,
    TaggingPredicted,
    TaggingRequested,
    TaggingSucceeded,
)
from contracts.ids import CommandId, DatasetId, ImageId, RunId, VersionId, WorkerId, ulid
from contracts.queries.datasets import GetImage, ReadManifest
from tests.catalog.harness import CatalogHarness, png

PHASES = (Phase.explicit, Phase.reuse, Phase.generate)
"""Concurrent actions come in another order each time, so a failure cannot be shrunk."""
IMAGES, TAGS, MODELS = 3, ("cat", "dog", "sky"), ("wd", "other")
REFUSED = (Conflict, Gone, IllegalTransition, NotFound, Rejected)
"""What the rules may answer to a client who was too late."""


# --- the plain model


@dataclass
class PlainDataset:
    """The commits of a data set and its tagging runs, and what holds of them as of a sequence."""

    commits: list[RecordedCommit]
    models: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for _, run, event in self._events(2**62):
            if isinstance(event, TaggingRequested):
                self.models[run] = event.model

    def _events(self, until: int) -> Iterator[tuple[int, str, Any]]:
        for recorded in self.commits:
            if recorded.sequence <= until:
                for event in recorded.commit.events:
                    yield recorded.sequence, recorded.commit.aggregate_id, event

    def voided(self, until: int = 2**62) -> set[int]:
        undos = {at: event.commits for at, _, event in self._events(until) if isinstance(event, CommitsUndone)}
        return set(voided_commits(undos))

    def erased(self, until: int = 2**62) -> set[int]:
        return {event.ordinal for _, _, event in self._events(until) if isinstance(event, ImageErased)}

    def counting(self, until: int) -> Iterator[tuple[str, Any]]:
        void = self.voided(until)
        undone = {
            run
            for at, _, event in self._events(until)
            if isinstance(event, CommitsUndone) and at not in void
            for run in event.runs
        }
        for at, aggregate_id, event in self._events(until):
            if at not in void and not (isinstance(event, TaggingPredicted) and aggregate_id in undone):
                yield aggregate_id, event

    def tags(self, ordinal: int, until: int = 2**62) -> tuple[str, ...] | None:
        """In order; None: the image is not part of the data set."""
        decided: dict[str, str] = {}
        predicted: dict[str, Mapping[str, float]] = {}
        threshold, deny, order, present = 0.35, frozenset[str](), tuple[str, ...](), True
        for aggregate_id, event in self.counting(until):
            match event:
                case TagsEdited(images=images) if ordinal in bitmap_of(images):
                    groups = ("asserted", event.asserted), ("rejected", event.rejected), ("withdrawn", event.withdrawn)
                    for choice, tag in ((choice, tag) for choice, tags in groups for tag in tags):
                        decided.pop(tag, None)
                        decided[tag] = choice
                case TaggingPredicted(images=(image,)) if image.ordinal == ordinal:
                    predicted[self.models[aggregate_id]] = {one.tag: one.probability for one in image.predictions}
                case ThresholdsSet(categories=categories):
                    threshold = categories.get("general", 2.0)
                case RulesSet(deny=denied):
                    deny = frozenset(denied)
                case TagsOrdered(ordinal=at, tags=tags) if at == ordinal:
                    order = tags
                case ImagesRemoved(images=images) if ordinal in bitmap_of(images):
                    present = False
                case ImageErased(ordinal=at) if at == ordinal:
                    return None
                case DatasetErased():
                    return None
                case _:
                    pass
        return _shown(decided, predicted, threshold, deny, order) if present else None


def _shown(
    decided: Mapping[str, str],
    predicted: Mapping[str, Mapping[str, float]],
    threshold: float,
    deny: frozenset[str],
    order: tuple[str, ...],
) -> tuple[str, ...]:
    best: dict[str, float] = {}
    for tag, probability in (one for found in predicted.values() for one in found.items()):
        if probability > threshold and tag not in deny and decided.get(tag, "withdrawn") == "withdrawn":
            best[tag] = max(best.get(tag, 0.0), probability)
    asserted = [tag for tag, choice in decided.items() if choice == "asserted"]
    shown = [*asserted, *sorted(best, key=lambda tag: (-best[tag], tag))]
    first = [tag for tag in order if tag in shown]
    return (*first, *(tag for tag in shown if tag not in first))


# --- the clients

ORDINAL, TAG, TAG_SET = st.integers(0, IMAGES - 1), st.sampled_from(TAGS), st.sets(st.sampled_from(TAGS), min_size=1)
CHOICE = st.sampled_from(["asserted", "rejected", "withdrawn"])
ACTION = st.one_of(
    st.tuples(st.just("edit"), ORDINAL, TAG_SET, CHOICE),
    st.tuples(st.just("edit many"), st.sampled_from(["range", "scattered"]), ORDINAL, TAG_SET, CHOICE),
    st.tuples(st.just("order"), ORDINAL, st.permutations(TAGS)),
    st.tuples(st.just("threshold"), st.floats(0.1, 0.9)),
    st.tuples(st.just("rules"), st.sets(TAG)),
    st.tuples(st.just("tag"), st.sampled_from(MODELS), ORDINAL, st.dictionaries(TAG, st.floats(0.1, 0.99))),
    st.tuples(st.just("remove"), ORDINAL),
    st.tuples(st.just("erase"), st.integers(1, IMAGES - 1)),
    st.just(("freeze",)),
    st.tuples(st.just("undo"), st.integers(0, 20)),
    st.tuples(st.just("undo"), st.integers(0, 3)),
    st.tuples(st.just("undo run"), st.integers(0, 3)),
)
ROUNDS = st.lists(st.lists(ACTION, min_size=1, max_size=4), min_size=1, max_size=6)
"""The actions of a round are sent at the same time, each by a client of its own."""


def many(kind: str, ordinal: int) -> list[int]:
    """Enough images, without one, that an edit of them is kept once; `scattered`: its set lies in a blob."""
    total = BULK + 10 if kind == "range" else 80_000
    rng = random.Random(7)
    return [one for one in range(total) if one != ordinal and (kind == "range" or one < BULK or rng.random() < 0.5)]


@dataclass
class Workshop:
    """A data set in a running catalog, and what was acknowledged to its clients."""

    harness: CatalogHarness
    dataset: DatasetId
    images: list[ImageId]
    acknowledged: list[tuple[Any, CommandResult]] = field(default_factory=list)
    runs: list[RunId] = field(default_factory=list)
    versions: list[VersionId] = field(default_factory=list)

    async def act(self, action: Any) -> None:
        """One action; what the rules refuse was not acknowledged."""
        try:
            result = await self._act(action)
        except REFUSED:
            return
        assert result.shown
        self.acknowledged.append((action, result))
        if isinstance(result, VersionResult):
            self.versions.append(VersionId(result.id))

    async def _act(self, action: Any) -> CommandResult:
        match action:
            case ("edit many", kind, ordinal, tags, choice):
                decided: dict[str, Any] = {choice: tuple(sorted(tags))}
                return await self._record(TagsEdited(images=image_set(many(kind, ordinal)), **decided))
            case ("tag", model, ordinal, found):
                return await self._tag(model, ordinal, found)
            case _:
                command: Command[Any] = self._command(action)
                result: CommandResult = await self.harness.execute(command)
                return result

    def _command(self, action: Any) -> Command[Any]:  # noqa: PLR0911 - a case for each command
        match action:
            case ("edit", ordinal, tags, choice):
                name = {"asserted": "add", "rejected": "remove", "withdrawn": "withdraw"}[choice]
                return EditTags(image=self.images[ordinal], **{name: tuple(sorted(tags))})
            case ("order", ordinal, tags):
                return OrderTags(image=self.images[ordinal], tags=tuple(tags))
            case ("threshold", above):
                return SetThresholds(dataset=self.dataset, categories={"general": above})
            case ("rules", denied):
                return SetRules(dataset=self.dataset, deny=tuple(sorted(denied)))
            case ("remove", ordinal):
                return RemoveImage(image=self.images[ordinal])
            case ("erase", ordinal):
                return EraseImage(image=self.images[ordinal])
            case ("freeze",):
                return FreezeVersion(dataset=self.dataset)
            case ("undo run", back) if self.runs:
                return Undo(dataset=self.dataset, run=self.runs[-1 - back % len(self.runs)])
            case (_, back):
                commits = [result.sequence for _, result in self.acknowledged if result.changed]
                return Undo(dataset=self.dataset, commit=commits[-1 - back % len(commits)] if commits else 1)
        raise AssertionError(action)

    async def _record(self, event: TagsEdited) -> CommandResult:
        """A bulk edit, as a command that holds the data set's lock."""

        async def decide() -> CommandOutcome:
            row = await self.harness.executor.store.read(lambda now: require_dataset(now, self.dataset))
            change = Change("dataset", self.dataset, [event], row.revision)
            return CommandOutcome(DatasetResult(id=self.dataset, name=row.name), [change])

        metadata = CommandMetadata(command_id=CommandId(ulid()), actor="ann", at=datetime.now(UTC))
        return await self.harness.executor.execute(metadata, Scope((self.dataset,)), decide)

    async def _tag(self, model: str, ordinal: int, found: Mapping[str, float]) -> CommandResult:
        """Request a run, and do the tagger's part."""
        result = await self.harness.execute(RequestTagging(dataset=self.dataset, model=model))
        started = TaggingAttemptStarted(worker=WorkerId("t1"), boot="b", resumes=0)
        attempt = await self.harness.append("tagging", result.id, started)
        predictions = tuple(Prediction(tag=tag, probability=above) for tag, above in sorted(found.items()))
        image = ImagePredictions(ordinal=ordinal, predictions=predictions)
        await self.harness.append("tagging", result.id, TaggingPredicted(attempt=attempt, images=(image,)))
        await self.harness.append("tagging", result.id, TaggingSucceeded(attempt=attempt, images=1))
        self.runs.append(RunId(result.id))
        return result

    async def model(self) -> PlainDataset:
        """Of all that is in the log, sets of images included."""
        runs = [("tagging", RunId(result.id)) for action, result in self.acknowledged if action[0] == "tag"]

        def read(log: Connection) -> list[int]:
            aggregates = [("dataset", str(self.dataset)), *((kind, str(run)) for kind, run in runs)]
            return sequences_of(log, aggregates, after=0, last=last_sequence(log), limit=10_000)

        sequences = await self.harness.archive.read(read)
        return PlainDataset(await self.harness.catalog.context.commits(sequences))


async def assert_live_and_past(workshop: Workshop, past: dict[int, list[tuple[str, ...] | None]]) -> None:
    """All images show now what the model says, and as of each earlier round what it said then."""
    model = await workshop.model()
    now = [model.tags(ordinal) for ordinal in range(IMAGES)]

    def read(connection: Connection) -> list[tuple[str, ...] | None]:
        live = sets.load(connection, workshop.dataset, "live")
        return [
            decisions.tag_names(connection, workshop.dataset, ordinal) if ordinal in live else None
            for ordinal in range(IMAGES)
        ]

    assert await workshop.harness.executor.store.read(read) == now
    past[model.commits[-1].sequence] = now
    for sequence, expected in past.items():
        for ordinal, tags in enumerate(expected):
            assert model.tags(ordinal, sequence) == tags
            if tags is not None and now[ordinal] is not None:
                query = GetImage(image=workshop.images[ordinal], at_seq=sequence)
                view: Any = await workshop.harness.catalog.queries[GetImage](query)
                assert tuple(tag.tag for tag in view.tags) == tags, (sequence, ordinal)


async def assert_acknowledged(workshop: Workshop) -> None:
    """Each acknowledged change is in the log, and each that does not count was undone by name."""
    model = await workshop.model()
    commits = {recorded.sequence: recorded for recorded in model.commits}
    undone_by_name = {
        commit
        for action, result in workshop.acknowledged
        if isinstance(result, UndoResult) and action[0].startswith("undo")
        for commit in result.commits
    }
    for action, result in workshop.acknowledged:
        if result.changed:
            assert result.sequence in commits, action
    assert model.voided() <= undone_by_name


async def assert_frozen(workshop: Workshop) -> None:
    """Each version has the images and texts that the model says for the sequence it was computed at.

    What was erased between that and the version's own commit is not in it.
    """
    model = await workshop.model()
    frozen = {
        event.version_id: (event.as_of, recorded.sequence)
        for recorded in model.commits
        for event in recorded.commit.events
        if isinstance(event, VersionFrozen)
    }
    for version in workshop.versions:
        page: Any = await workshop.harness.catalog.queries[ReadManifest](ReadManifest(version_id=version))
        as_of, sequence = frozen[version]
        erased = model.erased(sequence)
        expected = {one: None if one in erased else model.tags(one, as_of) for one in range(IMAGES)}
        gone = model.erased()
        assert {line.ordinal for line in page.items} == {one for one, tags in expected.items() if tags is not None}
        for line in page.items:
            if line.ordinal not in gone:  # the text of an erased image cannot be read
                assert line.caption == ", ".join(expected[line.ordinal] or ())


@asynccontextmanager
async def workshop_in(harness: CatalogHarness) -> AsyncIterator[Workshop]:
    dataset = await harness.dataset(f"set {ulid()}")
    staged = [harness.stage(f"{number}.png", png(number)) for number in range(IMAGES)]
    result = await harness.import_files(dataset, *staged)
    yield Workshop(harness, dataset, [file.image for file in result.files])


@pytest.mark.slow
@settings(max_examples=8, phases=PHASES, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rounds=ROUNDS, erase_all=st.booleans())
async def test_live_past_replayed_and_frozen_state_agree(
    harness: CatalogHarness, tmp_path: Path, rounds: list[list[Any]], erase_all: bool
) -> None:
    async with workshop_in(harness) as workshop:
        past: dict[int, list[tuple[str, ...] | None]] = {}
        for actions in rounds:
            await asyncio.gather(*(workshop.act(action) for action in actions))
            await assert_live_and_past(workshop, past)
        await assert_acknowledged(workshop)
        await assert_frozen(workshop)
        if erase_all:
            await harness.execute(EraseDataset(dataset=workshop.dataset))
            with pytest.raises(LoratoryError):
                await harness.execute(FreezeVersion(dataset=workshop.dataset))
        target = tmp_path / "again.db"
        target.unlink(missing_ok=True)
        report = await asyncio.to_thread(rebuild, tmp_path / "data" / "catalog", target, lambda _: None)
        assert (report.state, report.difference) == ("same", None)
