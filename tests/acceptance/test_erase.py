"""Erasure: a search of all raw files finds an image's bytes, name, caption and key before it, and nothing after it.

This includes a backup, a restart, and an unreachable backup that is restored with the current keys.
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

from contracts.ids import ImageId
from tests.acceptance.local_stack import LocalStack, cli
from tests.limits import WAIT

pytestmark = pytest.mark.slow

API = "/api/v1"
NAME = "the-neighbours-garden-in-june"
CAPTION = "sks, Mrs Habakuk behind her gooseberries"
NEEDLE_BYTES = 64
SEALED = {"sealed name", "sealed caption"}
"""Sealed texts stay in the log and its copies as base64; these are the raw bytes that the read model stores."""


class ErasureCase(NamedTuple):
    """A data set of three pictures with a LoRA trained on it, and two backups, one of which is unreachable."""

    stack: LocalStack
    image: ImageId
    others: list[ImageId]
    job: str
    backup: Path
    unreachable: Path
    needles: Mapping[str, bytes]

    @property
    def paths(self) -> list[Path]:
        return [self.stack.data, self.stack.data.with_name(f"{self.stack.data.name}.log"), self.backup]


def search(paths: list[Path], needles: Mapping[str, bytes]) -> dict[str, set[str]]:
    """The files on disk that contain each needle."""
    found: dict[str, set[str]] = {name: set() for name in needles}
    for path in paths:
        for file in [path] if path.is_file() else path.rglob("*"):
            if not file.is_file() or file.is_symlink():
                continue
            content = file.read_bytes()
            for name, needle in needles.items():
                if needle in content:
                    found[name].add(f"{path.name}/{file.relative_to(path) if path.is_dir() else ''}")
    return found


def middle(content: bytes) -> bytes:
    """A slice that occurs in no other file."""
    return content[len(content) // 2 :][:NEEDLE_BYTES]


def write_picture(folder: Path, name: str, seed: int, caption: str) -> None:
    """Noise, so that no two files share bytes; the caption is also in the metadata, as other programs write it."""
    pixels = random.Random(seed).randbytes(64 * 64 * 3)
    metadata = PngInfo()
    metadata.add_text("Description", f"{name}: {caption}")
    Image.frombytes("RGB", (64, 64), pixels).save(folder / f"{name}.png", pnginfo=metadata)
    (folder / f"{name}.txt").write_text(caption)


@pytest.fixture(scope="module")
def case(stack: LocalStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ErasureCase]:
    home = tmp_path_factory.mktemp("erase")
    folder, backup, unreachable = home / "pictures", home / "backup", home / "unreachable"
    folder.mkdir()
    for seed, (name, caption) in enumerate({NAME: CAPTION, "cat": "sks, a cat", "dog": "sks, a dog"}.items()):
        write_picture(folder, name, seed, caption)
    with stack.client() as client, stack.http() as http:
        client.create_dataset("garden")
        client.import_folder("garden", folder)
        images = client.images("garden")
        image = next(one for one in images if one.name == f"{NAME}.png")
        assert image.caption == CAPTION
        # The plain texts are in the catalog's memory from here on, and the image in an edit and a version.
        assert [one.id for one in client.images("garden", filter="caption:gooseberries name:neighbours")] == [image.id]
        client.edit_many("garden", add=["garden", "june"])
        small: dict[str, object] = {"data.resolution": 64, "save.every": 2, "sampling.steps": 1, "length.count": 2}
        job = client.train("garden", preset="tiny-random-demo", changes=small)
        assert client.wait_job(job.id, timeout=300).status == "completed"
        created = cli("backup", "create", backup, "--data", stack.data)
        assert created.returncode == 0, created.stderr
        shutil.copytree(backup, unreachable)  # a copy that is not registered
        files = {
            "source": http.get(f"{API}/images/{image.id}/file", params={"original": True}).content,
            "picture": http.get(f"{API}/images/{image.id}/file").content,
            "thumbnail": http.get(f"{API}/images/{image.id}/thumbnail").content,
        }
    cached = stack.data / "cache" / "pictures" / image.picture[:2] / image.picture
    files |= {file.name.partition("-")[0]: file.read_bytes() for file in cached.iterdir()}
    needles = {name: middle(content) for name, content in files.items()}
    needles |= {"name": NAME.encode(), "caption": CAPTION.encode(), **secrets(stack.data, image.id)}
    others = [one.id for one in images if one.id != image.id]
    yield ErasureCase(stack, image.id, others, job.id, backup, unreachable, needles)


def secrets(data: Path, image: str) -> dict[str, bytes]:
    """The image's key, and the texts sealed with it."""
    with closing(sqlite3.connect(f"file:{data / 'catalog/keys.db'}?mode=ro", uri=True)) as keys:
        (key,) = keys.execute("SELECT key FROM key WHERE image_id = ?", (image,)).fetchone()
    with closing(sqlite3.connect(f"file:{data / 'catalog/read.db'}?mode=ro", uri=True)) as rows:
        name, caption = rows.execute("SELECT name, caption FROM image WHERE id = ?", (image,)).fetchone()
    return {"key": key, "sealed name": name, "sealed caption": caption}


