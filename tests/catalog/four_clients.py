"""What four clients do to one data set at once: actions as values, carried out on a running catalog."""

import random
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from hypothesis import strategies as st

from catalog.database import Connection
from catalog.domain.image_sets import image_set
from catalog.entries import last_sequence, sequences_of
from catalog.lookup import require_dataset
from catalog.service.execution import Change, CommandOutcome
from catalog.service.locks import Scope
from catalog.views.batch import BULK
from contracts.commands.base import Command, CommandMetadata, CommandResult
from contracts.commands.datasets import (
    DatasetResult,
    EditMany,
    EditManyResult,
    EditTags,
    EraseImage,
    FreezeVersion,
    OrderTags,
    RemoveImage,
    RenameDataset,
    ReviewImages,
    SetCaption,
    SetRules,
    SetThresholds,
    Undo,
    VersionResult,
)
from contracts.commands.tagging import RequestTagging
from contracts.errors import Conflict, Gone, IllegalTransition, NotFound, Rejected
from contracts.events.datasets import TagsEdited
from contracts.events.tagging import (
    ImagePredictions,
    Prediction,
    TaggingAttemptStarted,
    TaggingPredicted,
    TaggingSucceeded,
)
from contracts.filter_text import parse_filter
from contracts.filters import AllImages, Matching, Selection, TheseImages
from contracts.ids import CommandId, DatasetId, ImageId, RunId, VersionId, WorkerId, ulid
from contracts.queries.base import Query
from contracts.queries.datasets import EditPreview, PreviewEdit
from tests.catalog.harness import CatalogHarness, png
from tests.catalog.plain_dataset import PlainDataset
from tests.limits import WAIT

IMAGES, MAX_IMAGES, TAGS, MODELS = 3, 6, ("cat", "dog", "sky"), ("wd", "other")
FILTERS = ("cat", "-dog", "cat OR sky", "untagged", "rejected:sky", "source:model", "conf:cat>=0.5", "captioned")
LASTING = ("freeze", "erase", "tag")
"""Actions whose commits cannot be undone; the run of a tag action can."""
REFUSED = (Conflict, Gone, IllegalTransition, NotFound, Rejected)
"""What the rules may answer to a client who was too late."""

ORDINAL, TAG, TAG_SET = st.integers(0, IMAGES - 1), st.sampled_from(TAGS), st.sets(st.sampled_from(TAGS), min_size=1)
CHOICE = st.sampled_from(["asserted", "rejected", "withdrawn"])
ACTION = st.one_of(
    st.tuples(st.just("edit"), ORDINAL, TAG_SET, CHOICE),
    st.tuples(st.just("edit many"), st.sampled_from(["all", "these", *FILTERS]), TAG_SET, CHOICE, st.booleans()),
    st.tuples(st.just("edit many"), st.sampled_from(FILTERS), TAG_SET, CHOICE, st.just(False)),
    st.tuples(st.just("edit more"), st.sampled_from(["range", "scattered"]), ORDINAL, TAG_SET, CHOICE),
    st.tuples(st.just("order"), ORDINAL, st.permutations(TAGS)),
    st.tuples(st.just("caption"), ORDINAL, st.sampled_from([None, "a cat", "another cat"])),
    st.tuples(st.just("review"), ORDINAL, st.booleans()),
    st.tuples(st.just("rename"), st.sampled_from(["one", "two"])),
    st.tuples(st.just("threshold"), st.floats(0.1, 0.9)),
    st.tuples(st.just("rules"), st.sets(TAG)),
    st.tuples(st.just("tag"), st.sampled_from(MODELS), st.dictionaries(TAG, st.floats(0.1, 0.99))),
    st.tuples(st.just("import"), st.sampled_from([None, "a written caption", "cat, dog"])),
    st.tuples(st.just("remove"), ORDINAL),
    st.tuples(st.just("erase"), st.integers(1, IMAGES - 1)),
    st.just(("freeze",)),
    st.tuples(st.just("undo"), st.integers(0, 20)),
    st.tuples(st.just("undo"), st.integers(0, 3)),
    st.tuples(st.just("undo run"), st.integers(0, 3)),
)
ROUNDS = st.lists(st.lists(ACTION, min_size=2, max_size=4), min_size=3, max_size=6)
"""The actions of a round are sent at the same time, each by a client of its own."""
_NAME_OF = {"asserted": "add", "rejected": "remove", "withdrawn": "withdraw"}


def many(kind: str, ordinal: int) -> list[int]:
    """Enough images, without one, that an edit of them is kept once; `scattered`: its set lies in a blob.

    Those that will be imported are not among them.
    """
    total = BULK + 2 * MAX_IMAGES if kind == "range" else 80_000
    rng, others = random.Random(7), range(2 * MAX_IMAGES, total)
    return [one for one in range(IMAGES) if one != ordinal] + [
        one for one in others if kind == "range" or one < BULK or rng.random() < 0.5
    ]


