"""The key file as a whole: whether it is there, intact and of this workshop; and one file made of several."""

import random
import shutil
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

import pytest

from catalog.key_file import KeysDamaged, build_key_file, check_key_file, has_foreign_wal, key_file_state, read_content
from catalog.key_rows import TABLES, intact_rows
from catalog.keys import Keys, images_in, known_backups, open_key_reader
from catalog.mending import set_aside_foreign_wal
from catalog.wal import in_memory
from contracts.errors import SetupError
from contracts.ids import ImageId
from tests.conftest import NOW
from tests.damage import flip_bit_in_text, invert, truncate

OURS = frozenset({"01JFIRST", "01JRESTORED"})
ONE, TWO, THREE, FOUR = (ImageId(f"img_{number}") for number in (1, 2, 3, 4))


async def write_keys(
    file: Path, images: Iterable[ImageId], *, log_id: str = "01JFIRST", erased: Iterable[ImageId] = ()
) -> dict[ImageId, bytes]:
    async with await Keys.open(file) as keys:
        await keys.add_log_id(log_id)
        created = await keys.create_keys(images)
        if erased := [*erased]:
            await keys.destroy(erased)
        await keys.public_key()
    return created


def build(target: Path, *sources: Path, erased: Iterable[ImageId] = (), wrong: bytes = b"") -> None:
    build_key_file(target, sources, erased=[*erased], known_ids=OURS, accepts=lambda _image, key: key != wrong)


def keys_in(file: Path) -> dict[ImageId, bytes]:
    with closing(sqlite3.connect(file)) as connection:
        return dict(connection.execute("SELECT image_id, key FROM key"))


# --- what a file is


async def test_a_file_belongs_to_every_log_that_a_restore_made_of_its_own(tmp_path: Path) -> None:
    await write_keys(tmp_path / "keys.db", [ONE])

    assert key_file_state(tmp_path / "keys.db", OURS) == "intact"
    assert key_file_state(tmp_path / "keys.db", frozenset({"01JANOTHER"})) == "foreign"
    with pytest.raises(KeysDamaged, match="is that of another workshop") as refused:
        check_key_file(tmp_path / "keys.db", frozenset({"01JANOTHER"}), required=False)
    assert refused.value.extra == {"where": "all keys"}


async def test_a_missing_or_empty_file_is_refused_only_where_keys_were_needed(tmp_path: Path) -> None:
    empty, unused = tmp_path / "empty.db", tmp_path / "unused.db"
    empty.touch()
    await (await Keys.open(unused)).close()

    for file in (tmp_path / "missing.db", empty, unused):
        assert key_file_state(file, OURS) == "missing"
        check_key_file(file, OURS, required=False)
        with pytest.raises(KeysDamaged, match="is gone or empty"):
            check_key_file(file, OURS, required=True)


async def test_a_damaged_file_says_whether_some_of_it_can_be_read(tmp_path: Path) -> None:
    file = tmp_path / "keys.db"
    await write_keys(file, (ImageId(f"img_{number}") for number in range(500)))
    intact = file.read_bytes()
    invert(file, start=0.7, end=0.9)
    assert key_file_state(file, OURS) == "damaged"

    file.write_bytes(intact)
    truncate(file)
    with pytest.raises(KeysDamaged, match=r"is damaged"):
        check_key_file(file, OURS, required=True)

    file.write_bytes(b"no database" * 1000)
    assert key_file_state(file, OURS) == "unreadable"


async def test_a_file_of_a_newer_version_is_not_taken_for_a_damaged_one(tmp_path: Path) -> None:
    await write_keys(tmp_path / "keys.db", [ONE])
    with closing(sqlite3.connect(tmp_path / "keys.db")) as connection:
        connection.execute("PRAGMA user_version = 99")

    with pytest.raises(SetupError, match="upgrade Loratory"):
        check_key_file(tmp_path / "keys.db", OURS, required=True)


# --- one file of several


async def test_it_has_the_keys_of_all_files_minus_what_any_of_them_says_was_erased(tmp_path: Path) -> None:
    today, backup, merged = tmp_path / "today.db", tmp_path / "backup.db", tmp_path / "merged.db"
    ours = await write_keys(today, [ONE, TWO], erased=[TWO])
    theirs = await write_keys(backup, [ONE, TWO, THREE, FOUR], erased=[FOUR])

    build(merged, today, backup)

    assert keys_in(merged) == {ONE: ours[ONE], THREE: theirs[THREE]}
    assert read_content(merged).erased == {TWO, FOUR}
    assert key_file_state(merged, OURS) == "intact"
    assert not any(key in merged.read_bytes() for key in (theirs[TWO], theirs[FOUR]))  # not for a moment

    build(merged, today, backup, erased=[ONE])
    assert keys_in(merged) == {THREE: theirs[THREE]}


