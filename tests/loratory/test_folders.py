"""Folders of other tools: what is read of each layout; every file is taken, known, or named with its reason."""

import json
from pathlib import Path

import pytest

from loratory.folders.result import ScanResult
from loratory.folders.texts import Texts
from loratory.image_files import batches, scan_files, scan_folder
from loratory.import_plan import plan_rows


def write(root: Path, files: dict[str, str | bytes]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return root


def texts_of(found: ScanResult) -> dict[str, Texts]:
    return {image.name: image.texts for image in found.images}


def test_kohyas_folders_say_repeats_and_the_caption_of_images_without_a_text(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "10_mika girl/a.png": "1",
            "10_mika girl/a.txt": "1girl, solo",
            "10_mika girl/b.png": "2",
            "10_mika girl/more/c.png": "3",
            "0_plain/d.png": "4",
            "2019_paris/e.png": "5",
            "g.png": "7",
        },
    )
    found = scan_folder(tmp_path)
    assert {image.name: (image.texts, image.repeats) for image in found.images} == {
        "10_mika girl/a.png": (Texts(text="1girl, solo"), 10),
        "10_mika girl/b.png": (Texts(caption="mika girl"), 10),
        "10_mika girl/more/c.png": (Texts(), None),
        "0_plain/d.png": (Texts(), None),
        "2019_paris/e.png": (Texts(), None),
        "g.png": (Texts(), None),
    }
    assert sorted(found.notes) == [
        "0_plain/: 0 is no number of repeats (1 to 1000), so it is read as a plain folder",
        "10_mika girl/: each image counts 10 times; 'mika girl' is the caption of 1 image without a text",
        "2019_paris/: 2019 is no number of repeats (1 to 1000), so it is read as a plain folder",
    ]


def test_the_folder_itself_can_be_kohyas(tmp_path: Path) -> None:
    (image,) = scan_folder(write(tmp_path / "3_sks dog", {"a.png": "1"})).images
    assert (image.repeats, image.texts) == (3, Texts(caption="sks dog"))


CONFIG = """
[general]
num_repeats = 4
[[datasets]]
caption_extension = ".tags"
[[datasets.subsets]]
image_dir = 'C:\\train\\one'
class_tokens = "sks dog"
[[datasets.subsets]]
image_dir = "/elsewhere/two"
num_repeats = 2
caption_extension = "caption"
[[datasets.subsets]]
image_dir = "reg"
is_reg = true
[[datasets.subsets]]
image_dir = "../missing"
num_repeats = 0
"""


def test_a_dataset_configuration_comes_before_the_names_of_folders(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "config.toml": CONFIG,
            "train.toml": "steps = 3",
            "one/a.png": "1",
            "one/a.tags": "1girl, solo",
            "one/a.txt": "other",
            "one/b.png": "2",
            "two/c.png": "3",
            "two/c.caption": "a cat",
            "two/c.txt": "a dog",
            "reg/d.png": "4",
            "5_name/e.png": "5",
        },
    )
    found = scan_folder(tmp_path)
    assert {image.name: (image.texts, image.repeats) for image in found.images} == {
        "5_name/e.png": (Texts(), None),
        "one/a.png": (Texts(text="1girl, solo"), 4),
        "one/b.png": (Texts(caption="sks dog"), 4),
        "two/c.png": (Texts(text="a cat"), 2),
    }
    assert found.unreadable == [
        ("one/a.txt", "one/a.tags is the text of one/a.png"),
        ("reg/d.png", "it is a regularisation image (is_reg), which is not trained on"),
        ("two/c.txt", "two/c.caption is the text of two/c.png"),
    ]
    assert found.others == [("train.toml", "it is no dataset configuration at the top of the folder")]
    assert "config.toml: its image_dir '../missing' is no folder with images here" in found.notes


