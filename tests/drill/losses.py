"""A backup at a random moment, damage to keys and blobs, and what is lost after healing it from that backup."""

import asyncio
import os
import random
import re
import shutil
import sqlite3
import sys
import time
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from catalog.key_rows import TABLES
from catalog.keys import KEYS
from contracts.commits import RecordedCommit
from contracts.errors import LoratoryError
from contracts.events.datasets import ImageAdded
from loratory.services import CORE_SERVICES
from tests.drill.schedule import Fault
from tests.drill.stacks import READY_TIMEOUT_SECONDS, DrillStack, ProxiedStack

BACKUP_TRIES = 20
BACKUP_PAUSE_SECONDS = 3.0
"""Other faults may make a backup fail, such as a full disk."""
COMMAND_TIMEOUT_SECONDS = 300.0
MAX_LOST_FILES = 6
"""Files deleted by one fault."""
MAX_NAMES = 4
"""Lost keys and blobs that are named in one line; all are counted."""
MAX_NOTICE_CHARACTERS = 240
NOTICE_TIMEOUT_SECONDS = 20.0
"""Time for the first look at all files after a start."""
DIGEST = re.compile(r"[0-9a-f]{64}\Z")


@dataclass(frozen=True)
class Inventory:
    """The images that have a key, and the digests of all blobs."""

    keys: frozenset[str]
    blobs: frozenset[str]

    @classmethod
    def of(cls, data: Path) -> "Inventory":
        with closing(sqlite3.connect(f"file:{data / 'catalog' / 'keys.db'}?mode=ro", uri=True)) as connection:
            keys = frozenset(image for (image,) in connection.execute("SELECT image_id FROM key"))
        return cls(keys, blobs_in(data))


def blobs_in(data: Path) -> frozenset[str]:
    """The digests of all blobs."""
    return frozenset(file.name for file in (data / "blobs").rglob("*") if DIGEST.match(file.name))


def named_in_archive(data: Path, candidates: frozenset[str]) -> frozenset[str]:
    """Those of these ids and digests that a commit names; a writer that was killed leaves others behind."""
    named = "SELECT EXISTS (SELECT 1 FROM entry WHERE instr(body, CAST(? AS BLOB)))"
    with closing(sqlite3.connect(f"file:{data / 'catalog' / 'archive.db'}?mode=ro", uri=True)) as connection:
        return frozenset(one for one in candidates if connection.execute(named, (one,)).fetchone()[0])


@dataclass(frozen=True)
class Loss:
    """What one fault took away for good, because it is newer than the backup. `notice`: what the start before the
    healing said; empty: nothing."""

    fault: str
    notice: str
    keys: frozenset[str]
    blobs: frozenset[str]
    harmed: bool = True
    """False: all that a commit needs was there and equal, or was made again at once, so that nothing was missing."""

    def describe(self) -> str:
        lost = [*_named("keys of images", self.keys), *_named("blobs", self.blobs)]
        notice = self.notice or ("no" if self.harmed else "no, nothing was missing or changed")
        return f"{self.fault}: lost since the backup: {', '.join(lost) or 'nothing'}; noticed: {notice}"


@dataclass
class Losses:
    """All losses of a drill, in order, and what went wrong while they were healed."""

    backup_at: float | None = None
    """When the backup was complete, in seconds after the start of the faults."""
    found: list[Loss] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    @property
    def keys(self) -> frozenset[str]:
        return frozenset().union(*(loss.keys for loss in self.found))

    @property
    def blobs(self) -> frozenset[str]:
        return frozenset().union(*(loss.blobs for loss in self.found))

    def affected(self, commits: Iterable[RecordedCommit]) -> set[str]:
        """The images, data sets, jobs and runs whose history names a lost key or blob."""
        lost = [one.encode() for one in self.keys | self.blobs]
        found = set(self.keys)
        for recorded in commits if lost else ():
            if any(one in recorded.body for one in lost):
                found.add(recorded.commit.aggregate_id)
                added = (event for event in recorded.commit.events if isinstance(event, ImageAdded))
                found |= {event.image_id for event in added if self._took(event)}
        return found

    def _took(self, event: ImageAdded) -> bool:
        return event.image_id in self.keys or not self.blobs.isdisjoint((event.source, event.picture, event.thumbnail))