async def test_a_key_that_does_not_open_the_name_of_its_image_gives_way_to_one_that_does(tmp_path: Path) -> None:
    today, backup, merged = tmp_path / "today.db", tmp_path / "backup.db", tmp_path / "merged.db"
    ours, theirs = await write_keys(today, [ONE]), await write_keys(backup, [ONE])

    build(merged, today, backup, wrong=ours[ONE])

    assert keys_in(merged) == theirs


async def test_of_a_damaged_file_the_readable_keys_are_taken(tmp_path: Path) -> None:
    today, backup, merged = tmp_path / "today.db", tmp_path / "backup.db", tmp_path / "merged.db"
    images = [ImageId(f"img_{number:03}") for number in range(500)]
    ours = await write_keys(today, images)
    await write_keys(backup, images[:10])
    invert(today, start=0.7, end=0.9)

    build(merged, today, backup)

    found = keys_in(merged)
    assert 0 < len(found) < len(images)
    assert all(found[image] == ours[image] for image in found)
    assert set(images[:10]) <= found.keys()


# --- the list of backups beside the file


async def test_the_list_of_backups_outlives_the_key_file(tmp_path: Path) -> None:
    async with await Keys.open(tmp_path / "keys.db") as keys:
        await keys.register_backup(tmp_path / "backup", NOW)
    (tmp_path / "keys.db").unlink()
    assert [backup.path for backup in known_backups(tmp_path)] == [tmp_path / "backup"]

    (tmp_path / "backups.json").write_bytes(b"[")
    assert known_backups(tmp_path) == []


# --- the WAL of another key file


async def crashed_file(folder: Path, image: str, later: str) -> Path:
    """A key file with one key, and another one in its WAL only, as a killed catalog leaves it."""
    folder.mkdir()
    async with await Keys.open(folder / "open.db") as keys:
        await keys.create_keys([ImageId(image)])
    async with await Keys.open(folder / "open.db") as keys:
        await keys.create_keys([ImageId(later)])
        for suffix in ("", "-wal"):
            shutil.copyfile(folder / f"open.db{suffix}", folder / f"keys.db{suffix}")
    return folder / "keys.db"


async def test_the_wal_of_another_key_file_is_set_aside_before_it_is_applied(tmp_path: Path) -> None:
    ours, theirs = await crashed_file(tmp_path / "a", "a1", "a2"), await crashed_file(tmp_path / "b", "b1", "b2")
    assert not has_foreign_wal(ours)
    shutil.copyfile(theirs.with_name("keys.db-wal"), ours.with_name("keys.db-wal"))
    messages: list[str] = []

    assert key_file_state(ours, frozenset()) == "damaged"
    set_aside_foreign_wal(ours, at=NOW, report=messages.append)

    assert not has_foreign_wal(ours)
    assert images_in(ours) == {"a1"}
    (kept,) = ours.parent.glob("foreign-*-keys.db-wal")
    assert str(kept) in messages[0]


async def test_an_erasure_in_the_wal_is_no_sign_of_another_key_file(tmp_path: Path) -> None:
    async with await Keys.open(tmp_path / "open.db") as keys:
        await keys.create_keys([ImageId("a1"), ImageId("a2")])
    with closing(sqlite3.connect(tmp_path / "open.db", isolation_level=None)) as writer:
        writer.execute("DELETE FROM key WHERE image_id = 'a1'")
        writer.execute("INSERT INTO erased (image_id) VALUES ('a1')")
        for suffix in ("", "-wal"):
            shutil.copyfile(tmp_path / f"open.db{suffix}", tmp_path / f"keys.db{suffix}")

    assert not has_foreign_wal(tmp_path / "keys.db")


