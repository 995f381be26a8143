"""Replacing a list of tags is a three-way merge: what a client changed in what it saw, applied to the current tags."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from catalog.domain.images import ImageState, decide
from contracts.commands.datasets import ReplaceTags
from contracts.events.datasets import TagsEdited
from contracts.ids import ImageId

TAGS = st.lists(st.sampled_from(["a", "b", "c", "d", "e", "f"]), unique=True)


def replaced(now: Sequence[str], seen: Sequence[str], proposed: Sequence[str]) -> tuple[str, ...]:
    """The tags of an image, all set by people, after a client that saw some tags has sent others."""
    image = ImageState(base=seen, asserted=frozenset(now))
    events = decide(image, ReplaceTags(image=ImageId("img_1"), tags=tuple(proposed)))
    tags = list(now)
    for event in events:
        assert isinstance(event, TagsEdited)
        tags = [
            tag for tag in dict.fromkeys((*tags, *event.asserted)) if tag not in (*event.rejected, *event.withdrawn)
        ]
    return tuple(tags)


def test_concurrent_edits_of_different_tags_are_both_kept() -> None:
    assert replaced(["a", "theirs"], seen=["a", "b"], proposed=["a", "b", "mine"]) == ("a", "theirs", "mine")


@given(TAGS, TAGS)
def test_without_a_concurrent_edit_the_merge_gives_the_proposed_tags(before: list[str], after: list[str]) -> None:
    assert set(replaced(before, before, after)) == set(after)


@given(TAGS, TAGS, TAGS)
def test_an_edit_changes_only_the_tags_it_names_and_is_idempotent(
    base: list[str], to: list[str], now: list[str]
) -> None:
    once = replaced(now, base, to)
    assert replaced(once, base, to) == once
    assert set(once) ^ set(now) <= set(base) ^ set(to)


@given(TAGS, TAGS, TAGS)
def test_concurrent_edits_of_the_same_base_commute(base: list[str], mine: list[str], theirs: list[str]) -> None:
    mine_first, theirs_first = replaced(base, base, mine), replaced(base, base, theirs)
    assert set(replaced(mine_first, base, theirs)) == set(replaced(theirs_first, base, mine))
