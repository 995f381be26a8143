"""Four clients change one data set at once: live, past, replayed and frozen state are what a plain model says.

Whatever can go in slices does, so that commands and questions meet changes that are applied in part.
"""

import asyncio
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st

from catalog.database import Connection
from catalog.rebuild import rebuild
from catalog.views import decisions, sets
from contracts.commands.datasets import EraseDataset, FreezeVersion, UndoResult
from contracts.errors import LoratoryError
from contracts.events.datasets import VersionFrozen
from contracts.filters import AllImages, Matching, Selection
from contracts.queries.datasets import GetDataset, GetImage, ListImages, ListTags, ReadManifest
from contracts.sealed import CAPTION, open_sealed
from contracts.training_text import training_text
from tests.catalog.four_clients import ROUNDS, TAGS, Workshop, workshop_in
from tests.catalog.harness import CatalogHarness
from tests.catalog.plain_dataset import NOW, PlainDataset, PlainImage
from tests.catalog.slicing import smallest_slices
from tests.catalog.test_selection import PlainImage as SelectableImage
from tests.catalog.test_selection import selects

PHASES = (Phase.explicit, Phase.reuse, Phase.generate)
"""Concurrent actions come in another order each time, so a failure cannot be shrunk."""
FIXTURES = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]

Past = dict[int, dict[int, PlainImage]]
"""What images were, by sequence and ordinal."""


@pytest.fixture(autouse=True)
def _slices() -> Iterator[None]:
    with smallest_slices():
        yield


async def assert_live_and_past(workshop: Workshop, past: Past) -> None:
    """All images show now what the model says, and as of each earlier round what it said then."""
    model = await workshop.model()
    now = model.images()

    def read(connection: Connection) -> dict[int, tuple[str, ...]]:
        live = sets.load(connection, workshop.dataset, "live")
        return {ordinal: decisions.tag_names(connection, workshop.dataset, ordinal) for ordinal in live}

    assert await workshop.harness.executor.store.read(read) == {ordinal: image.tags for ordinal, image in now.items()}
    await assert_lists(workshop, model, now)
    await assert_images(workshop, model, NOW, now)
    past[model.commits[-1].sequence] = now
    for sequence, images in past.items():
        assert model.images(sequence) == images
        await assert_images(workshop, model, sequence, images)
        await assert_counts(workshop, model, sequence, images)


async def assert_images(workshop: Workshop, model: PlainDataset, sequence: int, images: dict[int, PlainImage]) -> None:
    """Each image by itself; those that were not there then are not found, those erased since are gone."""
    at_seq = None if sequence == NOW else sequence
    for ordinal, image_id in model.ids().items():
        query = GetImage(image=image_id, at_seq=at_seq)
        if ordinal not in images or ordinal in model.erased():
            with pytest.raises(LoratoryError):
                await workshop.ask(query)
        else:
            view = await workshop.ask(query)
            assert tuple(tag.tag for tag in view.tags) == images[ordinal].tags, (sequence, ordinal)
            assert sorted(view.rejected) == sorted(images[ordinal].having("rejected"))
            assert view.reviewed == images[ordinal].reviewed
            assert view.caption == await text_of(workshop, model, ordinal, images[ordinal])


async def assert_counts(workshop: Workshop, model: PlainDataset, sequence: int, images: dict[int, PlainImage]) -> None:
    """Of a data set, and the list of its images; without the images erased since."""
    kept = {ordinal: image for ordinal, image in images.items() if ordinal not in model.erased()}
    listed = await workshop.ask(ListImages(dataset=workshop.dataset, at_seq=sequence))
    assert [(view.ordinal, tuple(tag.tag for tag in view.tags)) for view in listed.items] == [
        (ordinal, kept[ordinal].tags) for ordinal in sorted(kept)
    ]
    view = await workshop.ask(GetDataset(dataset=workshop.dataset, at_seq=sequence))
    assert view.name == model.name(sequence)
    assert view.images == len(kept)
    assert view.tagged == sum(bool(image.tags) for image in kept.values())
    assert view.captioned == sum(image.caption is not None for image in kept.values())


async def assert_lists(workshop: Workshop, model: PlainDataset, images: dict[int, PlainImage]) -> None:
    shown = await workshop.ask(ListImages(dataset=workshop.dataset))
    assert [(view.ordinal, tuple(tag.tag for tag in view.tags)) for view in shown.items] == [
        (ordinal, images[ordinal].tags) for ordinal in sorted(images)
    ]
    counts = await workshop.ask(ListTags(dataset=workshop.dataset))
    expected = Counter(tag for image in images.values() for tag in image.tags)
    assert {one.tag: one.images for one in counts.items} == expected
    assert (await workshop.ask(GetDataset(dataset=workshop.dataset))).name == model.name()


