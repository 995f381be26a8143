"""Texts beside pictures: read as tags or captions, and compared three-way when the same picture is imported again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog.domain import received_texts
from catalog.domain.received_texts import TextState
from contracts.commands.datasets import (
    MAX_TEXT_BYTES_PER_IMPORT,
    EditTags,
    ImportedFile,
    ImportTexts,
    OrderTags,
    ReadTexts,
    SetCaption,
    Undo,
)
from contracts.errors import TooLarge
from contracts.events.base import ReadAs
from contracts.events.datasets import CaptionSet, TagsEdited, TagsOrdered, TextReceived
from contracts.filters import AllImages
from contracts.ids import DatasetId, ImageId
from contracts.queries.datasets import GetImage, ImageView
from contracts.texts.reading import read_text
from contracts.wire.log.event_log import EventLog
from tests.catalog.harness import CatalogHarness, event_names, png
from tests.catalog.test_bulk_edits import predict
from tests.catalog.test_watch import query

KEY = b"k" * 32


class Folder:
    """One picture in a folder that is imported again and again."""

    def __init__(self, harness: CatalogHarness, dataset: DatasetId) -> None:
        self.harness, self.dataset = harness, dataset

    async def import_text(self, text: str | None, read_as: ReadAs = "auto") -> ImportedFile:
        file = self.harness.stage("one.png", png(1), text=text)
        (result,) = (await self.harness.import_files(self.dataset, file, read_as=read_as)).files
        return result

    async def add_again(self, result: ImportedFile, tag: str) -> None:
        """By hand, a tag that the file gave."""
        await self.harness.execute(EditTags(image=result.image, remove=(tag,)))
        await self.harness.execute(EditTags(image=result.image, add=(tag,)))

    async def write_back(self, result: ImportedFile) -> str:
        """As the command line does: the text is received, and that once only."""
        view = await self.image(result)
        read_as: ReadAs = "tags" if view.caption_source == "tags" else "caption"
        command = ImportTexts(dataset=self.dataset, texts={result.image: view.training_text}, read_as=read_as)
        events = await self.events()
        await self.harness.execute(command)
        assert await self.events() == events + 1
        assert not (await self.harness.execute(command)).changed
        return view.training_text

    async def image(self, result: ImportedFile) -> ImageView:
        view: ImageView = await query(self.harness, GetImage(image=result.image))
        return view

    async def predict(self, result: ImportedFile, **probabilities: float) -> None:
        assert result.ordinal is not None
        await predict(self.harness, self.dataset, result.ordinal, **probabilities)

    async def events(self) -> int:
        return len(await self.harness.events("dataset", self.dataset))


@pytest.fixture
async def folder(harness: CatalogHarness) -> Folder:
    return Folder(harness, await harness.dataset())


async def test_a_text_becomes_tags_in_order_or_a_caption_and_is_kept_sealed(folder: Folder) -> None:
    imported = await folder.import_text("1girl, solo, bad_tag, saber \\(fate\\), 1girl")
    assert (imported.outcome, imported.text) == ("added", "tags")
    view = await folder.image(imported)
    assert [tag.tag for tag in view.tags] == ["1girl", "solo", "bad_tag", "saber_(fate)"]
    assert (view.caption_source, {tag.source for tag in view.tags}) == ("tags", {"import"})
    events = await folder.harness.events("dataset", folder.dataset)
    assert event_names(events)[1:] == ["ImageAdded", "TextReceived", "TagsEdited"]


async def test_a_caption_is_in_no_event_in_clear(folder: Folder) -> None:
    imported = await folder.import_text("A secret photograph of Anna Schmidt.")
    assert imported.text == "caption"
    assert (await folder.image(imported)).caption == "A secret photograph of Anna Schmidt."
    history = await EventLog(folder.harness.bus).load("dataset", folder.dataset)
    assert not [recorded.sequence for recorded in history.commits if b"secret" in recorded.body]


async def test_what_it_is_read_as_can_be_said(folder: Folder) -> None:
    imported = await folder.import_text("1girl, solo", "caption")
    assert (await folder.image(imported)).caption_source == "import"
    imported = await folder.import_text("1girl, solo", "tags")
    view = await folder.image(imported)
    assert (view.caption_source, [tag.tag for tag in view.tags]) == ("tags", ["1girl", "solo"])


async def test_the_same_folder_again_changes_nothing(folder: Folder) -> None:
    for text in ("1girl, solo", "A caption.", ""):
        await folder.import_text(text)
        before = await folder.events()
        imported = await folder.import_text(text)
        assert (imported.outcome, imported.conflicts) == ("existing", ())
        assert await folder.events() == before


async def test_only_what_the_file_changed_is_applied_and_never_over_a_person(folder: Folder) -> None:
    harness = folder.harness
    imported = await folder.import_text("1girl, solo, hat, smile")
    await harness.execute(EditTags(image=imported.image, add=("by_hand",), remove=("hat",)))
    again = await folder.import_text("1girl, solo, hat, smile")
    assert [tag.tag for tag in (await folder.image(again)).tags] == ["1girl", "solo", "smile", "by_hand"]

    await harness.execute(EditTags(image=imported.image, remove=("tree",)))
    changed = await folder.import_text("1girl, hat, smile, tree, sky")
    view = await folder.image(changed)
    assert {tag.tag for tag in view.tags} == {"1girl", "smile", "by_hand", "sky"}
    assert changed.conflicts == ("'tree' is new in the file, but was removed by hand",)
    await folder.import_text("1girl, hat, smile, tree, sky, flower")
    await folder.add_again(imported, "flower")
    removed = await folder.import_text("1girl, hat, smile, tree, sky")
    assert removed.conflicts == ("'flower' is gone from the file, but was added by hand",)
    assert {"flower", "by_hand"} <= {tag.tag for tag in (await folder.image(removed)).tags}


async def test_a_caption_that_a_person_changed_stays(folder: Folder) -> None:
    harness = folder.harness
    imported = await folder.import_text("A first caption.")
    changed = await folder.import_text("A second caption.")
    assert (await folder.image(changed)).caption == "A second caption."
    for by_hand in ("Written by hand.", None):
        await harness.execute(SetCaption(image=imported.image, caption=by_hand))
        before = (await folder.image(imported)).caption
        again = await folder.import_text(f"Another than {by_hand}.")
        assert again.conflicts == ("the caption is another one in the file, but was changed by hand",)
        assert (await folder.image(imported)).caption == before


async def test_the_order_of_the_file_holds_unless_a_person_set_one(folder: Folder) -> None:
    imported = await folder.import_text("1girl, solo, hat")
    await folder.import_text("hat, 1girl, smile, solo")
    assert [tag.tag for tag in (await folder.image(imported)).tags] == ["hat", "1girl", "smile", "solo"]
    await folder.harness.execute(OrderTags(image=imported.image, tags=("solo",)))
    await folder.import_text("smile, hat, 1girl, solo")
    assert (await folder.image(imported)).tags[0].tag == "solo"


async def test_captions_from_before_texts_were_kept_are_read_again(folder: Folder) -> None:
    """They stood beside the file, whatever they said."""
    file = folder.harness.stage("one.png", png(1), caption="1girl, solo, bad_tag")
    await folder.harness.import_files(folder.dataset, file)
    view = await folder.image(await folder.import_text("1girl, solo, bad_tag"))
    assert (view.caption_source, [tag.tag for tag in view.tags]) == ("tags", ["1girl", "solo", "bad_tag"])


async def test_an_undone_import_is_not_what_the_next_one_is_compared_with(folder: Folder) -> None:
    imported = await folder.import_text("1girl, solo")
    await folder.import_text("1girl, solo, hat")
    last = (await EventLog(folder.harness.bus).load("dataset", folder.dataset)).commits[-1].sequence
    await folder.harness.execute(Undo(dataset="cats", commit=last))
    assert [tag.tag for tag in (await folder.image(imported)).tags] == ["1girl", "solo"]
    await folder.import_text("1girl, solo, hat")
    assert [tag.tag for tag in (await folder.image(imported)).tags] == ["1girl", "solo", "hat"]


async def test_a_text_that_was_written_back_changes_nothing(folder: Folder) -> None:
    """Neither of a tag that only a model gives it, nor where the rule alone would take the list for a caption."""
    imported = await folder.import_text("1girl, solo, sks_dog")
    await folder.predict(imported, hat=0.9)
    await folder.harness.execute(EditTags(image=imported.image, add=("tree", "(o)"), remove=("1girl", "solo")))
    before = await folder.image(imported)
    assert before.caption == "sks dog, tree, (o), hat"
    again = await folder.import_text(before.caption)
    assert (again.text, again.conflicts) == ("tags", ())
    after = await folder.image(imported)
    assert [(tag.tag, tag.source) for tag in after.tags] == [(tag.tag, tag.source) for tag in before.tags]

    await folder.harness.execute(EditTags(image=imported.image, add=("sky",)))
    await folder.import_text(before.caption)
    assert (await folder.image(imported)).caption == "sks dog, tree, (o), sky, hat"


async def test_a_tag_of_a_model_that_is_taken_out_of_the_file_stays_out_until_it_comes_back(folder: Folder) -> None:
    imported = await folder.import_text("1girl, solo, smile")
    await folder.predict(imported, hat=0.9, smile=0.9)
    await folder.import_text("1girl, solo, smile, hat")
    for text, rejected in (("1girl, solo", {"hat", "smile"}), ("1girl, solo, hat", {"smile"})):
        changed = await folder.import_text(text)
        view = await folder.image(changed)
        assert (view.caption, set(view.rejected), changed.conflicts) == (text, rejected, ())


async def test_a_caption_that_was_written_back_leaves_the_tags_as_they_are(folder: Folder) -> None:
    imported = await folder.import_text("1girl, solo")
    await folder.harness.execute(SetCaption(image=imported.image, caption="A girl alone."))
    again = await folder.import_text("A girl alone.")
    view = await folder.image(again)
    assert (view.caption_source, [tag.tag for tag in view.tags]) == ("person", ["1girl", "solo"])


async def test_what_a_person_decided_before_it_was_written_back_is_the_files_from_then_on(folder: Folder) -> None:
    harness = folder.harness
    imported = await folder.import_text("1girl, solo, hat, smile")
    await folder.predict(imported, sky=0.9)
    await harness.execute(EditTags(image=imported.image, add=("tree", "sky"), remove=("hat",)))
    await harness.execute(OrderTags(image=imported.image, tags=("solo", "tree")))
    assert await folder.write_back(imported) == "solo, tree, 1girl, smile, sky"

    await folder.add_again(imported, "smile")
    changed = await folder.import_text("hat, 1girl, solo")
    view = await folder.image(changed)
    assert [tag.tag for tag in view.tags] == ["hat", "1girl", "solo", "smile"]
    assert (set(view.rejected), changed.conflicts) == (
        {"sky"},
        ("'smile' is gone from the file, but was added by hand",),
    )
    assert await folder.write_back(imported) == "hat, 1girl, solo, smile"
    await folder.import_text("hat, 1girl, solo")
    assert (await folder.image(imported)).caption == "hat, 1girl, solo"


async def test_a_caption_that_was_written_back_is_changed_in_its_file(folder: Folder) -> None:
    harness = folder.harness
    imported = await folder.import_text("A first caption.")
    for by_hand, in_file in (("By hand.", "In the file."), ("By hand again.", "Again."), (None, "A last one.")):
        await harness.execute(SetCaption(image=imported.image, caption=by_hand))
        await folder.write_back(imported)
        changed = await folder.import_text(in_file)
        assert ((await folder.image(imported)).caption, changed.conflicts) == (in_file, ())


async def test_what_the_last_text_does_not_say_stands_however_old_it_is(folder: Folder) -> None:
    harness = folder.harness
    imported = await folder.import_text("A first caption.")
    await harness.execute(SetCaption(image=imported.image, caption="By hand."))
    await harness.execute(EditTags(image=imported.image, remove=("hat",)))
    conflict = ("the caption is another one in the file, but was changed by hand",)
    assert (await folder.import_text("A second caption.")).conflicts == conflict
    assert (await folder.import_text("A third caption.")).conflicts == conflict
    tags = await folder.import_text("1girl, solo, hat", "tags")
    assert tags.conflicts == ("'hat' is new in the file, but was removed by hand", *conflict)
    assert (await folder.image(imported)).caption == "By hand."


async def test_a_text_that_is_read_another_way_was_not_received_again(folder: Folder) -> None:
    harness = folder.harness
    imported = await folder.import_text("1girl, solo, hat")
    await folder.add_again(imported, "hat")
    for read_as in ("caption", "tags"):
        await harness.execute(ReadTexts(dataset=folder.dataset, selection=AllImages(), read_as=read_as))
    changed = await folder.import_text("1girl, solo")
    assert changed.conflicts == ("'hat' is gone from the file, but was added by hand",)


async def test_a_reading_keeps_also_what_was_decided_before_the_text(folder: Folder) -> None:
    harness = folder.harness
    imported = await folder.import_text("1girl, solo")
    await harness.execute(EditTags(image=imported.image, add=("hat",)))
    await folder.write_back(imported)
    await harness.execute(ReadTexts(dataset=folder.dataset, selection=AllImages(), read_as="caption"))
    view = await folder.image(imported)
    assert ([tag.tag for tag in view.tags], view.caption) == (["hat"], "1girl, solo, hat")


async def test_a_write_back_that_was_undone_is_no_text_to_compare_with(folder: Folder) -> None:
    harness = folder.harness
    imported = await folder.import_text("1girl, solo")
    await harness.execute(EditTags(image=imported.image, add=("hat",)))
    await folder.write_back(imported)
    last = (await EventLog(harness.bus).load("dataset", folder.dataset)).commits[-1].sequence
    await harness.execute(Undo(dataset="cats", commit=last))
    changed = await folder.import_text("1girl")
    assert [tag.tag for tag in (await folder.image(changed)).tags] == ["1girl", "hat"]


async def test_texts_are_imported_without_their_pictures(folder: Folder) -> None:
    imported = await folder.import_text("1girl, solo, hat")
    texts = {imported.image: "1girl, solo, smile", ImageId("img_unknown"): "1girl"}
    result = await folder.harness.execute(ImportTexts(dataset=folder.dataset, texts=texts))
    known, unknown = result.files
    assert (known.outcome, known.text, unknown.outcome, unknown.reason) == (
        "existing",
        "tags",
        "refused",
        "no-such-image",
    )
    assert (await folder.image(imported)).caption == "1girl, solo, smile"
    before = await folder.events()
    await folder.import_text("1girl, solo, smile")
    assert await folder.events() == before


async def test_the_largest_import_of_texts_fits_in_a_commit(folder: Folder) -> None:
    imported = await folder.import_text(None)
    tags = ", ".join(f"{number:03}{'猫' * 15}" for number in range(990))
    assert len(tags) < 20_000 < MAX_TEXT_BYTES_PER_IMPORT < len(tags.encode())
    texts = {imported.image: tags}
    (result,) = (await folder.harness.execute(ImportTexts(dataset=folder.dataset, texts=texts, read_as="tags"))).files
    assert len((await folder.image(result)).tags) == 990
    two = {imported.image: "a" * 20_000, ImageId("a"): "あ" * 20_000}
    with pytest.raises(TooLarge, match="at most"):
        await folder.harness.execute(ImportTexts(dataset=folder.dataset, texts=two))


async def test_of_equal_files_in_one_import_the_first_text_counts(folder: Folder) -> None:
    stage = folder.harness.stage
    files = (
        stage("one.png", png(1), text="1girl, solo"),
        stage("twin.png", png(1), text="1girl, hat"),
        stage("again.png", png(1), text="1girl, solo"),
    )
    for _ in range(2):
        results = (await folder.harness.import_files(folder.dataset, *files)).files
        assert [tag.tag for tag in (await folder.image(results[0])).tags] == ["1girl", "solo"]
        assert "another text, which counts" in (results[1].detail or "")
        assert "another text" not in (results[2].detail or "")


TEXTS = st.lists(st.sampled_from(["hat", "smile", "sky", "tree", "1girl"]), max_size=4, unique=True).map(", ".join)
CAPTIONS = st.sampled_from(["A woman on a bench.", "Two dogs are playing."])


@given(first=TEXTS | CAPTIONS, second=TEXTS | CAPTIONS, third=TEXTS | CAPTIONS)
def test_without_a_person_the_image_is_what_its_file_says(first: str, second: str, third: str) -> None:
    """Each import is folded as the read model does."""
    state = TextState(ordinal=0)
    for text in (first, second, third):
        reading = read_text(text)
        decision = received_texts.decide(state, text, reading, KEY)
        assert not decision.conflicts
        decided, order, caption, base = dict(state.decided), state.order, state.caption, state.base
        for event in decision.events:
            match event:
                case TextReceived(text=sealed, read_as=read_as):
                    base = (sealed, read_as)
                case TagsEdited():
                    decided |= dict.fromkeys(event.asserted, ("asserted", "import"))
                    decided = {tag: one for tag, one in decided.items() if tag not in event.withdrawn}
                case TagsOrdered(tags=tags):
                    order = tags
                case CaptionSet(caption=sealed_caption):
                    caption = None if sealed_caption is None else reading.caption
                case _:
                    raise AssertionError(event)
        first_ones = [tag for tag in order if tag in decided]
        assert (*first_ones, *(tag for tag in decided if tag not in first_ones)) == reading.tags
        assert caption == reading.caption
        before = state.before if base is None else reading
        state = TextState(
            ordinal=0, base=base, before=before, decided=decided, order=order, shown=reading.tags, caption=caption
        )
        assert not received_texts.decide(state, text, reading, KEY).events
