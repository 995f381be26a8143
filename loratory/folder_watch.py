"""Keeps a data set as a folder is: new and changed files are imported, and its texts written back if that is asked for.

The folder is looked at again and again, without reading a file that did not change: that works on every file system,
also across a network. What is deleted from the folder stays in the data set.
"""

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import NoReturn, TypeVar

import msgspec

from contracts.errors import LoratoryError, SetupError
from loratory.api.uploads import FirstTexts
from loratory.client import AsyncClient
from loratory.follow import format_import
from loratory.image_files import ScanResult, scan_folder
from loratory.imported_pictures import ImportedPictures
from loratory.responses import ImportSummary
from loratory.snapshot import Snapshot, take_snapshot, unsettled
from loratory.text_files import NEWER

T = TypeVar("T")
PICTURES_AT_ONCE = 1000
"""Pictures after which it is kept what was imported: a stop repeats at most these."""
MAX_SAID = 100_000
"""Problems that are remembered as said."""


@dataclass(frozen=True, kw_only=True)
class WatchTiming:
    """In seconds. `poll`: between two looks at the folder, at least; `settle`: without a change until a file is read.

    `write`: between two writings of texts, at least. `share`: the part of the time that looks may take; what reads
    files may take `busy_share`. `longest`: the longest time between two looks all the same.
    """

    poll: float = 2.0
    settle: float = 2.0
    write: float = 5.0
    share: float = 0.05
    busy_share: float = 0.3
    longest: float = 60.0


@dataclass(kw_only=True)
class FolderWatch:
    """`print_line` gets what was imported and written, and each problem once, until it is another one.

    `imported`: the pictures that need not be sent any more.
    """

    client: AsyncClient
    dataset: str
    folder: Path
    write_texts: bool = False
    print_line: Callable[[str], None]
    on_progress: Callable[[int, int], None] | None = None
    timing: WatchTiming = WatchTiming()
    imported: ImportedPictures = field(default_factory=ImportedPictures)
    _before: Snapshot = field(default_factory=dict)
    _seen: Snapshot = field(default_factory=dict)
    _texts: FirstTexts = field(default_factory=FirstTexts)
    _said: set[object] = field(default_factory=set)
    _problem: str = ""
    _pause: float = 0.0
    _write_after: float = 0.0
    _written_etag: int = 0

    async def run(self) -> NoReturn:
        """Until it is cancelled: the file that is being written then is whole, or as it was."""
        while True:
            self._pause = self.timing.poll
            await self.look()
            await asyncio.sleep(min(self._pause, self.timing.longest))

    async def look(self) -> None:
        """One round. A server that does not answer, or a folder that is gone, is waited for."""
        try:
            await self._import_changes()
            if self.write_texts:
                await self._write_changes()
        except (LoratoryError, OSError) as error:
            if str(error) != self._problem:
                self._problem = str(error)
                self.print_line(self._problem)
        else:
            self._problem = ""

    async def _import_changes(self) -> None:
        now = await self._timed(partial(take_snapshot, self.folder), self.timing.share)
        waiting, self._before = unsettled(now, self._before, self.timing.settle), now
        settled = {path: signature for path, signature in now.items() if path not in waiting}
        if all(self._seen.get(path) == signature for path, signature in settled.items()):
            return
        scan = await self._scan()
        stems = {Path(path).with_suffix("") for path in waiting}
        readable = [image for image in scan.images if image.path.with_suffix("") not in stems]
        changed = self.imported.are_new(readable, now)
        for start in range(0, max(1, len(changed)), PICTURES_AT_ONCE):
            part = changed[start : start + PICTURES_AT_ONCE]
            found = ScanResult(images=part) if start else replace(scan, images=part)
            summary = await self.client.import_scanned(
                self.dataset, found, once=self._texts, on_progress=self.on_progress
            )
            self.imported.add(part, now)
            self._print_import(summary)
        self._seen = settled

    async def _scan(self) -> ScanResult:
        """Nothing for a folder that has no pictures yet."""
        try:
            return await self._timed(partial(scan_folder, self.folder), self.timing.busy_share)
        except SetupError as error:
            if not self.folder.is_dir():
                raise
            self._print_new([str(error)])
            return ScanResult()

    async def _write_changes(self) -> None:
        """If something of the data set has changed since it was done last."""
        if time.monotonic() < self._write_after:
            return
        etag = (await self.client.dataset(self.dataset)).etag
        if etag == self._written_etag or not self.imported:
            return
        started = time.monotonic()
        result = await self.client.write_texts(self.dataset, self.folder)
        took = time.monotonic() - started
        self._write_after, self._written_etag = started + max(self.timing.write, took / self.timing.busy_share), etag
        # Else the next look would send their pictures again.
        self.imported.set_texts((text.picture, text.text) for text in result.written.values())
        if result.written:
            self.print_line(f"{len(result.written)} text files written")
        # What is newer is imported soon.
        left = [(name, reason) for name, reason in result.left if reason != NEWER]
        self._print_new(f"not written: {name}: {reason}" for name, reason in left)

    async def _timed(self, work: Callable[[], T], share: float) -> T:
        """The result of work in a thread, which is not done again before it took only this share of the time."""
        started = time.monotonic()
        result = await asyncio.to_thread(work)
        self._pause = max(self._pause, (time.monotonic() - started) / share)
        return result

    def _print_import(self, summary: ImportSummary) -> None:
        """What was imported, and of what was not imported that which is new."""
        news = msgspec.structs.replace(
            summary,
            unmatched=tuple(self._new(summary.unmatched)),
            unreadable=tuple(self._new(summary.unreadable)),
            other_files=0,
            outside_links=0,
            others=(),
            notes=tuple(self._new(summary.notes)),
        )
        if news.files or news.unmatched or news.unreadable or news.notes:
            for line in format_import(news):
                self.print_line(line)

    def _print_new(self, lines: Iterable[str]) -> None:
        for line in self._new(lines):
            self.print_line(line)

    def _new(self, items: Iterable[T]) -> list[T]:
        if len(self._said) > MAX_SAID:
            self._said.clear()
        found = [item for item in items if item not in self._said]
        self._said.update(found)
        return found
