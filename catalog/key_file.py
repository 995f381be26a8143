"""`keys.db` as a whole: whether it is there, intact, and of this workshop; and one file made of several.

It knows its log by lineage: it stores the ids of the logs that it was used with, and `log.restored` says which log
followed which. So an older copy of the same workshop's keys is accepted, and those of another are refused.
"""

import asyncio
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec

from catalog.database import (
    Connection,
    DatabaseError,
    FileCorrupt,
    Row,
    check_integrity,
    remove_database,
)
from catalog.key_rows import TABLES, count_damaged, intact_rows, row_digest
from catalog.keys import KEYS, UNREADABLE, Keys, check_schema, open_key_reader, open_key_writer
from catalog.wal import in_memory
from contracts.errors import LogDamaged, SetupError
from contracts.ids import ImageId

CONTENT = ("key", "erased", "signer")
MARK_ERASED = "INSERT OR IGNORE INTO erased SELECT value, row_digest('erased', value) FROM json_each(?)"
ERASED = "SELECT image_id FROM erased"
ADD_LOG_IDS = "INSERT OR IGNORE INTO log SELECT value, row_digest('log', value) FROM json_each(?)"
IMAGES = "SELECT image_id FROM key"

KeyFileState = Literal["intact", "missing", "damaged", "unreadable", "foreign"]
"""`damaged`: some of it can be read. `missing`: also an empty file, and one that nothing was ever stored in."""

Accepts = Callable[[ImageId, bytes], bool]
"""Whether this is the key of that image, as far as it is known."""


class KeysDamaged(LogDamaged):
    """The key file is lost or damaged as a whole; nothing is served without it."""


async def open_keys(folder: Path, lineage: AbstractSet[str], log_id: str, *, required: bool) -> Keys:
    """The keys that belong to the log `log_id`, open; `lineage`: that and the ids of the logs it was restored from.

    KeysDamaged: they are lost, although they are `required`. A log of more than its first commit requires them.
    """
    await asyncio.to_thread(check_key_file, folder / KEYS, lineage, required=required)
    keys = await Keys.open(folder / KEYS)
    try:
        if log_id:
            await keys.add_log_id(log_id)
    except BaseException:
        await keys.close()
        raise
    return keys


def check_key_file(path: Path, known_ids: AbstractSet[str], *, required: bool) -> None:
    """KeysDamaged unless it is intact and of the log with these ids, or missing and not yet `required`.

    SetupError: a newer version wrote it.
    """
    state = key_file_state(path, known_ids)
    if state == "intact" or (state == "missing" and not required):
        return
    where = "keys" if state == "damaged" else "all keys"
    raise KeysDamaged(f"{path} {_describe(state)}; without it, names and captions cannot be read", where=where)


def key_file_state(path: Path, known_ids: AbstractSet[str]) -> KeyFileState:
    """What this file is to the workshop whose log has these ids. SetupError: a newer version wrote it."""
    if not path.is_file() or path.stat().st_size == 0:
        return "missing"
    if has_foreign_wal(path):
        return "damaged"
    try:
        with closing(open_key_reader(path)) as connection:
            check_schema(connection)
            check_integrity(connection)
            _check_rows(connection)
            found = log_ids(connection)
            if not found and not _has_content(connection):
                return "missing"
            return "intact" if not found or found & known_ids else "foreign"
    except SetupError as error:
        if not isinstance(error.__cause__, DatabaseError):
            raise
        return "unreadable"
    except UNREADABLE:
        return _how_damaged(path, known_ids)


def has_foreign_wal(path: Path) -> bool:
    """Whether the WAL beside a key file is that of another one: with it, keys are gone that nothing calls erased.

    SQLite does not notice that, and would write what it says into the file.
    """
    files = (path, path.with_name(f"{path.name}-wal"))
    if not all(file.is_file() for file in files):
        return False
    read_at = [file.stat().st_mtime_ns for file in files]
    content, wal = (file.read_bytes() for file in files)
    if not wal or read_at != [file.stat().st_mtime_ns for file in files]:
        return False  # a running catalog writes to them, which has opened them already
    try:
        with closing(in_memory(content)) as alone, closing(in_memory(content, wal)) as both:
            before = {row[0] for row in alone.execute(IMAGES)}
            after = {row[0] for query in (IMAGES, ERASED) for row in both.execute(query)}
    except UNREADABLE:
        return False  # damaged in another way, or new
    return not before <= after


