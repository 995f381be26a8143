"""Exports: texts, names, and the files beside the pictures, without any service."""

import io
import json
import tomllib
import unicodedata
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any
from zipfile import ZipFile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.errors import Invalid, LoratoryError, Rejected
from contracts.ids import DatasetId, Digest, ImageId
from contracts.queries.exports import ExportEntry
from contracts.tag_style import DEFAULT_STYLE, FIRST_STYLE, TagStyle
from contracts.tags import canonicalize
from contracts.training_text import DEFAULT_TEMPLATE, TEXT_VERSION, training_text
from gateway.exports.compressed_lines import CompressedLines
from gateway.exports.file_names import MAX_STEM_BYTES, UniqueStems, safe_stem
from gateway.exports.layout import Kohya, Layout, LeftOut, Origin, Summary, dataset_config, summary_file
from gateway.exports.overlay import Overlay, parse_replacements
from gateway.exports.zip_directory import file_info, open_directory

KOHYA_GENERAL = {"caption_extension", "enable_bucket", "enable_wildcard"}
KOHYA_SUBSET = {"image_dir", "num_repeats", "class_tokens", "keep_tokens"}
"""Keys that sd-scripts knows there and that we write; it refuses others, `caption_separator` among them."""


def is_tag(text: str) -> bool:
    try:
        return bool(canonicalize(text))
    except LoratoryError:
        return False


DEVICES = {"CON", "PRN", "AUX", "NUL"} | {f"{name}{digit}" for name in ("COM", "LPT") for digit in range(10)}
TAGS = st.lists(st.text(min_size=1, max_size=12).filter(is_tag).map(canonicalize), max_size=6)


def text_of(tags: list[str], caption: str | None = None, trigger: str = "", **changes: Any) -> str:
    return text_by(TEXT_VERSION, DEFAULT_STYLE, tags, caption, trigger, **changes)


def text_by(version: int, style: TagStyle, tags: list[str], caption: str | None, trigger: str, **changes: Any) -> str:
    overlay = Overlay(**changes)
    entry = ExportEntry(
        ordinal=0,
        image=ImageId("img"),
        picture=Digest("0" * 64),
        width=1,
        height=1,
        template=DEFAULT_TEMPLATE,
        text=version,
        style=style,
        caption=caption,
    )
    return overlay.text(trigger, overlay.tags(tags), entry)


def test_a_version_of_the_first_rules_is_written_by_them_until_the_style_is_changed() -> None:
    tags = ["1girl", "score_9", "sks"]
    assert text_by(1, FIRST_STYLE, tags, None, "sks") == "1girl, score 9, sks"
    assert text_by(1, FIRST_STYLE, tags, None, "sks", words="underscores") == "sks, 1girl, score_9"
    assert text_by(TEXT_VERSION, DEFAULT_STYLE, tags, None, "sks") == "sks, 1girl, score_9"


def test_texts_are_written_as_in_the_text_settings_where_the_export_does_not_differ() -> None:
    style, tags = TagStyle(words="underscores", separator=" ||| ", escape=True), ["long_hair", "name_(series)"]
    assert text_by(TEXT_VERSION, style, tags, None, "sks") == r"sks ||| long_hair ||| name_\(series\)"
    changes = {"words": "spaces", "separator": ", ", "escape": False}
    assert text_by(TEXT_VERSION, style, tags, None, "sks", **changes) == "sks, long hair, name (series)"


@given(TAGS, st.none() | st.text(), st.text(max_size=8).map(str.strip))
def test_without_changes_the_text_is_the_one_that_is_trained(
    tags: list[str], caption: str | None, trigger: str
) -> None:
    tags = list(dict.fromkeys(tags))
    assert text_of(tags, caption, trigger) == training_text(trigger, tags, caption)


TEXTS: list[tuple[dict[str, Any], str]] = [
    ({}, "1girl, long hair, name (series), ^_^"),
    ({"words": "underscores"}, "1girl, long_hair, name_(series), ^_^"),
    ({"escape": True}, r"1girl, long hair, name \(series\), ^_^"),
    ({"separator": " | "}, "1girl | long hair | name (series) | ^_^"),
    ({"exclude": ("1girl", "none")}, "long hair, name (series), ^_^"),
    ({"replace": (("1girl", "woman"), ("^_^", "long_hair"))}, "woman, long hair, name (series)"),
]


