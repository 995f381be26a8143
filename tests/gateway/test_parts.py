"""An upload is told in commands that each fit in a message and a commit."""

from hypothesis import given
from hypothesis import strategies as st

from contracts.commands import FILES_AT_ONCE, WORDS_AT_ONCE, StagedFile
from contracts.ids import Digest
from gateway.routes.datasets import _parts


def words_of(file: StagedFile) -> int:
    return len((file.caption or "").encode()) + sum(len(tag.encode()) for tag in file.tags)


@given(st.lists(st.tuples(st.integers(0, 20_000), st.integers(0, 3)), max_size=100))
def test_all_files_are_told_in_order_a_few_at_a_time(sizes: list[tuple[int, int]]) -> None:
    files = [
        StagedFile(
            token=str(number), name="x", digest=Digest("0" * 64), size=1, caption="ä" * length, tags=("tag",) * tags
        )
        for number, (length, tags) in enumerate(sizes)
    ]
    parts = list(_parts(files))
    assert [file for part in parts for file in part] == files
    for part in parts:
        assert 1 <= len(part) <= FILES_AT_ONCE
        assert len(part) == 1 or sum(map(words_of, part)) <= WORDS_AT_ONCE
