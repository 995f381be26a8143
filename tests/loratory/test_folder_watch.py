"""A data set that follows a folder: what is imported, what is written back, and what is said about it."""

import os
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
from PIL import Image

from contracts.errors import SetupError
from loratory import AsyncClient
from loratory.folder_datasets import FolderDatasets, require_apart
from loratory.folder_watch import FolderWatch, WatchTiming
from loratory.imported_pictures import ImportedPictures
from loratory.snapshot import take_snapshot, unsettled

AT_ONCE = WatchTiming(settle=0, write=0, busy_share=1e9)


@dataclass
class Watched:
    client: AsyncClient
    folder: Path
    dataset: str
    lines: list[str] = field(default_factory=list)

    def watch(
        self, *, write_texts: bool = False, timing: WatchTiming = AT_ONCE, state: Path | None = None, log: str = ""
    ) -> FolderWatch:
        return FolderWatch(
            client=self.client,
            dataset=self.dataset,
            folder=self.folder,
            write_texts=write_texts,
            print_line=self.lines.append,
            timing=timing,
            imported=ImportedPictures(state, log),
        )

    def picture(self, name: str, colour: str, text: str | None = None) -> Path:
        file = self.folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (32, 32), colour).save(file)
        if text is not None:
            file.with_suffix(".txt").write_text(text)
        return file

    async def texts(self) -> list[str]:
        return [image.caption for image in await self.client.images(self.dataset)]

    async def etag(self) -> int:
        return (await self.client.dataset(self.dataset)).etag

    def take_lines(self) -> list[str]:
        lines, self.lines[:] = [*self.lines], []
        return lines


@pytest.fixture
async def watched(server_url: str, tmp_path: Path) -> AsyncIterator[Watched]:
    async with AsyncClient(server_url) as client:
        folder = tmp_path / "girl"
        folder.mkdir()
        dataset = await client.create_dataset(f"watched {tmp_path.name}")
        yield Watched(client, folder.resolve(), dataset.id)


async def test_new_and_changed_files_are_imported_and_nothing_twice(watched: Watched) -> None:
    watch = watched.watch()
    await watch.look()
    assert await watched.texts() == []
    watched.picture("a.png", "red", "1girl, hat")
    watched.picture("b.png", "blue")
    await watch.look()
    assert await watched.texts() == ["1girl, hat", ""]
    etag, _ = await watched.etag(), watched.take_lines()
    await watch.look()
    assert (await watched.etag(), watched.lines) == (etag, [])

    (watched.folder / "a.txt").write_text("1girl, sky")
    watched.picture("sub/c.png", "green", "A tree.")
    (watched.folder / "b.png").unlink()
    await watch.look()
    assert await watched.texts() == ["1girl, sky", "", "A tree."]
    assert watched.take_lines()[0].startswith("1 image imported, 1 already present, 0 skipped, 1 text read as tags")


async def test_after_a_restart_nothing_is_sent_again_and_what_was_removed_stays_removed(
    watched: Watched, tmp_path: Path
) -> None:
    state = tmp_path / "state" / "girl.json"
    watched.picture("a.png", "red", "1girl,hat")
    watched.picture("b.png", "blue")
    await watched.watch(write_texts=True, state=state).look()
    assert b"1girl" not in state.read_bytes()
    removed = next(image for image in await watched.client.images(watched.dataset) if image.name == "b.png")
    async with httpx.AsyncClient(base_url=watched.client.url) as http:
        assert (await http.delete(f"/api/v1/images/{removed.id}")).is_success
    etag, _ = await watched.etag(), watched.take_lines()
    await watched.watch(write_texts=True, state=state).look()
    assert (await watched.etag(), watched.lines) == (etag, [])
    watched.picture("b.png", "green")
    await watched.watch(state=state).look()
    assert await watched.texts() == ["1girl, hat", ""]
    content = state.read_bytes()
    for log, unusable in (("another", content), ("", content[:20])):
        state.write_bytes(unusable)
        watched.take_lines()
        await watched.watch(state=state, log=log).look()
        assert watched.lines[0].startswith("0 images imported, 2 already present")


async def test_a_file_that_is_still_written_is_waited_for(watched: Watched) -> None:
    watch = watched.watch(timing=WatchTiming(settle=3600))
    watched.picture("a.png", "red")
    watched.picture("old.png", "blue")
    os.utime(watched.folder / "old.png", (0, 0))
    await watch.look()
    assert [image.name for image in await watched.client.images(watched.dataset)] == ["old.png"]
    watched.picture("a.png", "green")
    os.utime(watched.folder / "a.png", (time.time(), time.time() + 1))
    await watch.look()
    assert len(await watched.texts()) == 1
    await watch.look()  # the second time it is as it was
    assert len(await watched.texts()) == 2