@dataclass
class Workshop:
    """A data set in a running catalog, and what was acknowledged to its clients."""

    harness: CatalogHarness
    dataset: DatasetId
    images: list[ImageId]
    acknowledged: list[tuple[Any, CommandResult]] = field(default_factory=list)
    edited: list[tuple[EditMany, EditManyResult]] = field(default_factory=list)
    runs: list[RunId] = field(default_factory=list)
    versions: list[VersionId] = field(default_factory=list)
    imported: int = IMAGES

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
            case ("edit more", kind, ordinal, tags, choice):
                decided: dict[str, Any] = {choice: tuple(sorted(tags))}
                return await self._record(TagsEdited(images=image_set(many(kind, ordinal)), **decided))
            case ("edit many", selected, tags, choice, is_previewed):
                command = EditMany(dataset=self.dataset, selection=self._selection(selected), **edit_of(tags, choice))
                return await self._edit_many(command, is_previewed=is_previewed)
            case ("tag", model, found):
                return await self._tag(model, found)
            case ("import", text):
                return await self._import(text)
            case _:
                result: CommandResult = await self.harness.execute(self._command(action))
                return result

    def _command(self, action: Any) -> Command[Any]:  # noqa: PLR0911 - a case for each command
        match action:
            case ("edit", ordinal, tags, choice):
                return EditTags(image=self.images[ordinal], **edit_of(tags, choice))
            case ("order", ordinal, tags):
                return OrderTags(image=self.images[ordinal], tags=tuple(tags))
            case ("caption", ordinal, text):
                return SetCaption(image=self.images[ordinal], caption=text)
            case ("review", ordinal, reviewed):
                these = TheseImages(ids=(self.images[ordinal],))
                return ReviewImages(dataset=self.dataset, selection=these, reviewed=reviewed)
            case ("rename", name):
                return RenameDataset(dataset=self.dataset, name=f"{name} {self.dataset}")
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
                commits = [one.sequence for (what, *_), one in self.acknowledged if one.changed and what not in LASTING]
                return Undo(dataset=self.dataset, commit=commits[-1 - back % len(commits)] if commits else 1)
        raise AssertionError(action)

    def _selection(self, selected: str) -> Selection:
        if selected == "all":
            return AllImages()
        return TheseImages(ids=(self.images[0],)) if selected == "these" else Matching(filter=parse_filter(selected))

    async def _edit_many(self, command: EditMany, *, is_previewed: bool) -> CommandResult:
        """With a preview it changes what that says, or nothing."""
        if not is_previewed:
            result = await self.harness.execute(command)
        else:
            edit: dict[str, Any] = {"add": command.add, "remove": command.remove, "withdraw": command.withdraw}
            query = PreviewEdit(dataset=self.dataset, selection=command.selection, **edit)
            preview: EditPreview = await self.ask(query)
            previewed = EditMany(dataset=self.dataset, selection=command.selection, **edit, as_of=preview.as_of)
            result = await self.harness.execute(previewed)
            assert (result.images, result.selected) == (preview.changed, preview.selected)
        if result.changed:
            self.edited.append((command, result))
        return result

    async def _record(self, event: TagsEdited) -> CommandResult:
        """An edit of more images than there are, as a command that holds the data set's lock."""

        async def decide() -> CommandOutcome:
            row = await self.harness.executor.store.read(lambda now: require_dataset(now, self.dataset))
            change = Change("dataset", self.dataset, [event], row.revision)
            return CommandOutcome(DatasetResult(id=self.dataset, name=row.name), [change])

        metadata = CommandMetadata(command_id=CommandId(ulid()), actor="ann", at=datetime.now(UTC))
        return await self.harness.executor.execute(metadata, Scope((self.dataset,)), decide)

    async def _import(self, text: str | None) -> CommandResult:
        """One more picture, with a text beside it or without."""
        number = self.imported = self.imported + 1
        if number > MAX_IMAGES:
            raise Rejected("enough")
        return await self.harness.import_files(self.dataset, self.harness.stage(f"{number}.png", png(number), text))

    async def _tag(self, model: str, found: Mapping[str, float]) -> CommandResult:
        """Request a run of all images, and do the tagger's part; each image is less sure than the one before."""
        result = await self.harness.execute(RequestTagging(dataset=self.dataset, model=model))
        started = TaggingAttemptStarted(worker=WorkerId("t1"), boot="b", resumes=0)
        attempt = await self.harness.append("tagging", result.id, started)
        images = tuple(
            ImagePredictions(
                ordinal=ordinal,
                predictions=tuple(
                    Prediction(tag=tag, probability=above * 0.9**ordinal) for tag, above in sorted(found.items())
                ),
            )
            for ordinal in range(IMAGES)
        )
        await self.harness.append("tagging", result.id, TaggingPredicted(attempt=attempt, images=images))
        await self.harness.append("tagging", result.id, TaggingSucceeded(attempt=attempt, images=len(images)))
        self.runs.append(RunId(result.id))
        return result

    async def ask(self, query: Query[Any]) -> Any:
        return await self.harness.catalog.queries[type(query)](query)

    async def model(self) -> PlainDataset:
        """Of all that is in the log, sets of images included, and that the read model shows."""
        store = self.harness.executor.store
        await store.wait_until_settled(store.applied, WAIT)
        runs = [("tagging", RunId(result.id)) for action, result in self.acknowledged if action[0] == "tag"]

        def read(log: Connection) -> Sequence[int]:
            aggregates = [("dataset", str(self.dataset)), *((kind, str(run)) for kind, run in runs)]
            return sequences_of(log, aggregates, after=0, last=last_sequence(log), limit=10_000)

        sequences = await self.harness.archive.read(read)
        return PlainDataset(await self.harness.catalog.context.commits(sequences))


def edit_of(tags: set[str], choice: str) -> dict[str, Any]:
    return {_NAME_OF[choice]: tuple(sorted(tags))}


@asynccontextmanager
async def workshop_in(harness: CatalogHarness) -> AsyncIterator[Workshop]:
    dataset = await harness.dataset(f"set {ulid()}")
    staged = [harness.stage(f"{number}.png", png(number)) for number in range(IMAGES)]
    result = await harness.import_files(dataset, *staged)
    yield Workshop(harness, dataset, [file.image for file in result.files])