@pytest.mark.parametrize("cut", [0, 1, 100, 4_000])
async def test_a_wal_is_read_as_sqlite_reads_it(tmp_path: Path, cut: int) -> None:
    """Whole, and cut off within a transaction."""
    with closing(sqlite3.connect(tmp_path / "open.db", isolation_level=None)) as writer:
        writer.execute("PRAGMA journal_mode = WAL")
        writer.execute("CREATE TABLE t (x)")
        writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        for number in range(400):
            writer.execute("INSERT INTO t VALUES (?)", (f"{number}" * 20,))
        file, wal = (tmp_path / "open.db").read_bytes(), (tmp_path / "open.db-wal").read_bytes()
    wal = wal[: len(wal) - cut]
    (tmp_path / "cut.db").write_bytes(file)
    (tmp_path / "cut.db-wal").write_bytes(wal)

    with closing(sqlite3.connect(tmp_path / "cut.db")) as opened, closing(in_memory(file, wal)) as read:
        expected = opened.execute("SELECT x FROM t").fetchall()
        assert len(expected) == 400 - bool(cut)
        assert [tuple(row) for row in read.execute("SELECT x FROM t")] == expected
    with closing(in_memory(file)) as alone:
        assert alone.execute("SELECT x FROM t").fetchall() == []


# --- single changed bytes


async def test_a_changed_byte_in_a_key_is_noticed_and_the_key_is_never_used(tmp_path: Path) -> None:
    file = tmp_path / "keys.db"
    created = await write_keys(file, [ONE, TWO])
    flip_bit_in_text(file, created[ONE])

    assert key_file_state(file, OURS) == "intact"  # other images can be used
    assert images_in(file) == read_content(file).images == {TWO}
    async with await Keys.open(file) as keys:
        assert await keys.create_keys([ONE, TWO]) == await keys.keys_of([ONE, TWO]) == {TWO: created[TWO]}
        assert not await keys.erased_among([ONE])

    backup = tmp_path / "backup.db"
    theirs = await write_keys(backup, [ONE])
    build(tmp_path / "merged.db", file, backup)
    assert keys_in(tmp_path / "merged.db") == {ONE: theirs[ONE], TWO: created[TWO]}


@pytest.mark.parametrize(
    ("text", "state"),
    [("01JFIRST", "damaged"), (ONE, "damaged"), ("/mnt/disk", "damaged"), ("root", "unreadable")],
    ids=["log", "erased", "backup", "root-key"],
)
async def test_a_changed_byte_in_anything_but_a_key_is_damage(tmp_path: Path, text: str, state: str) -> None:
    file = tmp_path / "keys.db"
    await write_keys(file, [ONE, TWO], erased=[ONE])
    async with await Keys.open(file) as keys:
        await keys.register_backup(Path("/mnt/disk"), NOW)
        root = (await keys.root_key()).to_bytes()
    flip_bit_in_text(file, root if text == "root" else text.encode())

    assert key_file_state(file, OURS) == state


@pytest.mark.parametrize("number", [b"\0\0\0\0", b"\0\0\0\xfb", b"\xff\0\0\4"], ids=["older", "newer", "negative"])
async def test_a_changed_schema_number_is_damage_and_no_other_version(tmp_path: Path, number: bytes) -> None:
    file = tmp_path / "keys.db"
    created = await write_keys(file, [ONE])
    content = file.read_bytes()
    file.write_bytes(content[:60] + number + content[64:])

    assert key_file_state(file, OURS) == "damaged"
    build(tmp_path / "merged.db", file)
    assert keys_in(tmp_path / "merged.db") == created


@pytest.mark.slow
async def test_whatever_byte_changes_nothing_else_is_read(tmp_path: Path) -> None:
    """Damage is noticed, or all that is read is what was stored but for keys that are missing."""
    file, damaged = tmp_path / "keys.db", tmp_path / "damaged" / "keys.db"
    created = await write_keys(file, map(ImageId, "abcdefghij"), erased=[ImageId("j")])
    async with await Keys.open(file) as keys:
        await keys.register_backup(Path("/mnt/disk"), NOW)
        await keys.replace_root("abcd")
    content, expected = file.read_bytes(), rows_of(file)
    rng, missing = random.Random(7), 0
    for position in [position for position, byte in enumerate(content) if byte]:
        changed = content[position] ^ rng.randrange(1, 256)
        shutil.rmtree(damaged.parent, ignore_errors=True)  # with its WAL
        damaged.parent.mkdir()
        damaged.write_bytes(content[:position] + bytes([changed]) + content[position + 1 :])
        if key_file_state(damaged, OURS) == "intact":
            found = rows_of(damaged)
            assert found.pop("key") <= expected["key"], position
            assert found == {table: rows for table, rows in expected.items() if table != "key"}, position
            missing += len(created) - 1 - len(images_in(damaged) - {"j"})
    assert missing > 100


def rows_of(file: Path) -> dict[str, set[tuple[object, ...]]]:
    """What is read of each table."""
    with closing(open_key_reader(file)) as connection:
        return {
            table: {tuple(row[name] for name in columns) for row in intact_rows(connection, table)}
            for table, columns in TABLES.items()
        }