def test_kohyas_metadata_names_pictures_by_path_or_by_stem(tmp_path: Path) -> None:
    meta = {
        "/home/me/train/one/a.png": {"caption": "a woman", "tags": "1girl, long hair"},
        "C:\\train\\two\\a.png": {"tags": "1boy"},
        "b": {"caption": "a red cat on a mat", "train_resolution": [512, 512]},
        "a": {"caption": "of which?"},
        "gone": {"caption": "nothing"},
        "c": {"caption": ["no text"]},
    }
    write(
        tmp_path,
        {
            "meta_lat.json": json.dumps(meta),
            "meta_cap.json": json.dumps({"b": {"caption": "older"}}),
            "settings.json": '{"a": 1}',
            "broken.json": "{",
            "one/a.png": "1",
            "two/a.png": "2",
            "two/b.png": "3",
            "two/b.txt": "another text",
            "two/c.png": "4",
        },
    )
    found = scan_folder(tmp_path)
    assert texts_of(found) == {
        "one/a.png": Texts(caption="a woman", tags=("1girl", "long_hair")),
        "two/a.png": Texts(tags=("1boy",)),
        "two/b.png": Texts(text="a red cat on a mat"),
        "two/c.png": Texts(),
    }
    assert found.notes == [
        "meta_lat.json: 'a' may be one of several images",
        "meta_lat.json: 'gone' is no image here",
        "meta_cap.json: 1 of its texts differ from other ones for the same image, which count",
    ]
    assert [name for name, _ in found.unreadable] == ["meta_lat.json (two/c.png)", "broken.json", "two/b.txt"]
    assert found.others == [("settings.json", "it has no texts of pictures here")]


def test_an_imagefolder_is_read_line_by_line(tmp_path: Path) -> None:
    rows = [
        json.dumps({"file_name": "a.png", "text": "1girl, solo", "label": 3}),
        json.dumps({"file_name": "b.png", "text": "猫, long hair", "tags": ["猫", "long_hair"]}),
        json.dumps({"file_name": "sub/c.png", "caption": "a cat", "tags": "1girl, ^_^"}),
        "",
        "not json",
        json.dumps({"text": "of nothing"}),
        json.dumps({"file_name": "../secret.png", "text": "x"}),
        json.dumps({"file_name": "d.png", "text": "x" * (1 << 20)}),
        json.dumps({"file_name": "d.png", "text": "y" * 20_001}),
        json.dumps({"file_name": "e.png", "text": "last"}),
    ]
    root = write(tmp_path / "set", {f"{name}.png": name for name in ("a", "b", "sub/c", "d", "e")})
    write(tmp_path, {"secret.png": "s", "set/metadata.jsonl": "\ufeff" + "\r\n".join(rows)})
    found = scan_folder(root)
    assert texts_of(found) == {
        "a.png": Texts(text="1girl, solo"),
        "b.png": Texts(tags=("猫", "long_hair")),
        "d.png": Texts(),
        "e.png": Texts(text="last"),
        "sub/c.png": Texts(caption="a cat", tags=("1girl", "^_^")),
    }
    assert [name for name, _ in found.unreadable] == [
        "metadata.jsonl (d.png)",
        *(f"metadata.jsonl, line {line}" for line in (5, 6, 7, 8)),
    ]


def test_metadata_as_csv_has_the_same_columns(tmp_path: Path) -> None:
    table = 'file_name,text,tags\na.png,"a cat,\na dog",\nb.png,,"1girl, solo"\nc.png,"open'
    found = scan_folder(write(tmp_path, {"metadata.csv": table, "a.png": "1", "b.png": "2", "c.png": "3"}))
    assert texts_of(found) == {
        "a.png": Texts(text="a cat,\na dog"),
        "b.png": Texts(tags=("1girl", "solo")),
        "c.png": Texts(),
    }
    ((name, reason),) = found.unreadable
    assert (name[:18], reason[:31]) == ("metadata.csv, line", "from here on it cannot be read ")


