"""Uploads are split into import commands that each fit in a message and a commit."""

from hypothesis import given
from hypothesis import strategies as st

from contracts.commands.datasets import MAX_FILES_PER_IMPORT, MAX_TEXT_BYTES_PER_IMPORT, StagedFile
from contracts.ids import Digest
from gateway.routes.imports import split_into_batches


def text_bytes(file: StagedFile) -> int:
    return len((file.name + (file.caption or "")).encode()) + sum(len(tag.encode()) for tag in file.tags)


@given(st.lists(st.tuples(st.integers(0, 20_000), st.integers(0, 3), st.integers(1, 1000)), max_size=100))
def test_files_are_split_into_batches_in_order(sizes: list[tuple[int, int, int]]) -> None:
    files = [
        StagedFile(
            token=str(number),
            name="猫" * name,
            digest=Digest("0" * 64),
            size=1,
            caption="ä" * length,
            tags=("tag",) * tags,
        )
        for number, (length, tags, name) in enumerate(sizes)
    ]
    batches = list(split_into_batches(files))
    assert [file for batch in batches for file in batch] == files
    for batch in batches:
        assert 1 <= len(batch) <= MAX_FILES_PER_IMPORT
        assert len(batch) == 1 or sum(map(text_bytes, batch)) <= MAX_TEXT_BYTES_PER_IMPORT
