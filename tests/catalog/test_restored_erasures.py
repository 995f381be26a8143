"""What was erased stays erased, in whatever order older keys, blobs and archives are restored."""

import shutil
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from catalog.archive.archive import open_archive
from catalog.backups import creation
from catalog.backups.extraction import restore_blobs
from catalog.database import peek
from catalog.entries import last_sequence
from catalog.key_file import read_content
from catalog.keys import Keys
from catalog.mending import mend, open_read_model, read_erased
from catalog.restoring import refill
from catalog.settings import Settings
from contracts import subjects
from contracts.commands.datasets import EraseImage
from contracts.ids import ImageId
from contracts.telemetry import LossBlock
from contracts.wire.service.bus import Bus
from tests.catalog.harness import CatalogHarness, open_catalog, png
from tests.conftest import NOW, BusOf

CAPTION = "Mrs Habakuk behind her gooseberries"
STEPS = tuple((part, backup) for part in ("keys", "blobs", "archive") for backup in ("before", "after"))
Step = tuple[str, str]


@dataclass
class Workshop:
    """A stopped workshop that erased one of two images, and two backups: `before` it, not registered, and `after`.

    `needles`: the key and the bytes of the erased image; `kept`: the other one.
    """

    home: Path
    needles: dict[str, bytes] = field(default_factory=dict)
    erased: str = ""
    kept: str = ""

    @property
    def data(self) -> Path:
        return self.home / "data"

    def settings(self, folder: Path) -> Settings:
        return Settings(
            catalog=folder / "catalog",
            blobs=str(folder / "blobs"),
            staging=folder / "staging",
            health_file=folder / "health.json",
        )

    async def create(self, bus: Bus) -> None:
        async with open_catalog(bus, self.data) as harness:
            cats = await harness.dataset()
            self.erased, self.kept = [await self._import(harness, cats, colour) for colour in (1, 2)]
            row, key = await harness.image(self.erased), await harness.keys.key_of(ImageId(self.erased))
            assert key is not None
            self.needles = {"key": key, "caption": CAPTION.encode()}
            for part in ("source", "picture", "thumbnail"):
                content = await harness.blobs.get(getattr(row, part))
                self.needles[part] = content[len(content) // 3 :][:48]
        await self._back_up("unregistered")
        async with await Keys.open(self.data / "catalog" / "keys.db") as keys:
            await keys.forget_backup(self.home / "unregistered")
        (self.home / "unregistered").rename(self.home / "before")
        async with open_catalog(bus, self.data) as harness:
            await harness.execute(EraseImage(image=ImageId(self.erased)))
        await self._back_up("after")

    async def _import(self, harness: CatalogHarness, dataset: str, colour: int) -> ImageId:
        caption = CAPTION if colour == 1 else "a cat"
        files = (harness.stage(f"secret {colour}.png", png(colour, (96, 64)), caption),)
        return (await harness.import_files(dataset, *files)).files[0].image

    async def _back_up(self, name: str) -> None:
        await creation.create(self.settings(self.data), self.home / name, clock=lambda: NOW, curves=no_curves())

    async def apply(self, step: Step, folder: Path) -> None:
        """Restore one part of one backup into a data folder."""
        part, backup = step[0], self.home / step[1]
        settings = self.settings(folder)
        match part:
            case "keys":
                await mend(settings, at=NOW, report=ignore, keys=backup / "keys.db")
            case "blobs":
                async with (
                    open_archive(settings.catalog) as archive,
                    open_read_model(settings, archive) as store,
                ):
                    erased = await store.read(read_erased)
                await restore_blobs(settings, backup, erased.blobs, ignore)
            case _:
                shutil.copyfile(backup / "archive.db", settings.catalog / "archive.db")

    def state(self, folder: Path) -> tuple[object, ...]:
        """Two folders of the same state behave the same at the next start."""
        blobs = frozenset(file.name for file in (folder / "blobs").rglob("*") if file.is_file())
        archived = peek(folder / "catalog" / "archive.db", last_sequence)
        return read_content(folder / "catalog" / "keys.db"), archived, blobs

    def found_in(self, folder: Path) -> dict[str, list[str]]:
        """The files that hold something of the erased image."""
        contents = {file.name: file.read_bytes() for file in folder.rglob("*") if file.is_file()}
        return {
            name: files
            for name, needle in self.needles.items()
            if (files := [file for file, content in contents.items() if needle in content])
        }


@pytest.mark.slow
async def test_in_every_order_of_restoring_parts_of_older_and_newer_backups(bus_of: BusOf, tmp_path: Path) -> None:
    bus, workshop = await bus_of("admin"), Workshop(tmp_path)
    await workshop.create(await bus_of("catalog"))
    assert workshop.found_in(tmp_path / "data") == {}
    assert workshop.found_in(tmp_path / "before").keys() == {"key", "source", "picture", "thumbnail"}

    brought_back = 0
    folders = [folder async for folder in reachable(workshop, STEPS)]
    assert len(folders) >= 3
    for folder in folders:
        brought_back += bool(workshop.found_in(folder))
        await bus.jetstream().delete_stream(subjects.EVENTS)
        await refill(bus, folder / "catalog", at=NOW, report=ignore)
        async with open_catalog(await bus_of("catalog"), folder) as harness:
            await harness.purger.purge_now()
            assert await harness.keys.key_of(ImageId(workshop.kept)) is not None
            assert (await harness.blobs.get((await harness.image(workshop.kept)).picture)) == png(2, (96, 64))
        assert workshop.found_in(folder) == {}
    assert brought_back  # blobs, by restores of an archive that lacks the erasure


async def reachable(workshop: Workshop, steps: tuple[Step, ...]) -> AsyncIterator[Path]:
    """A folder for each state that some order of some of the steps leads to."""
    waiting = [(workshop.data, frozenset(steps))]
    known = {(workshop.state(workshop.data), frozenset(steps))}
    states = {workshop.state(workshop.data)}
    numbers: Iterator[int] = iter(range(10_000))
    while waiting:
        folder, left = waiting.pop()
        for step in sorted(left):
            copy = workshop.home / f"state-{next(numbers)}"
            shutil.copytree(folder, copy)
            await workshop.apply(step, copy)
            state, rest = workshop.state(copy), left - {step}
            if (state, rest) in known:
                shutil.rmtree(copy)
                continue
            known.add((state, rest))
            waiting.append((copy, rest))
            if state not in states:
                states.add(state)
                final = workshop.home / f"final-{len(states)}"
                shutil.copytree(copy, final)
                yield final


async def no_curves() -> AsyncIterator[LossBlock]:
    for block in tuple[LossBlock, ...]():
        yield block


def ignore(_line: str) -> None:
    """Progress is not of interest here."""
