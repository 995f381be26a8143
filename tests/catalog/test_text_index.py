"""The index of names and captions: what it finds, what it keeps up with, what it forgets, how much it may take."""

import gc
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from pyroaring import BitMap

from catalog import views
from catalog.domain.ordering import NameKeys
from catalog.keys import Keys
from catalog.store import Store
from catalog.text_index import DatasetTexts, TextIndexes, TextLimits, fold
from contracts.errors import Rejected
from contracts.events.base import Event
from contracts.events.datasets import CaptionSet, DatasetErased, DatasetRemoved, ImageErased
from contracts.filters import TextField
from contracts.ids import DatasetId, ImageId
from contracts.sealed import CAPTION, seal
from tests.catalog.log_builder import LOG_ID, LogBuilder, image_id, key_for
from tests.catalog.test_query_handlers import create_keys

CATS, DOGS = DatasetId("ds_cats"), DatasetId("ds_dogs")
LIMITS = TextLimits(memory=10**6, slice=2)


@dataclass
class Texts:
    """Indexes over a store that a test fills, and the log it comes from."""

    store: Store
    keys: Keys
    builder: LogBuilder
    indexes: TextIndexes

    async def append(self, *events: Event, dataset: str = CATS) -> None:
        await self.store.apply([self.builder.append("dataset", dataset, *events)])

    async def search(self, text: str, field: TextField = "any", dataset: DatasetId = CATS) -> list[int]:
        texts = await self.indexes.of(dataset)
        return list(texts.search(text, field, BitMap(range(100))))


def caption(ordinal: int, text: str | None, dataset: str = CATS) -> CaptionSet:
    sealed = None if text is None else seal(key_for(image_id(dataset, ordinal)), text, CAPTION)
    return CaptionSet(ordinal=ordinal, caption=sealed)


def is_kept(texts: object, text: str) -> bool:
    """Whether a text of the indexes contains it: of all that can be reached, without the store and other services."""
    containers = (TextIndexes, DatasetTexts, NameKeys, dict, list, tuple, set)
    seen, pending = set[int](), [texts]
    while pending:
        one = pending.pop()
        if isinstance(one, str) and text in one:
            return True
        if isinstance(one, containers) and id(one) not in seen:
            seen.add(id(one))
            pending += gc.get_referents(one)
    return False


@pytest.fixture
async def texts(tmp_path: Path) -> AsyncIterator[Texts]:
    """Five images `cat 0.png` … in one data set, the second with a caption; one in another."""
    builder = LogBuilder()
    builder.create_dataset()
    builder.create_dataset(DOGS, "dogs")
    for ordinal in range(5):
        builder.add_image(ordinal)
    builder.add_image(0, DOGS)
    builder.append("dataset", CATS, caption(1, "A Red Café"))
    async with Store(tmp_path / "read.db", LOG_ID, views) as store, await Keys.open(tmp_path / "keys.db") as keys:
        create_keys(tmp_path, [*(image_id(CATS, ordinal) for ordinal in range(8)), image_id(DOGS, 0)])
        await store.apply(builder.commits)
        yield Texts(store, keys, builder, TextIndexes(store, keys, LIMITS))


async def test_names_and_captions_are_found_in_upper_and_lower_case(texts: Texts) -> None:
    assert await texts.search("CAT 3") == [3]
    assert await texts.search("red cafe\u0301") == [1]
    assert await texts.search("red", "name") == []
    assert await texts.search("cat", "caption") == []
    assert await texts.search("a") == [0, 1, 2, 3, 4]
    assert await texts.search("png\0") == []


async def test_a_search_among_few_images_finds_the_same(texts: Texts) -> None:
    found = await texts.indexes.of(CATS)
    every = found.search("cat", "any", BitMap(range(5)))
    assert [list(found.search("cat", "any", BitMap([at]))) for at in every] == [[at] for at in every]
    assert list(found.search("cat", "any", BitMap([77]))) == []


@pytest.mark.parametrize(("one", "other"), [("STRASSE", "straße"), ("é", "E\u0301"), ("İ", "i\u0307")])
def test_texts_that_read_the_same_fold_to_the_same(one: str, other: str) -> None:
    assert fold(one) == fold(other)


