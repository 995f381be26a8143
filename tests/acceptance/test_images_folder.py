"""`loratory up --images FOLDER --write-texts`: work on a folder of other tools, as one starts a tagging assistant."""

import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from loratory import Client
from tests.acceptance.local_stack import LocalStack, cli
from tests.limits import WAIT

pytestmark = pytest.mark.slow


def draw(file: Path, seed: int) -> Path:
    Image.frombytes("RGB", (64, 64), random.Random(seed).randbytes(64 * 64 * 3)).save(file)
    return file


def wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def captions(client: Client, dataset: str) -> dict[str, str]:
    return {image.name: image.caption for image in client.images(dataset)}


def test_a_folder_is_worked_on_in_the_page_and_in_its_files(tmp_path: Path) -> None:
    folder = tmp_path / "mika"
    (folder / "10_girl").mkdir(parents=True)
    one = draw(folder / "10_girl" / "one.png", 1).with_suffix(".txt")
    one.write_bytes(b"1girl, solo, bad_tag\r\n")
    stack = LocalStack(tmp_path / "data", workers=False, options=("--images", folder, "--write-texts"))
    try:
        stack.start()
        wait_for(lambda: "1 image imported" in stack.output, stack.output)
        with stack.client() as client:
            (dataset,) = client.datasets()
            assert f"{folder} is the data set 'mika': {stack.address}/#/datasets/{dataset.id}\n" in stack.output
            client.edit_many("mika", remove=["bad_tag"], add=["hat"])
            wait_for(lambda: one.read_bytes() == b"1girl, solo, hat\r\n", "written back")

            draw(folder / "two.png", 2).with_suffix(".txt").write_text("A tree beside a house.")
            one.write_text("1girl, hat, sky")
            wait_for(lambda: len(captions(client, "mika")) == 2, "a new picture")
            wait_for(lambda: "1girl, hat, sky" in captions(client, "mika").values(), "a changed text")
        stack.stop()
        (folder / "two.txt").write_text("A tree.")
        stack.start()
        with stack.client() as client:
            wait_for(lambda: "A tree." in captions(client, "mika").values(), "what changed meanwhile")
            assert len(client.datasets()) == 1
            client.edit_many("mika", remove=["sky"])
            wait_for(lambda: one.read_text() == "1girl, hat", "written back again")
            written = cli("datasets", "write-texts", "mika", folder, "--url", stack.address)
            assert (written.returncode, written.stdout) == (0, "0 texts written, 2 unchanged, 0 left\n"), written
            etag = client.dataset("mika").etag
            imported = cli("datasets", "import", "mika", folder, "--url", stack.address)
            assert "0 images imported, 2 already present, 0 skipped" in imported.stdout
            assert client.dataset("mika").etag == etag
    finally:
        stack.stop()


def test_what_cannot_be_worked_on_is_refused_before_anything_starts(tmp_path: Path) -> None:
    data = tmp_path / "data"
    for options, reason in (
        (("--images", tmp_path / "nowhere"), "there is no folder"),
        (("--images", tmp_path), "must be apart"),
        (("--write-texts",), "--write-texts needs --images"),
    ):
        refused = cli("up", "--data", data, "--port", "0", *options)
        assert refused.returncode == 2 and reason in refused.stderr, refused
    assert not data.exists()
