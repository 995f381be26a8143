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
    Row,
    check_integrity,
    open_reader,
    open_writer,
    remove_database,
)
from catalog.keys import KEYS, KEYS_SCHEMA, Keys
from catalog.wal import in_memory
from contracts.errors import LogDamaged, SetupError
from contracts.ids import ImageId

TABLES = "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name = 'key'"
COLUMNS = "SELECT name FROM pragma_table_info(?)"
LOG_IDS = "SELECT log_id FROM log"
HAS_LOG_IDS = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'log'"
CONTENT = ("SELECT 1 FROM key LIMIT 1", "SELECT 1 FROM erased LIMIT 1", "SELECT 1 FROM signer")
ESSENTIAL = ("SELECT * FROM signer", "SELECT image_id FROM key LIMIT 1")
MARK_ERASED = "INSERT OR IGNORE INTO erased SELECT value FROM json_each(?)"
ERASED = "SELECT image_id FROM erased"
ADD_LOG_IDS = "INSERT OR IGNORE INTO log SELECT value FROM json_each(?)"
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
        with closing(open_reader(path)) as connection:
            KEYS_SCHEMA.check(connection)
            check_integrity(connection)
            found = log_ids(connection)
            if not found and not _has_content(connection):
                return "missing"
            return "intact" if not found or found & known_ids else "foreign"
    except SetupError as error:
        if not isinstance(error.__cause__, DatabaseError):
            raise
        return "unreadable"
    except DatabaseError:
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
    except DatabaseError:
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
        built = opened.enter_context(closing(open_writer(target, KEYS_SCHEMA.migrate, secure_delete=True)))
        read = [opened.enter_context(closing(open_reader(source))) for source in sources]
        built.execute("BEGIN IMMEDIATE")
        built.execute(MARK_ERASED, (_json(erased),))
        built.execute(ADD_LOG_IDS, (_json(known_ids),))
        for (table,) in built.execute(TABLES).fetchall():
            for source in read:
                _copy_rows(source, built, table, accepts)
        built.execute("COMMIT")
        built.execute("PRAGMA journal_mode = DELETE")


def read_content(path: Path) -> KeyFileContent:
    """Empty if the file is missing or unreadable."""
    if not path.is_file() or path.stat().st_size == 0:
        return KeyFileContent(frozenset(), frozenset())
    try:
        with closing(open_reader(path)) as connection:
            found = ({row[0] for row in _readable_rows(connection, query)} for query in (IMAGES, ERASED))
            return KeyFileContent(*map(frozenset, found))
    except (SetupError, DatabaseError):
        return KeyFileContent(frozenset(), frozenset())


def remove_damaged_keys(folder: Path) -> None:
    """Delete key files that were replaced because they were damaged, and unfinished ones: they may hold any key."""
    for pattern in (f"damaged-*-{KEYS}*", f".{KEYS}.draft*"):
        for file in folder.glob(pattern):
            file.unlink(missing_ok=True)


def _copy_rows(source: Connection, built: Connection, table: str, accepts: Accepts) -> None:
    """The rows of one table that `built` lacks. `key` comes last, when everything erased is known."""
    columns = [name for (name,) in built.execute(COLUMNS, (table,))]
    try:
        shared = [name for (name,) in source.execute(COLUMNS, (table,)) if name in columns]
    except DatabaseError:
        return
    if not shared:
        return
    erased = {row[0] for row in built.execute(ERASED)} if table == "key" else set()
    names, places = ", ".join(shared), ", ".join("?" for _ in shared)
    insert = f"INSERT OR IGNORE INTO {table} ({names}) VALUES ({places})"  # noqa: S608 - names of our own schema
    for row in _readable_rows(source, f"SELECT {names} FROM {table}"):  # noqa: S608 - names of our own schema
        if table == "key" and (row["image_id"] in erased or not accepts(row["image_id"], row["key"])):
            continue
        built.execute(insert, tuple(row))


def _readable_rows(connection: Connection, query: str) -> Iterator[Row]:
    """The rows up to the first that cannot be read."""
    try:
        yield from connection.execute(query)
    except DatabaseError:
        return


def log_ids(connection: Connection) -> frozenset[str]:
    """The logs that the keys were used with. Empty for a file from before they were stored."""
    if connection.execute(HAS_LOG_IDS).fetchone() is None:
        return frozenset()
    return frozenset(row[0] for row in connection.execute(LOG_IDS))


def _has_content(connection: Connection) -> bool:
    tables = {row[0] for row in connection.execute(TABLES)}
    return bool(tables) and any(connection.execute(query).fetchone() for query in CONTENT)


def _how_damaged(path: Path, known_ids: AbstractSet[str]) -> KeyFileState:
    """Whether the signing key and some keys can still be read."""
    try:
        with closing(open_reader(path)) as connection:
            for query in ESSENTIAL:
                connection.execute(query).fetchall()
            found = log_ids(connection)
    except (SetupError, DatabaseError):
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