@pytest.mark.parametrize(("changes", "expected"), TEXTS)
def test_tags_are_changed_and_written_as_asked_for(changes: dict[str, Any], expected: str) -> None:
    tags = ["1girl", "long_hair", "name_(series)", "^_^"]
    assert text_of(tags, **changes) == expected
    separator = changes.get("separator", ", ")
    assert text_of(tags, trigger="zwx", **changes) == f"zwx{separator}{expected}"


def test_a_written_caption_goes_out_as_it_is() -> None:
    caption = "猫 (^_^) _under_, and a line\nmore"
    changed = text_of(["cat"], caption, exclude=("cat",), escape=True, words="underscores", separator=";")
    assert changed == caption


def test_a_tag_that_contains_the_separator_is_named() -> None:
    with pytest.raises(Rejected, match="'long_hair' contains the separator ' '"):
        text_of(["long_hair"], separator=" ")
    assert text_of(["long_hair", "b"], separator=" ", words="underscores") == "long_hair b"


def test_replacements_are_read_and_an_unclear_one_is_refused() -> None:
    assert parse_replacements(["Long Hair = short hair"]) == (("long_hair", "short_hair"),)
    for unclear in ("cat", "=dog", "cat=", "=_==happy"):
        with pytest.raises(Invalid, match="old=new"):
            parse_replacements([unclear])


NAMES = [
    ("photo.JPG", "photo"),
    ("夏 休み.png", "夏 休み"),
    ("../../etc/passwd", "passwd"),
    ("C:\\Users\\me\\cat.webp", "cat"),
    ("a.b.c.png", "a.b.c"),
    ("con.png", "_con"),
    ("LPT1", "_LPT1"),
    ("aux.tar.png", "_aux.tar"),
    ('what?<>|*":.png', "what_______"),
    ("..", ""),
    (".hidden.png", "hidden"),
    ("name. .png", "name"),
    ("\u202egnp.exe\u0000\n.png", "gnp.exe"),
    ("", ""),
]


@pytest.mark.parametrize(("name", "stem"), NAMES)
def test_names_are_made_safe(name: str, stem: str) -> None:
    assert safe_stem(name) == stem


@given(st.lists(st.text(max_size=300), max_size=20))
def test_every_name_is_one_file_on_every_system(names: list[str]) -> None:
    stems = UniqueStems()
    found = [stems.add(name, ordinal) for ordinal, name in enumerate(names)]
    assert len({unicodedata.normalize("NFC", stem.casefold()) for stem in found}) == len(names)
    for stem in found:
        file_name = f"{stem}.jpg"
        assert PurePosixPath(file_name).name == PureWindowsPath(file_name).name == file_name
        assert len(stem.encode()) <= MAX_STEM_BYTES + 10
        assert file_name.split(".", maxsplit=1)[0].strip().upper() not in DEVICES


def test_equal_names_are_numbered_in_order_whatever_their_case_and_extension() -> None:
    stems, names = UniqueStems(), ["a.png", "A.jpg", "a_2.png", "sub/a.png", "", "image_4.png"]
    found = [stems.add(name, ordinal) for ordinal, name in enumerate(names)]
    assert found == ["a", "A_2", "a_2_2", "a_3", "image_4", "image_4_2"]


@given(st.lists(st.binary(max_size=300).filter(lambda line: b"\n" not in line)), st.integers(1, 400))
def test_compressed_lines_are_read_as_they_were_written(lines: list[bytes], times: int) -> None:
    compressed = CompressedLines()
    for line in lines * times:
        compressed.append(line)
    compressed.finish()
    assert list(compressed) == lines * times
    assert list(compressed) == lines * times


def test_much_text_takes_little_memory() -> None:
    compressed, line = CompressedLines(), b"1girl, long hair, a caption that is not very long " * 10
    for number in range(20_000):
        compressed.append(b"%d %s" % (number, line))
    compressed.finish()
    assert sum(map(len, compressed)) > 10e6 > compressed.size * 10


def summary(**changes: Any) -> Summary:
    origin = Origin(dataset="cats", dataset_id=DatasetId("ds_1"), as_of=7, until=7)
    fields: dict[str, Any] = {"trigger": "", "overlay": Overlay(), "images": 2, "several_lines": 0, "left_out": ()}
    return Summary(format="kohya", origin=origin, **fields | changes)


