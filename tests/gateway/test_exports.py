"""Exports with the real catalog: every format is read back and compared with the data set."""

import io
import json
import tomllib
from collections.abc import Iterator
from typing import Any
from zipfile import ZIP_STORED, ZipFile

import httpx
import pytest
from PIL import Image

from tests.gateway.test_http import assert_problem

P = "/api/v1"
CAPTION = "猫がいます (^_^) and a {name|other}\nsecond line"
TAGS = ["^_^", "1girl", "name_(series)", "long_hair"]
TAGS_TEXT = "^_^, 1girl, name (series), long hair"


def picture(colour: str, form: str) -> bytes:
    content = io.BytesIO()
    Image.new("RGB", (48, 32), colour).save(content, form)
    return content.getvalue()


CONTENTS = {
    "tagged": picture("red", "PNG"),
    "captioned": picture("green", "JPEG"),
    "bare": picture("blue", "WEBP"),
    "removed": picture("white", "PNG"),
    "erased": picture("black", "PNG"),
}
NAMES = {
    "tagged": "one/夏.png",
    "captioned": "two/夏.jpg",
    "bare": "test/CON.webp",
    "removed": "../gone.png",
    "erased": "secret.png",
}


class Cats:
    """A data set with all of `NAMES`, frozen as version 1; then `removed` and `erased` became what they are called."""

    def __init__(self, client: httpx.Client, name: str) -> None:
        self.client, self.path = client, f"{P}/datasets/{name}"
        client.post(f"{P}/datasets", json={"name": name}).raise_for_status()
        files = [("files", (NAMES[key], content)) for key, content in CONTENTS.items()]
        texts = {
            "captions": json.dumps({NAMES["captioned"]: CAPTION, NAMES["erased"]: "a secret"}),
            "tags": json.dumps({NAMES["tagged"]: TAGS}),
        }
        imported = client.post(f"{self.path}/images", files=files, data=texts)
        assert imported.status_code == 201, imported.text
        self.ids = dict(zip(NAMES, [item["image"] for item in imported.json()["items"]], strict=True))
        client.put(f"{P}/images/{self.ids['tagged']}/tag-order", json={"tags": TAGS}).raise_for_status()
        client.post(f"{self.path}/versions", json={"trigger": "zwx"}).raise_for_status()
        client.delete(f"{P}/images/{self.ids['removed']}").raise_for_status()
        client.post(f"{P}/images/{self.ids['erased']}/erase").raise_for_status()

    def get(self, version: int | None = None, **params: Any) -> httpx.Response:
        of_version = "" if version is None else f"/versions/{version}"
        return self.client.get(f"{self.path}{of_version}/export", params=params)

    def zip(self, version: int | None = None, **params: Any) -> ZipFile:
        response = self.get(version, **params)
        assert response.status_code == 200, response.text
        assert response.headers["content-type"] == "application/zip"
        opened = ZipFile(io.BytesIO(response.content))
        assert opened.testzip() is None
        return opened


@pytest.fixture(scope="module")
def cats(address: str) -> Iterator[Cats]:
    with httpx.Client(base_url=address, timeout=60) as client:
        yield Cats(client, "exported cats")


def files_of(opened: ZipFile) -> dict[str, bytes]:
    return {name: opened.read(name) for name in opened.namelist()}


def test_kohya(cats: Cats) -> None:
    params: dict[str, Any] = {"format": "kohya", "repeats": 10, "class": "cat/girl"}
    files = files_of(cats.zip(**params))
    config, summary = tomllib.loads(files.pop("dataset.toml").decode()), json.loads(files.pop("export.json"))
    assert files == {
        "10_cat_girl/夏.png": CONTENTS["tagged"],
        "10_cat_girl/夏.txt": TAGS_TEXT.encode(),
        "10_cat_girl/夏_2.jpg": CONTENTS["captioned"],
        "10_cat_girl/夏_2.txt": CAPTION.encode(),
        "10_cat_girl/_CON.webp": CONTENTS["bare"],
    }
    (subset,) = config["datasets"][0]["subsets"]
    assert subset == {"image_dir": "10_cat_girl", "num_repeats": 10, "class_tokens": "cat/girl"}
    assert config["general"] == {"caption_extension": ".txt", "enable_bucket": True, "enable_wildcard": True}
    assert (summary["images"], summary["several_lines"], summary["left_out"]) == (3, 1, [])