def assert_gone(http: httpx.Client, image: str) -> None:
    """Every route of the image answers 410."""
    for part in ("", "/file", "/thumbnail", "/tags", "/caption"):
        response = http.get(f"{API}/images/{image}{part}")
        document = response.json()
        assert (response.status_code, document["code"], document["reason"]) == (410, "gone", "erased"), part
        assert "erased for good" in document["detail"]


def assert_in_no_file(case: ErasureCase) -> None:
    """The trainer deletes its copies when it receives the message, which may be a moment after the response."""
    deadline = time.monotonic() + WAIT
    while any(found := search(case.paths, case.needles).values()) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert {name: files for name, files in search(case.paths, case.needles).items() if files} == {}, found


def test_before_erasure_the_search_finds_everything_and_only_in_the_expected_files(case: ErasureCase) -> None:
    found = search(case.paths, case.needles)

    assert all(found.values()), found
    for part in ("source", "picture", "thumbnail"):
        assert {file.split("/")[1] for file in found[part]} == {"blobs"}
        assert {file.split("/")[0] for file in found[part]} == {case.stack.data.name, "backup"}
    for part in ("latents", "texts"):
        assert all(file.startswith(f"{case.stack.data.name}/cache/pictures/") for file in found[part])
    # Plain text is only in the file as received: not in the log, its archive, a LoRA, or the services' output.
    assert found["name"] == found["caption"] <= found["source"]
    assert {file.split("/")[-1].partition("-")[0] for file in found["key"]} == {"keys.db"}
    for part in SEALED:
        assert {file.split("/")[-1].partition("-")[0] for file in found[part]} == {"read.db"}


def assert_history_intact(stack: LocalStack, *options: str | Path) -> None:
    """Log and archive are unchanged."""
    audited = cli("audit", "verify", "--url", stack.address, *options)
    assert audited.returncode == 0, audited.stdout + audited.stderr


