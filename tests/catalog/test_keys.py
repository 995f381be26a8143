"""Keys: made once, kept apart, readable by their owner only."""

import stat
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from catalog.keys import CAPTION, Keys, opened
from contracts.ids import ImageId
from contracts.sealed import KEY_BYTES, NotOpened, seal

ONE, TWO = ImageId("img_1"), ImageId("img_2")


@pytest.fixture
async def keys(tmp_path: Path) -> AsyncIterator[Keys]:
    keys = Keys(tmp_path / "keys.db")
    yield keys
    await keys.close()


async def test_a_repeated_command_gets_the_key_it_got_before(keys: Keys) -> None:
    first = await keys.new_keys([ONE])

    again = await keys.new_keys([ONE, TWO])

    assert again[ONE] == first[ONE] == await keys.key_of(ONE)
    assert again[TWO] != again[ONE]
    assert len(again[TWO]) == KEY_BYTES


async def test_keys_outlive_the_process(keys: Keys, tmp_path: Path) -> None:
    made = await keys.new_keys([ONE, TWO])

    later = Keys(tmp_path / "keys.db")

    assert await later.keys_of([ONE, TWO, ImageId("img_3")]) == made
    await later.close()


async def test_an_image_without_a_key_has_no_text_any_more(keys: Keys) -> None:
    made = await keys.new_keys([ONE])
    sealed = seal(made[ONE], "a cat", CAPTION)

    assert opened(made, ONE, sealed, CAPTION) == "a cat"
    assert opened({}, ONE, sealed, CAPTION) == ""
    with pytest.raises(NotOpened):
        opened(made, ONE, sealed, "name")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no mode bits")
async def test_only_the_owner_reads_the_files(keys: Keys, tmp_path: Path) -> None:
    await keys.new_keys([ONE])

    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.glob("keys.db*")}

    assert set(modes.values()) == {0o600}
    assert "keys.db-wal" in modes
