"""Bytes of text files: which encodings are found, and that what is not sure is refused."""

import codecs
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.errors import Rejected
from contracts.texts import MAX_CAPTION_CHARACTERS
from contracts.texts.decoding import ENCODINGS, decode_text

LIST = [json.loads(line)["text"] for line in Path(__file__).with_name("texts.jsonl").read_text("utf-8").splitlines()]


def reason_of(content: bytes, encoding: str | None = None) -> object:
    with pytest.raises(Rejected) as refused:
        decode_text(content, encoding)
    return refused.value.extra["reason"]


@pytest.mark.parametrize(
    ("content", "text", "encoding"),
    [
        (b"", "", "utf-8"),
        (b"1girl, solo", "1girl, solo", "utf-8"),
        ("青い髪".encode(), "青い髪", "utf-8"),
        (codecs.BOM_UTF8 + "é".encode(), "é", "utf-8"),
        (codecs.BOM_UTF16_LE + "é, a".encode("utf-16-le"), "é, a", "utf-16-le"),
        (codecs.BOM_UTF16_BE + "é, a".encode("utf-16-be"), "é, a", "utf-16-be"),
        ("1girl, solo".encode("utf-16-le"), "1girl, solo", "utf-16-le"),
        ("1girl, solo".encode("utf-16-be"), "1girl, solo", "utf-16-be"),
        ("初音ミク, 青い髪".encode("utf-16-le"), "初音ミク, 青い髪", "utf-16-le"),
        (b"\x8f\x89\x89\xb9\x83~\x83N, \x90\xc2\x82\xa2\x94\xaf", "初音ミク, 青い髪", "cp932"),
        (b"a woman\x92s face", "a woman’s face", "cp1252"),
        (b"l\x92\xe9t\xe9 \xe0 Paris, cr\xe8me", "l’été à Paris, crème", "cp1252"),
        (b"M\xe4dchen mit wei\xdfem Kleid", "Mädchen mit weißem Kleid", "cp1252"),
        (b"\x93quoted\x94 text", "“quoted” text", "cp1252"),
        (b"a\r\nb\rc\n", "a\nb\nc\n", "utf-8"),
    ],
)
def test_the_encoding_is_found(content: bytes, text: str, encoding: str) -> None:
    decoded = decode_text(content)
    assert (decoded.text, decoded.encoding) == (text, encoding)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("text", LIST[::7])
def test_texts_with_a_mark_and_utf_8_are_always_read_right(text: str, encoding: str) -> None:
    assert decode_text(text.encode(encoding)).text == text.replace("\r\n", "\n")


OTHER_ENCODINGS = [
    ("gbk", "一个女孩坐在公园的长椅上，微笑"),
    ("big5", "一個女孩坐在公園的長椅上，微笑"),
    ("euc_kr", "공원 벤치에 앉아 있는 소녀"),
    ("euc_jp", "公園で遊ぶ子供たち、ミク"),
    ("cp1251", "Девушка сидит на скамейке в парке"),
    ("koi8-r", "Девушка сидит на скамейке в парке"),
    ("cp1253", "Η Μαρία στη θάλασσα"),
    ("cp1255", "ילדה עם שמלה אדומה"),
    ("cp1256", "فتاة تجلس على مقعد في الحديقة"),
    ("tis-620", "เด็กผู้หญิงนั่งอยู่บนม้านั่ง"),
    ("cp1250", "žlutý kůň, dívka s dlouhými vlasy a černé oči"),
    ("cp1250", "dziewczyna w żółtej sukience, łąka, długie włosy"),
    ("cp1250", "hosszú hajú lány, kék szemű, őszi erdő"),
    ("cp1254", "uzun saçlı kız, gülümsüyor, yeşil gözlü"),
    ("cp850", "Mädchen mit weißem Kleid, schöne Blume"),
    ("mac-roman", "une fille aux cheveux châtains, été"),
]


@pytest.mark.parametrize(("encoding", "text"), OTHER_ENCODINGS)
def test_what_is_not_sure_is_refused_and_read_when_it_is_named(encoding: str, text: str) -> None:
    content = text.encode(encoding)
    assert reason_of(content) == "unknown-encoding"
    with pytest.raises(Rejected, match="--encoding"):
        decode_text(content)
    assert decode_text(content, encoding).text == text


@given(st.binary(max_size=200))
def test_any_bytes_are_decoded_or_refused_with_a_reason(content: bytes) -> None:
    try:
        decoded = decode_text(content)
    except Rejected as refused:
        assert refused.extra["reason"] in {"binary", "unknown-encoding", "wrong-encoding"}
        return
    assert decoded.encoding in ENCODINGS
    assert "\x00" not in decoded.text


@pytest.mark.parametrize(
    "content",
    [b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR", b"a\x00b", b"\x00\x00\x00\x00", b"esc \x1b[1m", b"\xff\xfea\x00\x00\x00"],
)
def test_what_is_no_text_is_refused(content: bytes) -> None:
    assert reason_of(content) == "binary"


def test_bytes_that_are_not_in_the_encoding_they_should_be_in_are_refused() -> None:
    assert reason_of(b"\xef\xbb\xbf\xff") == "wrong-encoding"
    assert reason_of("é".encode("cp1252"), "utf-8") == "wrong-encoding"
    assert reason_of(b"\xff\xfea") == "wrong-encoding"


@pytest.mark.parametrize(
    "name", ["", "rot13", "no-such", "punycode", "unicode_escape", "base64", "a" * 500, "../x", "\x00"]
)
def test_names_of_no_encoding_of_texts_are_refused(name: str) -> None:
    assert reason_of(b"a", name) == "no-such-encoding"


@pytest.mark.parametrize(
    "name", sorted(ENCODINGS | {"sjis", "latin1", "UTF8", "utf-8-sig", "windows-1252", "shift-jis"})
)
def test_every_encoding_and_its_usual_aliases_can_be_named(name: str) -> None:
    decoded = decode_text("1girl, solo".encode(name), name)
    assert decoded.text == "1girl, solo"
    assert decoded.encoding in ENCODINGS


def test_a_text_has_a_maximum_length_in_every_encoding() -> None:
    longest = "字" * MAX_CAPTION_CHARACTERS
    assert decode_text(longest.encode()).text == longest
    assert decode_text(longest.encode("utf-32")).text == longest
    for content in (f"{longest}a".encode(), b"a" * 10 * MAX_CAPTION_CHARACTERS):
        assert reason_of(content) == "too-long"