class Maintenance:
    """Makes the backup, and damages and heals the data folder while the stack is stopped."""

    def __init__(self, stack: DrillStack, folder: Path, losses: Losses) -> None:
        self._stack = stack
        self._backup = folder / "backup"
        self._aside = folder / "aside"
        self._losses = losses

    async def back_up(self, began: float) -> None:
        """While the stack runs. `began`: start of the faults, on a monotonic clock. LoratoryError: it never worked."""
        for _ in range(BACKUP_TRIES):
            if not (error := await self._loratory("backup", "create", str(self._backup))):
                self._losses.backup_at = time.monotonic() - began
                return
            await asyncio.sleep(BACKUP_PAUSE_SECONDS)
        raise LoratoryError(f"no backup could be made: {error}")

    async def inject(self, fault: Fault) -> Loss:
        """Stop, damage, start without healing, heal, start again."""
        data = self._stack.data
        async with self._stack.stopped():
            before = await asyncio.to_thread(Inventory.of, data)
            await asyncio.to_thread(self._damage, fault, before)
            harmed = fault.target == "keys" and await asyncio.to_thread(self._are_keys_harmed, fault, before)
            notice = await self._start_unhealed()
            harmed = harmed or await asyncio.to_thread(self._are_blobs_missing, before)
            await self._restore()
            try:
                after = await asyncio.to_thread(Inventory.of, data)
            except sqlite3.DatabaseError as error:
                raise LoratoryError(f"{fault}: healing left a keys.db that cannot be read ({error})") from error
            keys = await asyncio.to_thread(named_in_archive, data, before.keys - after.keys)
            blobs = await asyncio.to_thread(named_in_archive, data, before.blobs - after.blobs)
            await self._accept(keys, blobs)
        loss = Loss(str(fault), notice[:MAX_NOTICE_CHARACTERS], keys, blobs, harmed)
        self._losses.found.append(loss)
        return loss

    def _damage(self, fault: Fault, inventory: Inventory) -> None:
        rng, data = random.Random(fault.variant), self._stack.data
        if fault.target == "blobs":
            lost = rng.sample(sorted(inventory.blobs), min(len(inventory.blobs), rng.randint(1, MAX_LOST_FILES)))
            for file in (data / "blobs").rglob("*"):
                if file.name in lost:
                    file.unlink()
            return
        keys = data / "catalog" / "keys.db"
        _copy_key_file(data, self._aside / f"keys-{fault.number}")
        match rng.randrange(3):
            case 0:
                for file in keys.parent.glob("keys.db*"):
                    file.unlink()
            case 1:
                os.truncate(keys, keys.stat().st_size // 2)
            case _:
                _flip_bytes(keys, rng)

    def _are_blobs_missing(self, before: Inventory) -> bool:
        """Whether blobs that a commit needs are missing. After a start: thumbnails are made again within a second."""
        return bool(named_in_archive(self._stack.data, before.blobs - blobs_in(self._stack.data)))

    def _are_keys_harmed(self, fault: Fault, before: Inventory) -> bool:
        """Whether anything that a commit needs was taken or changed, compared with a copy from before the damage."""
        data = self._stack.data
        intact, damaged = (self._aside / f"{kind}-{fault.number}" for kind in ("keys", "damaged"))
        _copy_key_file(data, damaged)
        return not holds_same(damaged, intact, named_in_archive(data, before.keys))

    async def _start_unhealed(self) -> str:
        """What catalog and gateway say about the damage: why they refuse, or what is not well; empty: nothing.

        At another address, so that no client writes to a damaged data folder.
        """
        lines: list[str] = []
        unhealed = ProxiedStack(
            self._stack.data,
            environ=self._stack.environ,
            port=0,
            without=("tagger", "trainer"),
            print_line=lines.append,
        )
        try:
            async with unhealed as stack, httpx.AsyncClient(base_url=unhealed.address) as http:
                await stack.wait_ready(CORE_SERVICES, timeout=READY_TIMEOUT_SECONDS)
                return await _wait_noticed(http)
        except LoratoryError as error:
            return error.detail

    async def _restore(self) -> None:
        """What the backup holds."""
        await self._heal("restore", "--from", str(self._backup))

    async def _accept(self, keys: frozenset[str], blobs: frozenset[str]) -> None:
        """Give up what the backup does not hold."""
        for what, lost in (("images", keys), ("blobs", blobs)):
            if lost:
                await self._heal("accept-loss", what, "--yes")

    async def _heal(self, *command: str) -> None:
        if error := await self._loratory(*command):
            self._losses.errors.append(f"loratory {' '.join(command)}: {error}")

    async def _loratory(self, *arguments: str) -> str:
        """Run a command on the data folder; the last line of its errors, empty if it succeeded."""
        arguments = (*arguments, "--data", str(self._stack.data))
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "loratory", *arguments),
            env=self._stack.environ,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(COMMAND_TIMEOUT_SECONDS):
                _, errors = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode == 0:
            return ""
        return errors.decode(errors="replace").strip().rpartition("\n")[2] or f"exit code {process.returncode}"