def test_after_erasure_nothing_is_left_and_loras_trained_on_the_image_are_listed(
    case: ErasureCase, tmp_path: Path
) -> None:
    stack, head = case.stack, tmp_path / "head.json"
    assert cli("audit", "head", "--out", head, "--url", stack.address).returncode == 0
    erased = cli("erase", "image", case.image, "--url", stack.address, "--yes")

    assert erased.returncode == 0, erased.stderr
    assert f"{case.image} was erased" in erased.stdout
    assert f"job {case.job} " in erased.stdout
    assert erased.stderr == ""
    assert_in_no_file(case)
    assert_history_intact(stack, "--head", head)
    with stack.client() as client, stack.http() as http:
        assert_gone(http, case.image)
        repeated = client.erase_image(case.image)
        assert (repeated.changed, repeated.images, repeated.pending) == (False, 1, ())
        assert [(lora.job, lora.status, len(lora.artifacts)) for lora in repeated.loras] == [(case.job, "completed", 2)]
        assert [image.id for image in client.images("garden")] == case.others
        assert all(http.get(f"{API}/images/{other}/file").status_code == 200 for other in case.others)
        lora = http.get(f"{API}/jobs/{case.job}/artifacts/{repeated.loras[0].artifacts[0].name}")
        assert lora.status_code == 200
        version = http.get(f"{API}/datasets/garden/versions/1").json()
        assert (version["images"], version["erased"]) == (3, 1)
        refused = http.post(f"{API}/jobs", json={"dataset": "garden", "version": 1, "preset": "tiny-random-demo"})
        assert (refused.status_code, refused.json()["reason"], refused.json()["erased"]) == (422, "images-erased", 1)
        events = http.get(f"{API}/events", params={"type": "dataset.image_erased"}).json()["items"]
        assert [event["data"]["image_id"] for event in events] == [case.image]
        before = {"at_seq": events[0]["sequence"] - 1}
        then = http.get(f"{API}/images/{case.image}", params=before)
        assert (then.status_code, then.json()["reason"]) == (410, "erased")
        listed = http.get(f"{API}/datasets/garden/images", params=before).raise_for_status().json()
        assert [image["id"] for image in listed["items"]] == case.others
        history = http.get(f"{API}/images/{case.image}/history").raise_for_status().text
        assert "Permanently erased" in history
        assert NAME not in history
        assert CAPTION not in history


def test_after_erasure_no_filter_finds_the_texts_and_edits_of_many_are_undone_without_the_image(
    case: ErasureCase,
) -> None:
    with case.stack.client() as client, case.stack.http() as http:
        for filter_ in ("caption:gooseberries", "name:neighbours", "text:habakuk"):
            assert client.images("garden", filter=filter_) == [], filter_
        edited = client.edit_many("garden", remove=["june"])
        assert edited.images == 2
        undone = http.post(f"{API}/datasets/garden/undo", json={"commit": edited.sequence})
        assert undone.status_code in {200, 202}, undone.text
        frozen = http.post(f"{API}/datasets/garden/versions", json={})
        assert frozen.is_success, frozen.text
        assert all("june" in [held.tag for held in one.tags] for one in client.images("garden"))
    assert_in_no_file(case)


def test_erased_data_stays_gone_after_a_restart(case: ErasureCase) -> None:
    case.stack.stop()
    assert_in_no_file(case)
    case.stack.start()
    with case.stack.http() as http:
        assert_gone(http, case.image)
    assert_in_no_file(case)


def test_the_backup_stays_intact_and_an_earlier_one_restored_with_current_keys_answers_410(
    case: ErasureCase, tmp_path: Path
) -> None:
    checked = cli("backup", "verify", case.backup)
    assert checked.returncode == 0, checked.stderr
    assert any(search([case.unreachable], case.needles).values())  # the purge could not reach it

    restored_stack = LocalStack(tmp_path / "restored", workers=False)
    keys = case.stack.data / "catalog" / "keys.db"
    restored = cli("backup", "restore", case.unreachable, "--data", restored_stack.data, "--keys", keys)
    assert restored.returncode == 0, restored.stderr
    try:
        restored_stack.start()
        with restored_stack.http() as http:
            assert_gone(http, case.image)
            assert all(http.get(f"{API}/images/{other}").status_code == 200 for other in case.others)
        assert_history_intact(restored_stack)
        # keys.db lists erasures that its log lacks: the catalog appends the events and purges the restored bytes.
        assert_in_no_file(case._replace(stack=restored_stack))
    finally:
        restored_stack.stop()


def test_erasing_a_data_set_erases_all_its_images(case: ErasureCase) -> None:
    erased = cli("erase", "dataset", "garden", "--url", case.stack.address, "--yes", "--json")

    assert erased.returncode == 0, erased.stderr
    with case.stack.http() as http:
        assert http.get(f"{API}/datasets/garden").status_code == 404
        for other in case.others:
            assert_gone(http, other)
