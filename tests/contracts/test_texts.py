"""Texts beside pictures: what they are read as, in which encoding, and how tags are written."""

import json
import re
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.commands.base import Tags, Text
from contracts.errors import Rejected
from contracts.events.base import ReadAs
from contracts.tag_style import FIRST_STYLE, SEPARATOR_PATTERN, TagStyle
from contracts.tags import canonicalize
from contracts.texts import MAX_CAPTION_CHARACTERS
from contracts.texts.reading import MAX_TAGS, TextReading, read_text
from contracts.texts.writing import KAOMOJI, check_style, escape, write_tags

LIST = [json.loads(line) for line in Path(__file__).with_name("texts.jsonl").read_text("utf-8").splitlines()]
SEPARATORS = (", ", ",", "\n", "、", "|||", ";;;", "{", "}", "|", "_", "__", "(", ")", "\\", "\\(", ":1.2)", "<")
WORDS = ("1girl", "solo", "Anna", "long hair", "^_^", ":3", "score_9", "saber \\(fate\\)", "髪", "a photo of", "12345")
PIECES = st.sampled_from((*SEPARATORS, *WORDS, "\ud800", "\u2028", "\x00"))
TEXTS = st.text(max_size=300) | st.lists(PIECES | st.text(max_size=5), max_size=30).map("".join)
READ_AS = st.sampled_from(["auto", "tags", "caption"])


def test_texts_of_the_list_are_read_as_a_person_would_want() -> None:
    """One test for all: a wrong one is named with the reason it was read so."""
    wrong = []
    for row in LIST:
        expected = TextReading(
            kind=row["kind"],
            tags=tuple(row.get("tags", ())),
            caption=row["text"].strip() if row["kind"] == "caption" else None,
            reason=(reading := read_text(row["text"])).reason,
        )
        if reading != expected:
            wrong.append((row["text"], reading))
    assert wrong == []


def test_what_is_read_fits_into_commands() -> None:
    (_, caption), (_, tags) = get_args(Text), get_args(Tags)
    assert (caption.max_length, tags.max_length) == (MAX_CAPTION_CHARACTERS, MAX_TAGS)


def test_the_list_is_long_and_each_text_is_there_once() -> None:
    assert len({row["text"] for row in LIST}) == len(LIST) >= 200
    assert {row["kind"] for row in LIST} == {"tags", "caption", "empty"}


@given(TEXTS, READ_AS)
def test_every_text_can_be_read_and_its_tags_are_canonical(text: str, read_as: ReadAs) -> None:
    reading = read_text(text, read_as)
    assert [canonicalize(tag) for tag in reading.tags] == list(reading.tags)
    assert len(set(reading.tags)) == len(reading.tags)
    assert (reading.kind == "tags") == bool(reading.tags)
    assert (reading.kind == "caption") == (reading.caption is not None)
    assert reading.caption in (None, text.strip())


@given(TEXTS, st.builds(TagStyle, words=st.sampled_from(["spaces", "underscores"]), escape=st.booleans()))
def test_written_tags_are_read_as_the_same_tags(text: str, style: TagStyle) -> None:
    tags = read_text(text, "tags").tags
    again = read_text(write_tags(tags, style)[:MAX_CAPTION_CHARACTERS], "tags")
    assert again.tags == tags
    assert again.problems == ()


@pytest.mark.parametrize(
    "repeated", ["_", "{", "{a|", "(", "a__b", "\\(", "1 ", "a@", "aa.", "(a:1),", "long hair, ", "a\n"]
)
@pytest.mark.parametrize("read_as", ["auto", "tags", "caption"])
def test_the_longest_texts_are_read_and_longer_ones_refused(repeated: str, read_as: ReadAs) -> None:
    longest = (repeated * MAX_CAPTION_CHARACTERS)[:MAX_CAPTION_CHARACTERS]
    assert read_text(longest, read_as).kind in ("tags", "caption", "empty")
    with pytest.raises(Rejected, match="20000") as refused:
        read_text(longest + "x", read_as)
    assert refused.value.extra == {"reason": "too-long"}


def test_what_is_asked_for_goes_before_the_rule() -> None:
    assert read_text("1girl, solo", "caption").caption == "1girl, solo"
    named = read_text("Anna Schmidt, hat", "tags")
    assert (named.kind, named.tags, named.reason) == ("tags", ("anna_schmidt", "hat"), "requested")
    assert read_text("1girl, smile ||| hat;;; bow", "tags").tags == ("1girl", "smile", "hat", "bow")
    assert read_text("{red, dark|blue} dress, hat", "tags").problems != ()


@pytest.mark.parametrize(
    "text",
    ["artist: Anna Schmidt", "(Anna Schmidt:1.2), hat", "Anna_Schmidt_(singer)", "1girl, Source Code", "Solo, Anna"],
)
def test_no_marker_outweighs_a_capital_letter(text: str) -> None:
    assert read_text(text).reason == "capitals"


def test_escapes_weights_and_emphasis_are_undone() -> None:
    text = r"saber \(fate\), saber (fate), (saber_(fate):1.2), ((saber_(fate))), (smile), ((smile:1.1):1.3)"
    assert read_text(text, "tags").tags == ("saber_(fate)", "smile")


