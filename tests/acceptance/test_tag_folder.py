"""A folder of other tools with lists of tags: what is edited here is what is trained, counted and exported."""

import json
import random
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from tests.acceptance.local_stack import LocalStack
from tests.limits import WAIT

TEXTS = {
    "one.png": "1girl, solo, bad_tag, saber \\(fate\\)",
    "two.png": "1girl\nsolo\nbad tag\n^_^",
    "three.png": "2girls, score_9, bad_tag",
}
TEXT_OF = {
    "one.png": "sks, 1girl, solo, saber (fate)",
    "two.png": "sks, 1girl, solo, ^_^",
    "three.png": "sks, 2girls, score_9",
}
SMALL: dict[str, object] = {"data.resolution": 64, "save.every": 2, "sampling.steps": 1, "length.count": 2}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "10_girl"
    made.mkdir()
    for seed, (name, text) in enumerate(TEXTS.items()):
        Image.frombytes("RGB", (64, 64), random.Random(seed).randbytes(64 * 64 * 3)).save(made / name)
        (made / name).with_suffix(".TXT").write_text(text)
    return made


@pytest.mark.slow
def test_a_tag_removed_from_all_is_in_no_text_that_is_trained_or_exported(
    stack: LocalStack, folder: Path, tmp_path: Path
) -> None:
    with stack.client() as client:
        client.create_dataset("tag folder")
        imported = client.import_folder("tag folder", folder)
        assert [file.text for file in imported.files] == ["tags"] * 3
        assert client.edit_many("tag folder", remove=["bad_tag"]).images == 3
        job = client.train("tag folder", preset="tiny-random-demo", trigger="sks", changes=SMALL)
        ended = client.wait_job(job.id, timeout=WAIT)
        assert ended.status == "completed"

        exported = client.export("tag folder", tmp_path, version=ended.version, format="manifest")
        lines = [json.loads(line) for line in Path(exported.path).read_text().splitlines()]
        assert {line["name"]: line["training_text"] for line in lines} == TEXT_OF
        flat = client.export("tag folder", tmp_path, version=ended.version, format="flat")
        with zipfile.ZipFile(flat.path) as files:
            texts = {name: files.read(name).decode().strip() for name in files.namelist() if name.endswith(".txt")}
        assert texts == {f"{Path(name).stem}.txt": text for name, text in TEXT_OF.items()}

        adapter = next(one for one in client.artifacts(job.id) if one.name.endswith(".safetensors"))
        frequency = tag_frequency(client.download(job.id, adapter, tmp_path))
    assert sum(frequency.values()) == sum(len(text.split(", ")) for text in TEXT_OF.values())
    assert (frequency["sks"], frequency["1girl"], frequency["score_9"]) == (3, 2, 1)
    assert not any("bad" in tag for tag in frequency)


def tag_frequency(file: Path) -> dict[str, int]:
    """`ss_tag_frequency` in the header of a LoRA, as kohya's programs read it, of its one folder."""
    with file.open("rb") as content:
        header = json.loads(content.read(int.from_bytes(content.read(8), "little")))
    (frequency,) = json.loads(header["__metadata__"]["ss_tag_frequency"]).values()
    return dict(frequency)