async def _wait_noticed(http: httpx.AsyncClient) -> str:
    """What is not well, as soon as `/health` says so; empty if it does not within NOTICE_TIMEOUT_SECONDS."""
    deadline = time.monotonic() + NOTICE_TIMEOUT_SECONDS
    while time.monotonic() < deadline:
        services = (await http.get("/health")).json()["services"]
        details = [one["detail"] for one in services if one["detail"] and one["service"] not in {"tagger", "trainer"}]
        if details:
            return "; ".join(details)
        await asyncio.sleep(0.5)
    return ""


def _copy_key_file(data: Path, target: Path) -> None:
    """With its WAL: whoever opens it changes the files."""
    target.mkdir(parents=True)
    for file in (data / "catalog").glob("keys.db*"):
        shutil.copy2(file, target)


def holds_same(folder: Path, other: Path, needed: frozenset[str]) -> bool:
    """Whether two key files can be read and have equal rows; of keys only those of the images `needed` count."""
    found = _read_key_file(folder, needed)
    return found is not None and found == _read_key_file(other, needed)


def _read_key_file(folder: Path, needed: frozenset[str]) -> dict[str, set[tuple[object, ...]]] | None:
    """The rows of all tables, those of keys only of the images `needed`; none: it cannot be read."""
    if not (folder / KEYS).is_file():
        return None
    try:
        with closing(sqlite3.connect(folder / KEYS)) as connection:
            found = {table: set(connection.execute(f"SELECT * FROM {table}")) for table in TABLES}  # noqa: S608 - constants
    except (sqlite3.DatabaseError, UnicodeDecodeError):
        return None
    found["key"] = {row for row in found["key"] if row[0] in needed}
    return found


def _flip_bytes(file: Path, rng: random.Random) -> None:
    """In the first page, without which nothing can be read, and in two others."""
    with file.open("r+b") as opened:
        size = opened.seek(0, os.SEEK_END)
        for position in (rng.randrange(100), rng.randrange(size), rng.randrange(size)):
            opened.seek(position)
            (byte,) = opened.read(1)
            opened.seek(position)
            opened.write(bytes([byte ^ 0xFF]))


def _named(what: str, lost: frozenset[str]) -> list[str]:
    if not lost:
        return []
    names = [name[:12] for name in sorted(lost)]
    more = f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
    return [f"{len(lost)} {what} ({', '.join(names[:MAX_NAMES])}{more})"]
