"""Sets of images as they are stored."""

from hypothesis import given
from hypothesis import strategies as st
from pyroaring import BitMap

from catalog.views.bitmaps import CONTAINER, serialize

ORDINALS = st.sets(st.integers(0, 12) | st.integers(CONTAINER - 3, CONTAINER + 3))
STEPS = st.lists(st.tuples(st.sampled_from(["add", "remove"]), ORDINALS), max_size=6)


@given(STEPS)
def test_equal_sets_give_equal_bytes_however_they_were_made(steps: list[tuple[str, set[int]]]) -> None:
    """Also where an array and runs take the same number of bytes, as of 4, 5, 6."""
    images = BitMap()
    for step, ordinals in steps:
        images = images | BitMap(ordinals) if step == "add" else images - BitMap(ordinals)
        images = BitMap.deserialize(serialize(images))
    assert serialize(images) == serialize(BitMap(list(images)))
    assert BitMap.deserialize(serialize(images)) == images


def test_a_large_set_of_runs_and_a_small_container() -> None:
    images = BitMap(range(CONTAINER)) | BitMap(range(CONTAINER, CONTAINER + 9))
    rest = BitMap.deserialize(serialize(images)) - BitMap(range(CONTAINER + 3, CONTAINER + 9))
    assert serialize(rest) == serialize(BitMap([*range(CONTAINER + 3)]))