async def test_the_index_keeps_up_with_what_changes(texts: Texts) -> None:
    assert await texts.search("blue") == []
    await texts.append(caption(2, "a blue hat"), caption(0, "blue"))
    assert await texts.search("blue") == [0, 2]
    await texts.append(caption(2, "a green hat"), caption(0, None))
    assert await texts.search("blue") == []
    await texts.store.apply([texts.builder.add_image(5)])
    assert await texts.search("cat 5") == [5]
    assert (await texts.indexes.of(CATS)).marks == {}


async def test_a_change_that_the_read_model_does_not_show_yet_is_not_forgotten(texts: Texts) -> None:
    assert await texts.search("blue") == []
    recorded = texts.builder.append("dataset", CATS, caption(2, "a blue hat"))
    for observe in texts.store.before_apply:
        observe([recorded])
    assert await texts.search("blue") == []
    await texts.store.apply([recorded])
    assert await texts.search("blue") == [2]


async def test_nothing_of_an_erased_image_is_left(texts: Texts) -> None:
    await texts.append(caption(3, "my secret garden"))
    found = await texts.indexes.of(CATS)
    assert found.name_keys().by_ordinal[3]
    assert is_kept(texts.indexes, "secret")
    assert is_kept(texts.indexes, "cat 3")
    await texts.append(ImageErased(ordinal=3, image_id=image_id(CATS, 3)))
    assert not is_kept(texts.indexes, "secret")
    assert not is_kept(texts.indexes, "cat 3")
    assert not is_kept(found.name_keys(), "cat 00013")
    assert await texts.search("cat") == [0, 1, 2, 4]


def test_what_a_build_read_before_the_erasure_is_ignored() -> None:
    building = DatasetTexts()
    building.put(0, "a.png", "first")
    building.erase(1)
    building.put(1, "b.png", "second")
    assert list(building.search("png", "any", BitMap([0, 1]))) == [0]
    assert not is_kept(building, "second")


@pytest.mark.parametrize("event", [DatasetErased(), DatasetRemoved()])
async def test_nothing_of_an_erased_or_removed_data_set_is_left(texts: Texts, event: Event) -> None:
    held = await texts.indexes.of(CATS)
    await texts.append(event)
    assert not is_kept(texts.indexes, "cat")
    assert not is_kept(held, "cat")
    assert texts.indexes.bytes == 0


async def test_memory_is_counted_and_the_data_set_used_longest_ago_is_dropped(texts: Texts) -> None:
    await texts.indexes.of(DOGS)
    of_dogs = texts.indexes.bytes
    await texts.indexes.of(CATS)
    of_both = texts.indexes.bytes
    assert of_both > of_dogs > 50
    small = TextIndexes(texts.store, texts.keys, TextLimits(memory=of_both - of_dogs, slice=2))
    await small.of(DOGS)
    await small.of(CATS)
    assert small.bytes == of_both - of_dogs
    await small.of(DOGS)
    assert small.bytes == of_dogs


async def test_the_memory_of_sort_keys_is_counted_too(texts: Texts) -> None:
    found = await texts.indexes.of(CATS)
    before = found.bytes
    found.name_keys()
    assert found.bytes > before + 5 * 50
    found.put(0, "other.png", "")
    assert found.bytes <= before + 10


async def test_texts_that_do_not_fit_are_refused_and_not_kept(texts: Texts) -> None:
    small = TextIndexes(texts.store, texts.keys, TextLimits(memory=300, slice=2))
    with pytest.raises(Rejected, match="LORATORY_TEXT_INDEX_BYTES"):
        await small.of(CATS)
    assert small.bytes == 0


async def test_an_image_without_a_key_has_no_texts(texts: Texts, tmp_path: Path) -> None:
    await texts.keys.destroy([ImageId(image_id(CATS, 1))])
    assert await texts.search("red") == []
    assert await texts.search("cat") == [0, 2, 3, 4]


async def test_a_damaged_text_hides_only_its_own_image(texts: Texts) -> None:
    await texts.append(CaptionSet(ordinal=2, caption=b"damaged, and long enough to be opened"))
    assert await texts.search("cat") == [0, 1, 2, 3, 4]
    assert await texts.search("damaged") == []