async def text_of(workshop: Workshop, model: PlainDataset, ordinal: int, image: PlainImage) -> str:
    if image.caption is None:
        return training_text("", image.tags, None)
    key = await workshop.harness.keys.key_of(model.ids()[ordinal])
    assert key is not None
    return training_text("", image.tags, open_sealed(key, image.caption, CAPTION))


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


async def assert_edits_of_many(workshop: Workshop) -> None:
    """Each decided exactly about the images that its selection had at that moment."""
    model = await workshop.model()
    for command, result in workshop.edited:
        before, after = model.images(result.sequence - 1), model.images(result.sequence)
        selected = {ordinal for ordinal, image in before.items() if is_selected(command.selection, ordinal, image)}
        asked = dict.fromkeys(command.add, "asserted") | dict.fromkeys(command.remove, "rejected")
        asked |= dict.fromkeys(command.withdraw, "withdrawn")
        changed = {
            ordinal
            for ordinal in selected
            if any(before[ordinal].decision(tag) != choice for tag, choice in asked.items())
        }
        assert (len(selected), len(changed)) == (result.selected, result.images)
        for ordinal, image in after.items():
            expected = asked if ordinal in selected else {}
            for tag in TAGS:
                assert image.decision(tag) == expected.get(tag, before[ordinal].decision(tag)), (result, ordinal)


def is_selected(selection: Selection, ordinal: int, image: PlainImage) -> bool:
    match selection:
        case AllImages():
            return True
        case Matching(filter=filter_):
            return selects(filter_, selectable(image), [])
    return ordinal == 0


def selectable(image: PlainImage) -> SelectableImage:
    sources: Any = {tag: image.sources[tag] if image.decision(tag) == "asserted" else "model" for tag in image.tags}
    return SelectableImage(
        live=True,
        tags=sources,
        rejected=frozenset(image.having("rejected")),
        predicted=image.confidences,
        width=32,
        height=32,
        size=1,
        dhash=0,
        name="",
        caption="" if image.caption is None else "written",
        reviewed=image.reviewed,
        added=1,
    )


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
        page = await workshop.ask(ReadManifest(version_id=version))
        as_of, sequence = frozen[version]
        expected = {one: image for one, image in model.images(as_of).items() if one not in model.erased(sequence)}
        assert {line.ordinal for line in page.items} == expected.keys()
        for line in page.items:
            if line.ordinal not in model.erased():  # the text of an erased image cannot be read
                assert line.caption == await text_of(workshop, model, line.ordinal, expected[line.ordinal])


async def assert_states_agree(harness: CatalogHarness, folder: Path, rounds: list[list[Any]], erase_all: bool) -> None:
    note(repr(rounds))
    async with workshop_in(harness) as workshop:
        past: Past = {}
        for actions in rounds:
            await asyncio.gather(*(workshop.act(action) for action in actions))
            await assert_live_and_past(workshop, past)
        await assert_acknowledged(workshop)
        await assert_edits_of_many(workshop)
        await assert_frozen(workshop)
        if erase_all:
            await harness.execute(EraseDataset(dataset=workshop.dataset))
            with pytest.raises(LoratoryError):
                await harness.execute(FreezeVersion(dataset=workshop.dataset))
        target = folder / "again.db"
        target.unlink(missing_ok=True)
        report = await asyncio.to_thread(rebuild, folder / "data" / "catalog", target, lambda _: None)
        assert (report.state, report.difference) == ("same", None)


@settings(max_examples=3, phases=PHASES, suppress_health_check=FIXTURES)
@given(rounds=ROUNDS, erase_all=st.booleans())
async def test_live_past_replayed_and_frozen_state_agree(
    harness: CatalogHarness, tmp_path: Path, rounds: list[list[Any]], erase_all: bool
) -> None:
    await assert_states_agree(harness, tmp_path, rounds, erase_all)


@pytest.mark.slow
@settings(max_examples=30, phases=PHASES, suppress_health_check=FIXTURES)
@given(rounds=ROUNDS, erase_all=st.booleans())
async def test_they_agree_after_many_more_histories(
    harness: CatalogHarness, tmp_path: Path, rounds: list[list[Any]], erase_all: bool
) -> None:
    await assert_states_agree(harness, tmp_path, rounds, erase_all)