def test_entries_that_are_no_tags_are_named() -> None:
    reading = read_text(f"hat, {'x' * 300}, a\u202eb", "tags")
    assert reading.tags == ("hat",)
    assert [sentence.startswith("a tag ") for sentence in reading.problems] == [True, True]
    nothing = read_text("___", "tags")
    assert (nothing.kind, nothing.reason, len(nothing.problems)) == ("empty", "no-tags", 1)
    many = read_text(",".join("x" * 201 for _ in range(50)), "tags")
    assert many.problems[-1] == "and 41 more entries that are no tags"


def test_an_image_has_a_bounded_number_of_tags() -> None:
    text = ", ".join(f"t{number}" for number in range(MAX_TAGS + 5))
    reading = read_text(text, "tags")
    assert len(reading.tags) == MAX_TAGS
    assert reading.problems == ("an image has at most 1000 tags; the last 5 were left out",)
    assert read_text(text).reason == "too-many"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("1girl", "marker"),
        ("long hair, smile", "known-tags"),
        ("Anna, hat", "capitals"),
        ("1girl, anna@example.com", "contact"),
        ("1girl, 030 1234567", "number"),
        ("name: anna, hat", "key-value"),
        ('["hat"]', "code"),
        ("1girl, she smiles at me", "sentence"),
        ("a ||| b", "trainer-syntax"),
        ("1girl, hat\n1boy, hat", "several-lines"),
        ("sks dog", "single-phrase"),
        ("anna, peter", "few-known-tags"),
        ("\u200b, 1girl", "not-a-tag"),
    ],
)
def test_a_reading_says_why(text: str, reason: str) -> None:
    assert read_text(text).reason == reason


@pytest.mark.parametrize("name", ["anna schmidt", "peter_müller", "田中太郎", "김민수", "иван иванов", "elon musk"])
def test_names_in_small_letters_are_captions_without_a_marker(name: str) -> None:
    assert read_text(f"{name}, {name} junior").kind == "caption"
    if "_" not in name:
        assert read_text(f"{name}, smile").kind == "caption"


def test_the_first_style_writes_what_texts_of_version_1_say() -> None:
    tags = ["score_9", "long_hair", "^_^", "t_t", "saber_(fate)", "cz_75"]
    assert write_tags(tags, FIRST_STYLE) == "score 9, long hair, ^_^, t_t, saber (fate), cz_75"


def test_the_default_style_keeps_scores_sources_ratings_and_kaomoji() -> None:
    tags = ["score_9", "score_8_up", "source_anime", "rating_safe", "long_hair", "^_^", "high_score"]
    assert write_tags(tags) == "score_9, score_8_up, source_anime, rating_safe, long hair, ^_^, high score"


@pytest.mark.parametrize(
    ("style", "text"),
    [
        (TagStyle(words="underscores"), "long_hair, saber_(fate), score_9"),
        (TagStyle(escape=True), "long hair, saber \\(fate\\), score_9"),
        (TagStyle(separator=","), "long hair,saber (fate),score_9"),
        (TagStyle(separator="\n"), "long hair\nsaber (fate)\nscore_9"),
        (TagStyle(keep=(r"long_.*", r"\w+_\(fate\)")), "long_hair, saber_(fate), score 9"),
        (TagStyle(keep=(r"hair",)), "long hair, saber (fate), score 9"),
    ],
)
def test_a_style_says_how_tags_are_written(style: TagStyle, text: str) -> None:
    check_style(style)
    assert write_tags(["long_hair", "saber_(fate)", "score_9"], style) == text


@pytest.mark.parametrize(
    "pattern",
    ["(a+)+", "a*b*c*", "a{2}{3}b?", "[", "[[a]", "[a--b]", "\\", "\\1", "a**", "*", "[z-a]", "^a", "a$", "(?i)a"],
)
def test_patterns_that_are_broken_or_could_take_for_ever_are_refused(pattern: str) -> None:
    with pytest.raises(Rejected, match="pattern") as refused:
        check_style(TagStyle(keep=(pattern,)))
    assert refused.value.extra == {"reason": "bad-pattern"}


@given(st.text(alphabet="ab_[]()*+?{}\\|^$.-d1,&~", max_size=12), st.text(alphabet="ab_1", max_size=200))
def test_every_pattern_is_refused_or_usable(pattern: str, tag: str) -> None:
    style = TagStyle(keep=(pattern,))
    try:
        check_style(style)
    except Rejected:
        return
    assert write_tags([tag], style) in (tag, tag.replace("_", " "))


@pytest.mark.parametrize(
    ("separator", "allowed"),
    [
        (", ", True),
        (",", True),
        (",\n", True),
        ("\n", True),
        (" ||| ", True),
        (";;;", True),
        (" ", False),
        ("; ", False),
    ],
)
def test_a_separator_is_one_that_no_tag_contains(separator: str, allowed: bool) -> None:
    assert bool(re.search(SEPARATOR_PATTERN, separator)) is allowed


@pytest.mark.parametrize("face", sorted(KAOMOJI))
@pytest.mark.parametrize("style", [FIRST_STYLE, TagStyle()])
def test_kaomoji_keep_their_underscores(face: str, style: TagStyle) -> None:
    assert write_tags([face, "long_hair"], style) == f"{face}, long hair"
    assert read_text(face, "tags").tags == (face,)


def test_there_are_nineteen_kaomoji() -> None:
    assert len(KAOMOJI) == 19


def test_backslashes_are_escaped_before_parentheses() -> None:
    assert escape("saber (fate)") == "saber \\(fate\\)"
    assert escape("\\(^o^)/") == "\\\\\\(^o^\\)/"