def test_a_json_file_beside_a_picture_has_its_caption(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "a.png": "1",
            "a.json": '{"caption": "a long caption", "caption_short": "short"}',
            "b.png": "2",
            "b.json": '"only a text"',
            "c.png": "3",
            "c.json": '{"caption": "a cat", "tags": ["1girl"]}',
            "d.png": "4",
            "d.json": '{"width": 3}',
            "e.png": "5",
            "e.json": "{",
        },
    )
    found = scan_folder(tmp_path)
    assert texts_of(found) == {
        "a.png": Texts(text="a long caption"),
        "b.png": Texts(text="only a text"),
        "c.png": Texts(caption="a cat", tags=("1girl",)),
        "d.png": Texts(),
        "e.png": Texts(),
    }
    assert [name for name, _ in found.unreadable] == ["a.json", "d.json", "e.json"]


def test_masks_belong_to_their_picture_and_are_none(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "a.jpg": "1",
            "a-masklabel.png": "m",
            "a-condlabel.png": "c",
            "b-masklabel.png": "m",
            "b.txt": "x",
            "c.png": "3",
        },
    )
    found = scan_folder(tmp_path)
    assert {image.name: image.mask and image.mask.label for image in found.images} == {
        "a.jpg": str(tmp_path / "a-masklabel.png"),
        "c.png": None,
    }
    assert found.unreadable == [
        ("a-condlabel.png", "it is a conditioning image, not a picture"),
        ("b-masklabel.png", "it is a mask, and there is no image of its name"),
    ]
    assert found.unmatched == ["b.txt"]
    (chosen,) = scan_files([tmp_path / "a.jpg"]).images
    assert chosen.mask is not None


def test_the_dry_run_is_a_row_for_each_file(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "2_cat/a.png": "1",
            "2_cat/a-masklabel.png": "m",
            "2_cat/b.png": "2",
            "2_cat/b.json": '{"caption": "my cat", "tags": "1girl"}',
            "notes.md": "n",
            "lost.txt": "t",
            ".git/config": "g",
        },
    )
    rows = plan_rows(scan_folder(tmp_path), "auto")
    assert rows == [
        ("2_cat/a.png", "image", "caption: cat", "2", "a-masklabel.png"),
        ("2_cat/b.png", "image", "1 tags (not encrypted): 1girl; caption: my cat", "2", ""),
        ("lost.txt", "left out", "there is no image of this name", "", ""),
        (".git/", "not read", "it is hidden", "", ""),
        ("notes.md", "not read", "it is no picture and no text of one", "", ""),
    ]
    private = plan_rows(scan_folder(tmp_path), "caption")
    assert private[1][2] == "caption: my cat, 1girl"


def test_the_same_name_in_two_folders_is_two_and_no_name_is_twice_in_a_form(tmp_path: Path) -> None:
    write(tmp_path, {"one/a.png": "1", "two/a.png": "2", 'one/b"c.png': "3", "one/b_c.png": "4"})
    requests = [[image.name for image in batch] for batch in batches(scan_folder(tmp_path).images)]
    assert requests == [["one/a.png", "one/b_c.png"], ["one/b_c.png", "two/a.png"]]


def test_pictures_of_an_export_have_the_names_of_their_images(tmp_path: Path) -> None:
    line = {"tags": ["hat"], "caption": None, "training_text": "hat", "source": None}
    images = [("one/猫.png", "猫.png"), ("two/猫.png", "猫_2.png"), ("", "c.png"), ('../x"y.png', "d.png")]
    files = [line | {"picture": f"{at:064}", "name": name, "file": file} for at, (name, file) in enumerate(images)]
    write(tmp_path, {"export.json": json.dumps({"origin": {}, "files": files}), "e.png": "1"})
    write(tmp_path, {file: file for _, file in images})
    names = {image.path.name: image.name for image in scan_folder(tmp_path).images}
    assert names == {
        "猫.png": "one/猫.png",
        "猫_2.png": "two/猫.png",
        "c.png": "c.png",
        "d.png": "../x_y.png",  # the server keeps what is safe of it
        "e.png": "e.png",
    }


@pytest.mark.parametrize("name", ["1", "_x", "x_1", "1.5_x", "-3_x"])
def test_names_that_are_not_kohyas(tmp_path: Path, name: str) -> None:
    (image,) = scan_folder(write(tmp_path, {f"{name}/a.png": "1"})).images
    assert (image.repeats, image.texts) == (None, Texts())
