"""The bytes of a text file as text: by its byte order mark, as UTF-8, or in an older encoding where that is sure. Pure.

What is not sure is rejected: a wrong encoding would put characters into captions that nobody wrote.
"""

import codecs
import re
from collections.abc import Iterator

import msgspec

from contracts.errors import Rejected
from contracts.texts import MAX_CAPTION_CHARACTERS

MAX_TEXT_BYTES = 4 * MAX_CAPTION_CHARACTERS + 4
"""No encoding below takes more than four bytes per character, and four for a byte order mark."""

ENCODINGS = frozenset(
    (
        *("ascii", "utf-8", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"),
        *("cp932", "shift_jis", "shift_jis_2004", "euc_jp", "iso2022_jp"),
        *("gbk", "gb18030", "gb2312", "big5", "cp950", "euc_kr", "cp949"),
        *(f"cp{number}" for number in (437, 850, 852, 866, 874, *range(1250, 1259))),
        *(f"iso8859-{number}" for number in (*range(1, 12), *range(13, 17))),
        *("koi8-r", "koi8-u", "mac-roman", "tis-620"),
    )
)
"""Encodings that can be named, by Python's names; aliases of these (`sjis`, `latin1`) can be named, too."""

_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_BINARY = re.compile(r"[\x00-\x08\x0e-\x1f\x7f]")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")

_KANA = re.compile(r"[\u3041-\u3096\u30a1-\u30fa]")
_JAPANESE = re.compile(
    r"[\t\n\f\r -~\u3000-\u3015\u301c\u3041-\u3096\u309b-\u309e\u30a1-\u30fe\u4e00-\u9fff\uff01-\uff5e\u2018-\u201d"
    r"\u2025\u2026\u2015\u2190-\u2193\u2460-\u2473\u25a0-\u25ef\u2605\u2606\u2640\u2642\u266a\u00d7]*"
)
"""What Japanese texts are made of, without the half-width katakana that Chinese and Korean bytes turn into."""

_WESTERN_LETTERS = "àâäáãåæçèéêëíîïñóôöøúüßœÀÂÄÁÃÅÆÇÈÉÊËÍÎÏÑÓÔÖØÚÜŒ"
_WESTERN_AT_END = "ìòù"
"""Italian and French have these at the end of words; inside words they are Czech letters read wrongly."""
_WORD = f"A-Za-z{_WESTERN_LETTERS}{_WESTERN_AT_END}"
_WESTERN = re.compile(
    "|".join(
        (
            r"[\t\n\f\r -~]",
            f"[{_WESTERN_LETTERS}]",
            f"[{_WESTERN_AT_END}](?![{_WORD}])",
            r"(?<=[A-Za-z])’(?=(?:s|t|d|m|ll|re|ve|S|T|D|M|LL|RE|VE)\b)",  # it’s
            rf"(?<=\b[cdjlmnstCDJLMNST])’(?=[{_WORD}])|(?<=\b[Qq]u)’(?=[{_WORD}])",  # l’or
            r"(?<=s)’(?=[\s,.]|\Z)",  # the dogs’ toys
            rf"(?<![{_WORD}])[‘“„«](?=[\w\xa0])",
            r"(?<=[\w\xa0.,!?])[”»“](?!\w)",
            r"(?<=[\s\d])[–—](?=[\s\d])",
            r"(?<=[\w.])…(?!\w)",
            r"\xa0",
            r"(?<=\d)[°€]|(?<=\d )€|[£€](?=\d)",
        )
    )
)


class DecodedText(msgspec.Struct, frozen=True):
    """A text with `\\n` at its line ends and without byte order mark, and Python's name of its encoding."""

    text: str
    encoding: str


def decode_text(content: bytes, encoding: str | None = None) -> DecodedText:
    """The text in these bytes. `encoding` names it, else it is found: byte order mark, UTF-8, or what is sure.

    Rejected, with a `reason`: `too-long`, `binary`, `no-such-encoding` (the name), `wrong-encoding` (the bytes are not
    in the named one, or not in that of their byte order mark), `unknown-encoding` (nothing is sure).
    """
    if len(content) > MAX_TEXT_BYTES:
        raise _too_long()
    found = _named(encoding) if encoding is not None else _marked(content) or _found(content)
    try:
        text = content.decode(found)
    except UnicodeDecodeError as error:
        raise Rejected(
            f"it is not {found} text (byte {error.start}); name its encoding with --encoding", reason="wrong-encoding"
        ) from error
    text = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    if _BINARY.search(text):
        raise Rejected(
            f"it is not text, for it has control characters as {found}; if it is text, name its encoding with "
            "--encoding",
            reason="binary",
        )
    if len(text) > MAX_CAPTION_CHARACTERS:
        raise _too_long()
    return DecodedText(text, found)


def _too_long() -> Rejected:
    return Rejected(f"it has more than {MAX_CAPTION_CHARACTERS} characters", reason="too-long")


def _named(encoding: str) -> str:
    try:
        name = codecs.lookup(encoding).name if re.fullmatch(r"[\w.:-]{1,40}", encoding, re.ASCII) else ""
    except LookupError:
        name = ""
    if name == "utf-8-sig":
        name = "utf-8"
    if name not in ENCODINGS:
        raise Rejected(
            f"--encoding cannot be {encoding[:40]!r}; usual ones are utf-8, utf-16, cp1252, cp932 (Shift-JIS), gb18030",
            reason="no-such-encoding",
        )
    return name


def _marked(content: bytes) -> str | None:
    return next((name for mark, name in _BYTE_ORDER_MARKS if content.startswith(mark)), None)


def _found(content: bytes) -> str:
    """The encoding of bytes without a mark. Rejected: there is not exactly one that is sure."""
    if b"\x00" in content:
        candidates = list(_utf_16(content))
        if not candidates:
            raise Rejected(
                "it is not text, for it has NUL bytes; if it is UTF-16, say so with --encoding utf-16-le",
                reason="binary",
            )
    elif _decodes(content, "utf-8") is not None:
        return "utf-8"
    else:
        candidates = [name for name, is_sure in (("cp932", _is_japanese), ("cp1252", _is_western)) if is_sure(content)]
    if len(candidates) != 1:
        raise Rejected(
            "it is not UTF-8, and no other encoding is sure; name it with --encoding, as cp1252 or cp932 (Shift-JIS)",
            reason="unknown-encoding",
        )
    return candidates[0]


def _decodes(content: bytes, encoding: str) -> str | None:
    try:
        return content.decode(encoding)
    except UnicodeDecodeError:
        return None


def _utf_16(content: bytes) -> Iterator[str]:
    """UTF-16 in the order in which all NUL bytes are the high bytes of ASCII characters, at least two of them.

    In the other order they would be characters such as U+4E00, which no text has alone; a text with both is not sure.
    """
    for encoding, high, low in (("utf-16-le", 1, 0), ("utf-16-be", 0, 1)):
        if content.count(0) >= 2 and 0 not in content[low::2] and 0 in content[high::2]:
            text = _decodes(content, encoding)
            if text is not None and not _CONTROL.search(text):
                yield encoding


def _is_japanese(content: bytes) -> bool:
    """Valid Shift-JIS with kana and no characters that bytes of other encodings give by accident."""
    text = _decodes(content, "cp932")
    return text is not None and _KANA.search(text) is not None and _JAPANESE.fullmatch(text) is not None


def _is_western(content: bytes) -> bool:
    """Mostly ASCII letters, and each other character where Western languages have it."""
    text = _decodes(content, "cp1252")
    if text is None:
        return False
    letters = sum(character.isalpha() for character in text)
    others = sum(character.isalpha() and not character.isascii() for character in text)
    return letters >= 3 * others and all(_WESTERN.match(text, at) for at in range(len(text)))
