"""Erased for good: one search of all raw files finds an image's bytes, name, caption and key before, and nowhere after.

Also in a backup, after a restart, and in a backup that was out of reach, restored with today's keys.
"""

import random
import shutil
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from tests.acceptance.house import House, cli
from tests.limits import WAIT

pytestmark = [pytest.mark.slow]

P = "/api/v1"
NAME = "the-neighbours-garden-in-june"
CAPTION = "sks, Mrs Habakuk behind her gooseberries"
SLICE = 64
WITHIN = WAIT
SEALED = {"sealed name", "sealed caption"}
"""What is sealed stays in the log and its copies as base64; these are its plain bytes, as the read model keeps them."""


class Kept(NamedTuple):
    """A data set of three pictures with a LoRA made of it, and two backups, one of which nobody can reach."""

    house: House
    image: str
    others: list[str]
    job: str
    backup: Path
    away: Path
    needles: Mapping[str, bytes]

    @property
    def places(self) -> list[Path]:
        return [self.house.data, self.house.data.with_name(f"{self.house.data.name}.log"), self.backup]


def search(places: list[Path], needles: Mapping[str, bytes]) -> dict[str, set[str]]:
    """The files that hold each needle, as they lie on the disk."""
    found: dict[str, set[str]] = {name: set() for name in needles}
    for place in places:
        for file in [place] if place.is_file() else place.rglob("*"):
            if not file.is_file() or file.is_symlink():
                continue
            content = file.read_bytes()
            for name, needle in needles.items():
                if needle in content:
                    found[name].add(f"{place.name}/{file.relative_to(place) if place.is_dir() else ''}")
    return found