def test_a_version_has_its_trigger_and_what_was_removed_since_but_nothing_that_was_erased(cats: Cats) -> None:
    response = cats.get(1, format="kohya")
    assert b"secret" not in response.content and CONTENTS["erased"] not in response.content
    files = files_of(ZipFile(io.BytesIO(response.content)))
    texts = {name: content.decode() for name, content in files.items() if name.endswith(".txt")}
    folder = "1_exported cats/"
    assert texts == {
        f"{folder}夏.txt": f"zwx, {TAGS_TEXT}",
        f"{folder}夏_2.txt": f"zwx, {CAPTION}",
        f"{folder}_CON.txt": "zwx",
        f"{folder}gone.txt": "zwx",
    }
    assert files[f"{folder}gone.png"] == CONTENTS["removed"]
    (subset,) = tomllib.loads(files["dataset.toml"].decode())["datasets"][0]["subsets"]
    assert subset["keep_tokens"] == 1
    summary = json.loads(files["export.json"])
    assert summary["left_out"] == [{"ordinal": 4, "image": cats.ids["erased"], "reason": "erased"}]
    view = cats.client.get(f"{cats.path}/versions/1").json()
    assert (summary["origin"]["version"], summary["origin"]["as_of"]) == (1, view["as_of"])
    assert response.headers["loratory-as-of"] == str(view["as_of"])


def test_flat(cats: Cats) -> None:
    files = files_of(cats.zip(format="flat", filter="1girl"))
    summary = json.loads(files.pop("export.json"))
    assert files == {"夏.png": CONTENTS["tagged"], "夏.txt": TAGS_TEXT.encode()}
    assert summary["origin"]["filter"] == "1girl"
    assert set(files_of(cats.zip(format="flat", filter="-1girl -captioned"))) == {"_CON.webp", "export.json"}


def test_imagefolder(cats: Cats) -> None:
    opened = cats.zip(format="imagefolder")
    rows = [json.loads(line) for line in opened.read("metadata.jsonl").splitlines()]
    assert rows == [
        {"file_name": "夏.png", "text": TAGS_TEXT, "tags": TAGS, "name": "one/夏.png"},
        {"file_name": "夏_2.jpg", "text": CAPTION, "tags": [], "name": "two/夏.jpg"},
        {"file_name": "_CON.webp", "text": "", "tags": [], "name": "test/CON.webp"},
    ]
    assert {row["file_name"] for row in rows} | {"metadata.jsonl", "export.json"} == set(opened.namelist())


def test_manifest(cats: Cats) -> None:
    response = cats.get(format="manifest")
    assert response.headers["content-type"] == "application/x-ndjson"
    assert 'filename="exported cats.jsonl"' in response.headers["content-disposition"]
    lines = [json.loads(line) for line in response.text.splitlines()]
    views = cats.client.get(f"{cats.path}/images").json()["items"]
    same = ("ordinal", "name", "picture", "source", "width", "height", "size", "caption_source")
    assert [[line[key] for key in same] for line in lines] == [[view[key] for key in same] for view in views]
    assert [line["training_text"] for line in lines] == [view["caption"] for view in views]
    assert [line["tags"] for line in lines] == [[tag["tag"] for tag in view["tags"]] for view in views]
    assert [line["caption"] for line in lines] == [None, CAPTION, None]
    erased = [json.loads(line)["erased"] for line in cats.get(1, format="manifest").text.splitlines()]
    assert erased == [False, False, False, False, True]