async def test_texts_are_written_back_and_what_is_changed_in_them_comes_in(watched: Watched) -> None:
    watch = watched.watch(write_texts=True)
    picture = watched.picture("a.png", "red", "1girl,hat,bad_tag")
    await watch.look()
    text = picture.with_suffix(".txt")
    assert text.read_text() == "1girl, hat, bad tag"
    await watched.client.edit_many(watched.dataset, remove=["bad_tag"], add=["sky"])
    await watch.look()
    assert text.read_text() == "1girl, hat, sky"
    await watch.look()
    etag, _ = await watched.etag(), watched.take_lines()
    await watch.look()
    assert (await watched.etag(), watched.lines) == (etag, [])  # its own writing is no change

    text.write_text("1girl, sky, tree")
    await watch.look()
    assert (await watched.texts(), text.read_text()) == (["1girl, sky, tree"], "1girl, sky, tree")


async def test_problems_are_said_once(watched: Watched) -> None:
    watch = watched.watch()
    await watch.look()
    watched.picture("a.png", "red").write_text("this is no picture")
    (watched.folder / "lonely.txt").write_text("1girl")
    for number in range(3):
        watched.picture(f"b{number}.png", ("red", "blue", "green")[number])
        await watch.look()
    lines = watched.take_lines()
    assert sum("a.png" in line for line in lines) == sum("lonely.txt" in line for line in lines) == 1
    watched.folder.rename(watched.folder.with_name("moved"))
    for _ in range(3):
        await watch.look()
    assert watched.take_lines() == [f"there is no folder {watched.folder}"]
    watched.folder.with_name("moved").rename(watched.folder)
    await watch.look()
    assert watched.lines == []


async def test_the_first_text_of_equal_pictures_counts_whenever_they_come(watched: Watched) -> None:
    watch = watched.watch()
    watched.picture("a.png", "red", "1girl, hat")
    await watch.look()
    watched.picture("b.png", "red", "1girl, sky")
    await watch.look()
    (watched.folder / "b.txt").write_text("1girl, tree")
    await watch.look()
    assert await watched.texts() == ["1girl, hat"]
    (watched.folder / "a.txt").write_text("1girl, smile")
    await watch.look()
    assert await watched.texts() == ["1girl, smile"]


async def test_a_folder_keeps_its_data_set_and_another_of_its_name_gets_another(
    watched: Watched, tmp_path: Path
) -> None:
    folders, name = FolderDatasets(tmp_path / "folders.json"), f"a%b {tmp_path.name}"
    first = await folders.dataset_of(tmp_path / "x" / name, watched.client)
    second = await folders.dataset_of(tmp_path / "y" / name, watched.client)
    assert (first.name, second.name) == (name.replace("%", " "), f"{name.replace('%', ' ')} 2")
    again = FolderDatasets(tmp_path / "folders.json")
    assert (await again.dataset_of(tmp_path / "x" / name, watched.client)).id == first.id
    assert (await again.dataset_of(tmp_path / "health", watched.client)).name == "health 2"


def test_the_data_folder_is_not_imported(tmp_path: Path) -> None:
    (tmp_path / "data" / "in").mkdir(parents=True)
    for folder, data in ((tmp_path, "data"), (tmp_path / "data" / "in", "data"), (tmp_path / "data", "data")):
        with pytest.raises(SetupError, match="apart"):
            require_apart(folder, tmp_path / data)
    with pytest.raises(SetupError, match="there is no folder"):
        require_apart(tmp_path / "nowhere", tmp_path / "data")


def test_a_snapshot_follows_no_links_and_reads_no_hidden_files(tmp_path: Path) -> None:
    (tmp_path / "in" / "sub").mkdir(parents=True)
    (tmp_path / "in" / ".hidden").mkdir()
    for name in ("in/a.png", "in/.b.png", "in/.hidden/c.png", "in/sub/d.png", "outside.png"):
        (tmp_path / name).write_text(name)
    (tmp_path / "in" / "loop").symlink_to(tmp_path / "in")
    os.mkfifo(tmp_path / "in" / "pipe.png")
    found = take_snapshot(tmp_path / "in")
    assert {Path(path).name for path in found} == {"a.png", "d.png", "loop", "pipe.png"}
    assert unsettled(found, {}, seconds=3600) == found.keys()
    assert not unsettled(found, found, seconds=3600) and not unsettled(found, {}, seconds=-1)
