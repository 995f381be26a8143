"""Texts as received, read another way: what a reading gave is withdrawn, what persons decided since stands."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog.domain import text_readings as rules
from catalog.domain.edits import Choice
from catalog.domain.image_sets import bitmap_of
from catalog.domain.received_texts import TextState
from catalog.domain.text_readings import KnownText
from contracts.commands.base import CommandMetadata
from contracts.commands.datasets import (
    EditTags,
    EraseImage,
    ImportedFile,
    ReadTexts,
    ReadTextsResult,
    SetCaption,
    TextCounts,
    Undo,
)
from contracts.errors import NotFound
from contracts.events.base import ReadAs, TextKind
from contracts.events.datasets import CaptionSet, TagsEdited, TagsOrdered, TextReceived
from contracts.filters import AllImages, TheseImages
from contracts.ids import CommandId
from contracts.queries.datasets import GetImage, ImageView, PreviewTexts
from contracts.sealed import TEXT, seal
from contracts.texts.reading import read_text
from tests.catalog.harness import CatalogHarness, event_names, png
from tests.catalog.test_watch import FOLDER, lose_keys, query

KEY = b"k" * 32
LIST, SENTENCE, NAMES = "1girl, solo, long hair", "A woman on a bench.", "anna, peter"


async def import_texts(harness: CatalogHarness, *texts: str | None, first: int = 0) -> list[ImportedFile]:
    """Pictures with these texts; `first`: the number of the first picture."""
    files = [harness.stage(f"{number}.png", png(number), text=text) for number, text in enumerate(texts, first)]
    return list((await harness.import_files("cats", *files)).files)


async def read(harness: CatalogHarness, read_as: ReadAs) -> ReadTextsResult:
    result = await harness.execute(ReadTexts(dataset="cats", selection=AllImages(), read_as=read_as))
    assert isinstance(result, ReadTextsResult)
    return result


async def said(harness: CatalogHarness, images: Sequence[ImportedFile]) -> list[tuple[tuple[str, ...], str | None]]:
    """Tags and written caption of each image."""
    views: list[ImageView] = [await query(harness, GetImage(image=one.image)) for one in images]
    return [
        (tuple(tag.tag for tag in view.tags), None if view.caption_source == "tags" else view.caption) for view in views
    ]


async def test_texts_are_read_another_way_and_back(harness: CatalogHarness) -> None:
    await harness.dataset()
    images = await import_texts(harness, LIST, SENTENCE, NAMES, None, LIST)
    as_imported = await said(harness, images)
    assert as_imported == [
        (("1girl", "solo", "long_hair"), None),
        ((), SENTENCE),
        ((), NAMES),
        ((), None),
        (("1girl", "solo", "long_hair"), None),
    ]
    as_tags = await read(harness, "tags")
    assert as_tags.counts == TextCounts(selected=5, tags=4, changed=2, without_text=1)
    assert as_tags.next is None
    assert (await said(harness, images))[1:3] == [(("a_woman_on_a_bench.",), None), (("anna", "peter"), None)]
    as_captions = await read(harness, "caption")
    assert as_captions.counts == TextCounts(selected=5, captions=4, changed=4, without_text=1)
    assert [caption for _, caption in await said(harness, images)] == [LIST, SENTENCE, NAMES, None, LIST]
    edits = [one for one in await harness.events("dataset", as_tags.id) if isinstance(one, TagsEdited)]
    assert [len(bitmap_of(one.images)) for one in edits if "solo" in one.withdrawn] == [2]  # equal ones share an event
    await read(harness, "auto")
    assert await said(harness, images) == as_imported
    assert not (await read(harness, "auto")).changed


async def test_the_same_folder_again_keeps_the_reading(harness: CatalogHarness) -> None:
    await harness.dataset()
    images = await import_texts(harness, NAMES)
    await read(harness, "tags")
    assert (await import_texts(harness, NAMES))[0].text == "tags"
    assert await said(harness, images) == [(("anna", "peter"), None)]


async def test_what_persons_decided_stands(harness: CatalogHarness) -> None:
    await harness.dataset()
    images = await import_texts(harness, LIST, SENTENCE, LIST)
    first, second, third = (one.image for one in images)
    await harness.execute(EditTags(image=first, add=("hat",), remove=("solo",)))
    await harness.execute(EditTags(image=first, withdraw=("1girl",)))
    await harness.execute(SetCaption(image=second, caption="By hand."))
    await harness.execute(SetCaption(image=third, caption="By hand."))
    await harness.execute(SetCaption(image=third, caption=None))
    result = await read(harness, "caption")
    assert (result.counts.changed, result.counts.kept) == (2, 1)
    assert await said(harness, images) == [(("hat",), LIST), ((), "By hand."), ((), None)]
    result = await read(harness, "tags")
    assert result.counts.kept == 2
    tags = "a_woman_on_a_bench."
    assert await said(harness, images) == [
        (("hat", "long_hair"), None),
        ((tags,), "By hand."),
        (("1girl", "solo", "long_hair"), None),
    ]


async def test_a_reading_is_undone_and_done_again(harness: CatalogHarness) -> None:
    await harness.dataset()
    images = await import_texts(harness, LIST, SENTENCE)
    before = await said(harness, images)
    result = await read(harness, "caption")
    await harness.execute(Undo(dataset="cats", commit=result.sequence))
    assert await said(harness, images) == before
    assert (await read(harness, "caption")).counts.kept == 0
    assert [caption for _, caption in await said(harness, images)] == [LIST, SENTENCE]


@pytest.mark.slow
async def test_many_texts_take_several_commits_that_are_undone_together(harness: CatalogHarness) -> None:
    await harness.dataset()
    long = ", ".join(f"a word number {number}" for number in range(800))
    images = [(await import_texts(harness, f"A text. {long}", first=number))[0] for number in range(5)]
    before = await said(harness, images)
    results, after = list[ReadTextsResult](), -1
    while not results or results[-1].next is not None:
        command = ReadTexts(dataset="cats", selection=AllImages(), read_as="tags", after=after)
        metadata = CommandMetadata(
            command_id=CommandId(f"read{after}"), actor="ann", at=datetime.now(UTC), correlation_id="one request"
        )
        result = await harness.catalog.commands[ReadTexts](metadata, command)
        assert isinstance(result, ReadTextsResult)
        results.append(result)
        after = result.next or 0
    assert 1 < len(results) < 5
    assert [
        sum(column) for column in zip(*((one.counts.selected, one.counts.tags) for one in results), strict=True)
    ] == [5, 5]
    undone = await harness.execute(Undo(dataset="cats", commit=results[1].sequence))
    assert undone.summary == "the reading of 5 texts"
    assert await said(harness, images) == before


async def test_images_without_a_key_are_left_alone_and_a_preview_changes_nothing(
    harness: CatalogHarness, tmp_path: Path
) -> None:
    await harness.dataset()
    erased, _ = await import_texts(harness, SENTENCE, NAMES)
    await harness.execute(EraseImage(image=erased.image))
    lose_keys(tmp_path / FOLDER)
    (kept,) = await import_texts(harness, NAMES + ", maria", first=2)
    preview = await query(harness, PreviewTexts(dataset="cats", selection=AllImages(), read_as="tags"))
    assert preview.counts == TextCounts(selected=2, tags=1, changed=1, without_key=1)
    assert preview.new_tags == ("anna", "peter", "maria")
    assert (await said(harness, [kept])) == [((), NAMES + ", maria")]
    assert (await read(harness, "tags")).counts == preview.counts
    with pytest.raises(NotFound):
        await harness.execute(ReadTexts(dataset="dogs", selection=TheseImages(ids=(kept.image,)), read_as="tags"))
    assert event_names(await harness.events("dataset", (await read(harness, "tags")).id))[-3:] == [
        "TextReceived",
        "CaptionSet",
        "TagsEdited",
    ]


WORDS = st.sampled_from(
    ["1girl", "solo", "hat", "score_9", "anna", "Anna", "a|b", "|||", "長い髪", "^_^", "", "The end."]
)
TEXTS = st.lists(WORDS, max_size=5).map(", ".join)


@given(st.lists(TEXTS, min_size=1, max_size=4))
def test_without_a_person_reading_back_gives_the_same(texts: list[str]) -> None:
    """Of images that were imported with these texts, folded as the read model does."""
    states = [_after_import(ordinal, text) for ordinal, text in enumerate(texts)]
    started = [(list(state.decided), state.caption) for state in states]
    for read_as in ("tags", "caption", "auto"):
        decision = rules.decide([_known(state, text) for state, text in zip(states, texts, strict=True)], read_as)
        assert decision.counts.kept == 0
        states = [_folded(state, text, decision.events) for state, text in zip(states, texts, strict=True)]
    assert [(list(state.decided), state.caption) for state in states] == started


def _known(state: TextState, text: str) -> KnownText:
    return KnownText(ordinal=state.ordinal, has_text=True, text=text, state=state, key=KEY)


def _after_import(ordinal: int, text: str) -> TextState:
    reading = read_text(text)
    decided: dict[str, tuple[Choice, str]] = dict.fromkeys(reading.tags, ("asserted", "import"))
    kind: TextKind = "tags" if reading.kind == "tags" else "caption"
    base = (seal(KEY, text, TEXT), kind)
    return TextState(ordinal=ordinal, base=base, before=reading, decided=decided, caption=reading.caption)


def _folded(state: TextState, text: str, events: Sequence[object]) -> TextState:
    decided, order, caption, base = dict(state.decided), tuple(state.order), state.caption, state.base
    for event in events:
        match event:
            case TextReceived(ordinal=state.ordinal, text=sealed, read_as=read_as):
                base = (sealed, read_as)
            case TagsEdited(images=images) if state.ordinal in bitmap_of(images):
                decided = {tag: one for tag, one in decided.items() if tag not in event.withdrawn}
                decided |= dict.fromkeys(event.asserted, ("asserted", "import"))
            case TagsOrdered(ordinal=state.ordinal, tags=tags):
                order = tags
            case CaptionSet(ordinal=state.ordinal, caption=sealed_caption):
                caption = None if sealed_caption is None else text.strip()
            case _:
                pass
    assert base is not None
    before = read_text(text, base[1])
    return TextState(ordinal=state.ordinal, base=base, before=before, decided=decided, order=order, caption=caption)