def test_texts_are_changed_in_the_export_only(cats: Cats) -> None:
    changes: dict[str, Any] = {
        "trigger": "abc",
        "exclude": ["1girl", "nothing"],
        "replace": ["long_hair=short hair"],
        "escape": "true",
        "separator": "; ",
        "words": "underscores",
    }
    opened = cats.zip(1, format="flat", **changes)
    assert opened.read("夏.txt").decode() == r"abc; ^_^; name_\(series\); short_hair"
    assert opened.read("夏_2.txt").decode() == f"abc, {CAPTION}"
    assert cats.zip(1, format="flat", trigger="").read("夏.txt").decode() == TAGS_TEXT
    summary = json.loads(opened.read("export.json"))
    assert (summary["trigger"], summary["overlay"]["exclude"]) == ("abc", ["1girl", "nothing"])
    image = cats.client.get(f"{P}/images/{cats.ids['tagged']}").json()
    assert [tag["tag"] for tag in image["tags"]] == TAGS


def test_equal_content_gives_equal_bytes(cats: Cats) -> None:
    for version, form in ((None, "kohya"), (1, "kohya"), (None, "imagefolder"), (1, "manifest")):
        first, second = cats.get(version, format=form), cats.get(version, format=form)
        assert first.content == second.content
        assert first.headers["etag"] == second.headers["etag"]
        known = {"If-None-Match": first.headers["etag"]}
        of_version = "" if version is None else f"/versions/{version}"
        again = cats.client.get(f"{cats.path}{of_version}/export", params={"format": form}, headers=known)
        assert (again.status_code, again.content) == (304, b"")
    entries = cats.zip(format="kohya").infolist()
    assert {entry.date_time for entry in entries} == {(1980, 1, 1, 0, 0, 0)}
    assert {entry.compress_type for entry in entries} == {ZIP_STORED}


def test_other_content_has_another_etag(cats: Cats) -> None:
    etags = [
        cats.get(version, **params).headers["etag"]
        for version, params in (
            (None, {"format": "flat"}),
            (1, {"format": "flat"}),
            (None, {"format": "flat", "trigger": "a"}),
            (None, {"format": "flat", "filter": "1girl"}),
            (None, {"format": "kohya"}),
            (None, {"format": "kohya", "class": "dog"}),
        )
    ]
    assert len(set(etags)) == len(etags)


BAD: list[tuple[dict[str, Any], int, str]] = [
    ({"format": "tar"}, 400, "format cannot be 'tar'"),
    ({"repeats": 0}, 400, "repeats must be at least 1"),
    ({"repeats": 10_001}, 400, "repeats must be at most 10000"),
    ({"format": "flat", "repeats": 2}, 400, "the format flat has neither"),
    ({"format": "manifest", "class": "cat"}, 400, "the format manifest has neither"),
    ({"class": ".."}, 422, "the class is part of a folder's name"),
    ({"class": "c" * 101}, 422, "at most 100 characters"),
    ({"class": ""}, 422, "the class is part of a folder's name"),
    ({"trigger": "two\nlines"}, 400, "trigger is text in one line"),
    ({"trigger": "t" * 101}, 400, "trigger"),
    ({"separator": ""}, 400, "separator must not be empty"),
    ({"separator": "\n"}, 400, "separator is text in one line"),
    ({"separator": " "}, 422, "contains the separator"),
    ({"words": "camels"}, 400, "words cannot be 'camels'"),
    ({"escape": "perhaps"}, 400, "escape"),
    ({"exclude": "a,b"}, 422, "a tag cannot contain ','"),
    ({"exclude": ["a"] * 1001}, 400, "exclude"),
    ({"replace": "cat"}, 400, "old=new"),
    ({"filter": "(("}, 400, "filter, character 3"),
]