class KeyFileContent(NamedTuple):
    """The images whose keys can be read in a file, and those that it says were erased."""

    images: frozenset[ImageId]
    erased: frozenset[ImageId]


def build_key_file(
    target: Path, sources: Sequence[Path], *, erased: Collection[ImageId], known_ids: Iterable[str], accepts: Accepts
) -> None:
    """Write a new file with what all sources have, minus the keys of all that `erased` or any source names as erased.

    Where two differ, the first wins, unless its key is not accepted. Of a damaged source, what can be read is taken.
    """
    remove_database(target)
    with ExitStack() as opened:
        built = opened.enter_context(closing(open_key_writer(target)))
        read = [opened.enter_context(closing(open_key_reader(source))) for source in sources]
        built.execute("BEGIN IMMEDIATE")
        built.execute(MARK_ERASED, (_json(erased),))
        built.execute(ADD_LOG_IDS, (_json(known_ids),))
        for table in TABLES:
            for source in read:
                _copy_rows(source, built, table, accepts)
        built.execute("COMMIT")
        built.execute("PRAGMA journal_mode = DELETE")


def read_content(path: Path) -> KeyFileContent:
    """Empty if the file is missing or unreadable."""
    if not path.is_file() or path.stat().st_size == 0:
        return KeyFileContent(frozenset(), frozenset())
    try:
        with closing(open_key_reader(path)) as connection:
            found = ({row[0] for row in _readable_rows(connection, table)} for table in ("key", "erased"))
            return KeyFileContent(*map(frozenset, found))
    except (SetupError, *UNREADABLE):
        return KeyFileContent(frozenset(), frozenset())


def remove_damaged_keys(folder: Path) -> None:
    """Delete key files that were replaced because they were damaged, and unfinished ones: they may hold any key."""
    for pattern in (f"damaged-*-{KEYS}*", f".{KEYS}.draft*"):
        for file in folder.glob(pattern):
            file.unlink(missing_ok=True)


def _copy_rows(source: Connection, built: Connection, table: str, accepts: Accepts) -> None:
    """The rows of one table that `built` lacks. `key` comes last, when everything erased is known."""
    columns = TABLES[table]
    erased = {row[0] for row in built.execute(ERASED)} if table == "key" else set()
    insert = f"INSERT OR IGNORE INTO {table} VALUES ({'?, ' * len(columns)}?)"  # noqa: S608 - names of our own schema
    for row in _readable_rows(source, table):
        if table == "key" and (row["image_id"] in erased or not accepts(row["image_id"], row["key"])):
            continue
        values = [row[name] if name in row.keys() else "" for name in columns]  # noqa: SIM118 - as in `is_intact`
        built.execute(insert, (*values, row_digest(table, *values)))


def _readable_rows(connection: Connection, table: str) -> Iterator[Row]:
    """The intact rows up to the first that cannot be read."""
    try:
        yield from intact_rows(connection, table)
    except UNREADABLE:
        return


def log_ids(connection: Connection) -> frozenset[str]:
    """The logs that the keys were used with. Empty for a file from before they were stored."""
    return frozenset(row[0] for row in intact_rows(connection, "log"))


def _has_content(connection: Connection) -> bool:
    return any(next(intact_rows(connection, table), None) for table in CONTENT)


def _check_rows(connection: Connection) -> None:
    """FileCorrupt: a row has a wrong digest. A damaged key of an image counts as missing; all else is needed."""
    for table in TABLES:
        if table != "key" and count_damaged(connection, table):
            raise FileCorrupt(f"a row of the table {table} is damaged")


def _how_damaged(path: Path, known_ids: AbstractSet[str]) -> KeyFileState:
    """Whether the signing key and some keys can still be read."""
    try:
        with closing(open_key_reader(path)) as connection:
            next(intact_rows(connection, "key"), None)
            if count_damaged(connection, "signer"):
                return "unreadable"
            found = log_ids(connection)
    except (SetupError, *UNREADABLE):
        return "unreadable"
    return "damaged" if not found or found & known_ids else "foreign"


def _describe(state: KeyFileState) -> str:
    return {
        "missing": "is gone or empty",
        "damaged": "is damaged",
        "unreadable": "is damaged and cannot be read",
        "foreign": "is that of another workshop",
    }[state]


def _json(values: Iterable[str]) -> str:
    return msgspec.json.encode(list(values)).decode()