def test_the_dataset_config_has_only_keys_that_sd_scripts_knows() -> None:
    layout = Layout(format="kohya", kohya=Kohya(repeats=10, class_tokens='a "quoted" \\ \x7f 猫/girl'))
    content = dataset_config(layout, summary(trigger="zwx", several_lines=1, overlay=Overlay(separator=" ; ")))
    config = tomllib.loads(content.decode())
    assert set(config) == {"general", "datasets"}
    assert set(config["general"]) == KOHYA_GENERAL
    (dataset,) = config["datasets"]
    (subset,) = dataset.pop("subsets")
    assert (dataset, set(subset)) == ({}, KOHYA_SUBSET)
    assert subset["class_tokens"] == layout.kohya.class_tokens
    assert (subset["num_repeats"], subset["keep_tokens"]) == (10, 1)
    assert f"{subset['image_dir']}/" == layout.folder_of(1) == "10_a _quoted_ _  猫_girl/"
    assert '--caption_separator ";"' in content.decode()
    own = dataset_config(layout, summary(trigger="a ||| b", separator=" ||| "))
    assert '--caption_separator "|||"' in own.decode()
    assert tomllib.loads(own.decode())["datasets"][0]["subsets"][0]["keep_tokens"] == 2


def test_repeats_of_their_own_have_folders_of_their_own() -> None:
    layout = Layout(format="kohya", kohya=Kohya(repeats=10, class_tokens="cat"))
    content = dataset_config(layout, summary(), {3, 1}, has_masks=True).decode()
    subsets = tomllib.loads(content)["datasets"][0]["subsets"]
    assert [(one["image_dir"], one["num_repeats"]) for one in subsets] == [("10_cat", 10), ("30_cat", 30)]
    assert "# The masks are in the folder masks" in content


def test_the_file_of_a_mask_has_a_name_of_its_own() -> None:
    stems = UniqueStems()
    names = ("a-masklabel.png", "a.png", "a_2-masklabel.png", "b.png", "b-masklabel.png")
    assert [stems.add(name, 0, *(("-masklabel",) if name in {"a.png", "b.png"} else ())) for name in names] == [
        *("a-masklabel", "a_2", "a_2-masklabel_2", "b", "b-masklabel_2"),
    ]


def test_without_trigger_and_lines_the_dataset_config_keeps_the_defaults_of_sd_scripts() -> None:
    config = tomllib.loads(dataset_config(Layout(format="kohya", kohya=Kohya(class_tokens="cat")), summary()).decode())
    assert "enable_wildcard" not in config["general"]
    assert "keep_tokens" not in config["datasets"][0]["subsets"][0]
    several = dataset_config(Layout(format="kohya", kohya=Kohya(class_tokens="cat")), summary(trigger="zwx, blue"))
    assert tomllib.loads(several.decode())["datasets"][0]["subsets"][0]["keep_tokens"] == 2


def test_the_summary_names_what_was_left_out() -> None:
    left_out = (LeftOut(ordinal=3, image=ImageId("img_3")),)
    content = json.loads(b"".join(summary_file(summary(left_out=left_out), [b"{}"])))
    assert content["left_out"] == [{"ordinal": 3, "image": "img_3", "reason": "erased"}]
    assert (content["origin"]["as_of"], content["images"], content["files"]) == (7, 2, [{}])


@pytest.mark.parametrize("files", [3, pytest.param(66_000, marks=pytest.mark.slow)])
def test_the_small_directory_gives_the_bytes_of_zipfile(files: int) -> None:
    """Also for more files than a zip file has without its 64-bit extension."""
    written = io.BytesIO(), io.BytesIO()
    with ZipFile(written[0], "w") as plain, open_directory(ZipFile(written[1], "w")) as small:
        for archive in (plain, small):
            for number in range(files):
                with archive.open(file_info(f"猫_{number}.txt", 3), "w") as entry:
                    entry.write(b"cat")
    assert written[0].getvalue() == written[1].getvalue()
    with ZipFile(written[1]) as opened:
        assert len(opened.namelist()) == files
        assert opened.read(f"猫_{files - 1}.txt") == b"cat"