@pytest.mark.parametrize(("params", "status", "sentence"), BAD)
def test_bad_parameters_are_named(cats: Cats, params: dict[str, Any], status: int, sentence: str) -> None:
    code = {400: "invalid", 422: "rejected"}[status]
    assert sentence in str(assert_problem(cats.get(**params), status, code)["detail"])


def test_what_does_not_exist_and_a_filtered_version_are_refused(cats: Cats) -> None:
    assert_problem(cats.client.get(f"{P}/datasets/nobody/export"), 404, "not-found")
    assert_problem(cats.get(9), 404, "not-found")
    assert "as a whole" in str(assert_problem(cats.get(1, filter="cat"), 400, "invalid")["detail"])


def test_a_filter_that_selects_nothing_gives_an_export_without_images(cats: Cats) -> None:
    opened = cats.zip(format="flat", filter="nobody_has_this")
    assert opened.namelist() == ["export.json"]
    assert cats.get(format="manifest", filter="nobody_has_this").content == b""


def test_repeats_and_masks_come_in_are_served_and_go_out(address: str) -> None:
    mask, names = picture("white", "PNG"), ("once.png", "thrice.png")
    with httpx.Client(base_url=address, timeout=60) as client:
        path = f"{P}/datasets/masked cats"
        client.post(f"{P}/datasets", json={"name": "masked cats"}).raise_for_status()
        files = [("files", (name, picture(colour, "PNG"))) for name, colour in zip(names, ("red", "blue"), strict=True)]
        files += [("masks", ("thrice.png", mask)), ("masks", ("nobody.png", mask))]
        texts = {"repeats": json.dumps({"thrice.png": 3}), "captions": json.dumps({"thrice.png": "a cat"})}
        imported = client.post(f"{path}/images", files=files, data=texts).json()
        assert imported["unmatched"] == ["nobody.png"]
        once, thrice = [item["image"] for item in imported["items"]]
        served = client.get(f"{P}/images/{thrice}/mask")
        assert (served.status_code, served.headers["content-type"]) == (200, "image/png")
        assert_problem(client.get(f"{P}/images/{once}/mask"), 404, "not-found")

        def export(form: str) -> dict[str, bytes]:
            response = client.get(f"{path}/export", params={"format": form})
            return files_of(ZipFile(io.BytesIO(response.raise_for_status().content)))

        kohya = export("kohya")
        assert kohya.keys() == {
            *("1_masked cats/once.png", "3_masked cats/thrice.png", "masks/3_masked cats/thrice-masklabel.png"),
            *("3_masked cats/thrice.txt", "dataset.toml", "export.json"),
        }
        assert kohya["masks/3_masked cats/thrice-masklabel.png"] == served.content
        subsets = tomllib.loads(kohya["dataset.toml"].decode())["datasets"][0]["subsets"]
        assert [(one["image_dir"], one["num_repeats"]) for one in subsets] == [
            *(("1_masked cats", 1), ("3_masked cats", 3)),
        ]
        assert {"once.png", "thrice.png", "thrice-masklabel.png"} < export("flat").keys()
        lines = [json.loads(line) for line in export("imagefolder")["metadata.jsonl"].splitlines()]
        assert [line.get("mask_file_name") for line in lines] == [None, "thrice-masklabel.png"]
        manifest = [json.loads(line) for line in client.get(f"{path}/export?format=manifest").iter_lines()]
        digest = client.get(f"{P}/images/{thrice}").json()["mask"]
        assert [(line["repeats"], line["mask"]) for line in manifest] == [(1, None), (3, digest)]

        body = {"filter": "captioned", "repeats": 2}
        assert client.put(f"{path}/repeats", json=body).json()["images"] == 1
        assert [client.get(f"{P}/images/{image}").json()["repeats"] for image in (once, thrice)] == [1, 2]
        refused = client.put(f"{path}/repeats", json={"all": True, "repeats": 0})
        assert_problem(refused, 400, "invalid")