def middle(content: bytes) -> bytes:
    """A slice that no other file has."""
    return content[len(content) // 2 :][:SLICE]


def picture(folder: Path, name: str, seed: int, words: str) -> None:
    """Noise, so that no two files share bytes; with the words in its metadata, as other programs leave them there."""
    pixels = random.Random(seed).randbytes(64 * 64 * 3)
    about = PngInfo()
    about.add_text("Description", f"{name}: {words}")
    Image.frombytes("RGB", (64, 64), pixels).save(folder / f"{name}.png", pnginfo=about)
    (folder / f"{name}.txt").write_text(words)


@pytest.fixture(scope="module")
def kept(house: House, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kept]:
    home = tmp_path_factory.mktemp("erase")
    folder, backup, away = home / "pictures", home / "backup", home / "away"
    folder.mkdir()
    for seed, (name, words) in enumerate({NAME: CAPTION, "cat": "sks, a cat", "dog": "sks, a dog"}.items()):
        picture(folder, name, seed, words)
    with house.client() as client, house.http() as http:
        client.create_dataset("garden")
        client.import_folder("garden", folder)
        images = client.images("garden")
        image = next(one for one in images if one.name == f"{NAME}.png")
        assert image.caption == CAPTION
        small = {"data.resolution": 64, "save.every": 2, "sampling.steps": 1, "length.count": 2}
        job = client.train("garden", preset="stand-in-demo", changes=small)
        assert client.wait_job(job.id, timeout=300).status == "completed"
        made = cli("backup", "create", backup, "--data", house.data)
        assert made.returncode == 0, made.stderr
        shutil.copytree(backup, away)  # carried out of the house
        files = {
            "source": http.get(f"{P}/images/{image.id}/file", params={"original": True}).content,
            "picture": http.get(f"{P}/images/{image.id}/file").content,
            "thumbnail": http.get(f"{P}/images/{image.id}/thumbnail").content,
        }
    cached = house.data / "cache" / "pictures" / image.picture[:2] / image.picture
    files |= {file.name.partition("-")[0]: file.read_bytes() for file in cached.iterdir()}
    needles = {name: middle(content) for name, content in files.items()}
    needles |= {"name": NAME.encode(), "caption": CAPTION.encode(), **secrets(house.data, image.id)}
    others = [one.id for one in images if one.id != image.id]
    yield Kept(house, image.id, others, job.id, backup, away, needles)


def secrets(data: Path, image: str) -> dict[str, bytes]:
    """The image's key, and what it seals."""
    with closing(sqlite3.connect(f"file:{data / 'catalog/keys.db'}?mode=ro", uri=True)) as keys:
        (key,) = keys.execute("SELECT key FROM key WHERE image_id = ?", (image,)).fetchone()
    with closing(sqlite3.connect(f"file:{data / 'catalog/read.db'}?mode=ro", uri=True)) as rows:
        name, caption = rows.execute("SELECT name, caption FROM image WHERE id = ?", (image,)).fetchone()
    return {"key": key, "sealed name": name, "sealed caption": caption}


def gone(http: httpx.Client, image: str) -> None:
    """Every address of the image says that it is no more."""
    for part in ("", "/file", "/thumbnail", "/tags", "/caption"):
        answer = http.get(f"{P}/images/{image}{part}")
        assert (answer.status_code, answer.json()["code"], answer.json()["reason"]) == (410, "gone", "erased"), part
        assert "erased for good" in answer.json()["detail"]


def in_the_files_nowhere(kept: Kept) -> None:
    """The trainer drops its copies as soon as it is told, which may be a moment after the answer."""
    until = time.monotonic() + WITHIN
    while any(found := search(kept.places, kept.needles).values()) and time.monotonic() < until:
        time.sleep(0.2)
    assert {name: files for name, files in search(kept.places, kept.needles).items() if files} == {}, found


def test_before_it_is_erased_the_search_finds_all_of_it_and_only_where_it_may_be(kept: Kept) -> None:
    found = search(kept.places, kept.needles)

    assert all(found.values()), found
    for part in ("source", "picture", "thumbnail"):
        assert {file.split("/")[1] for file in found[part]} == {"blobs"}
        assert {file.split("/")[0] for file in found[part]} == {kept.house.data.name, "backup"}
    for part in ("latents", "texts"):
        assert all(file.startswith(f"{kept.house.data.name}/cache/pictures/") for file in found[part])
    # Words stand nowhere but in the file as it was received: not in the log, its archive, a LoRA, or what services say.
    assert found["name"] == found["caption"] <= found["source"]
    assert {file.split("/")[-1].partition("-")[0] for file in found["key"]} == {"keys.db"}
    for part in SEALED:
        assert {file.split("/")[-1].partition("-")[0] for file in found[part]} == {"read.db"}


def whole(house: House, *words: str | Path) -> None:
    """The log is what it was, and so is its archive."""
    audited = cli("audit", "verify", "--url", house.address, *words)
    assert audited.returncode == 0, audited.stdout + audited.stderr


def test_after_it_was_erased_nothing_is_left_and_who_saw_it_is_known(kept: Kept, tmp_path: Path) -> None:
    house, head = kept.house, tmp_path / "head.json"
    assert cli("audit", "head", "--out", head, "--url", house.address).returncode == 0
    erased = cli("erase", "image", kept.image, "--url", house.address, "--yes")

    assert erased.returncode == 0, erased.stderr
    assert f"{kept.image} is erased" in erased.stdout
    assert f"job {kept.job} " in erased.stdout
    assert erased.stderr == ""
    in_the_files_nowhere(kept)
    whole(house, "--head", head)
    with house.client() as client, house.http() as http:
        gone(http, kept.image)
        again = client.erase_image(kept.image)
        assert (again.changed, again.images, again.left) == (False, 1, ())
        assert [(lora.job, lora.status, len(lora.artifacts)) for lora in again.loras] == [(kept.job, "completed", 2)]
        assert [image.id for image in client.images("garden")] == kept.others
        assert all(http.get(f"{P}/images/{other}/file").status_code == 200 for other in kept.others)
        lora = http.get(f"{P}/jobs/{kept.job}/artifacts/{again.loras[0].artifacts[0].name}")
        assert lora.status_code == 200
        version = http.get(f"{P}/datasets/garden/versions/1").json()
        assert (version["images"], version["erased"]) == (3, 1)
        refused = http.post(f"{P}/jobs", json={"dataset": "garden", "version": 1, "preset": "stand-in-demo"})
        assert (refused.status_code, refused.json()["reason"], refused.json()["erased"]) == (422, "images-erased", 1)
        events = http.get(f"{P}/events", params={"type": "dataset.image_erased"}).json()["items"]
        assert [event["data"]["image_id"] for event in events] == [kept.image]
        before = {"at_seq": events[0]["sequence"] - 1}
        then = http.get(f"{P}/images/{kept.image}", params=before).json()
        assert (then["erased"], then["name"], then["caption"]) == (True, "", "")
        story = http.get(f"{P}/images/{kept.image}/history").raise_for_status().text
        assert "erased for good" in story
        assert NAME not in story
        assert CAPTION not in story


def test_nor_after_a_restart(kept: Kept) -> None:
    kept.house.stop()
    in_the_files_nowhere(kept)
    kept.house.start()
    with kept.house.http() as http:
        gone(http, kept.image)
    in_the_files_nowhere(kept)


def test_its_backup_is_whole_and_one_from_before_answers_410_with_todays_keys(kept: Kept, tmp_path: Path) -> None:
    checked = cli("backup", "verify", kept.backup)
    assert checked.returncode == 0, checked.stderr
    assert any(search([kept.away], kept.needles).values())  # nobody could reach it

    again = House(tmp_path / "again", workers=False)
    keys = kept.house.data / "catalog" / "keys.db"
    restored = cli("backup", "restore", kept.away, "--data", again.data, "--keys", keys)
    assert restored.returncode == 0, restored.stderr
    try:
        again.start()
        with again.http() as http:
            gone(http, kept.image)
            assert all(http.get(f"{P}/images/{other}").status_code == 200 for other in kept.others)
        whole(again)
        # It learns from the keys what its log does not know, says it, and sweeps the bytes that came back.
        in_the_files_nowhere(kept._replace(house=again))
    finally:
        again.stop()


def test_an_erased_data_set_is_gone_with_all_its_images(kept: Kept) -> None:
    erased = cli("erase", "dataset", "garden", "--url", kept.house.address, "--yes", "--json")

    assert erased.returncode == 0, erased.stderr
    with kept.house.http() as http:
        assert http.get(f"{P}/datasets/garden").status_code == 404
        for other in kept.others:
            gone(http, other)
