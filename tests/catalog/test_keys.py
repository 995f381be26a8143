"""Keys: created once, kept in their own file, readable only by its owner."""

import stat
import sys
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from catalog.keys import CAPTION, Keys, open_if_present
from contracts.ids import ImageId
from contracts.sealed import KEY_BYTES, NotOpened, seal
from tests.conftest import NOW

ONE, TWO = ImageId("img_1"), ImageId("img_2")


@pytest.fixture
async def keys(tmp_path: Path) -> AsyncIterator[Keys]:
    keys = Keys(tmp_path / "keys.db")
    yield keys
    await keys.close()


async def test_creating_a_key_again_returns_the_existing_one(keys: Keys) -> None:
    first = await keys.create_keys([ONE])

    again = await keys.create_keys([ONE, TWO])

    assert again[ONE] == first[ONE] == await keys.key_of(ONE)
    assert again[TWO] != again[ONE]
    assert len(again[TWO]) == KEY_BYTES


async def test_keys_are_persistent(keys: Keys, tmp_path: Path) -> None:
    created = await keys.create_keys([ONE, TWO])

    reopened = Keys(tmp_path / "keys.db")

    assert await reopened.keys_of([ONE, TWO, ImageId("img_3")]) == created
    await reopened.close()


async def test_text_of_an_image_without_a_key_is_empty(keys: Keys) -> None:
    created = await keys.create_keys([ONE])
    sealed = seal(created[ONE], "a cat", CAPTION)

    assert open_if_present(created, ONE, sealed, CAPTION) == "a cat"
    assert open_if_present({}, ONE, sealed, CAPTION) == ""
    with pytest.raises(NotOpened):
        open_if_present(created, ONE, sealed, "name")


async def test_backups_stay_registered_until_they_are_forgotten(keys: Keys, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    await keys.register_backup(two, NOW)
    await keys.register_backup(one, NOW + timedelta(seconds=1))
    await keys.register_backup(two, NOW + timedelta(seconds=2))  # updated

    assert [(backup.path, backup.at) for backup in await keys.backups()] == [
        (one, NOW + timedelta(seconds=1)),
        (two, NOW + timedelta(seconds=2)),
    ]

    await keys.forget_backup(one)
    await keys.forget_backup(one)

    assert [backup.path for backup in await keys.backups()] == [two]
    with pytest.raises(ValueError, match="not absolute"):
        await keys.register_backup(Path("here"), NOW)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no mode bits")
async def test_only_the_owner_can_read_the_files(keys: Keys, tmp_path: Path) -> None:
    await keys.create_keys([ONE])

    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.glob("keys.db*")}

    assert set(modes.values()) == {0o600}
    assert "keys.db-wal" in modes
