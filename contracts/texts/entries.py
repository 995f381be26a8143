"""What one entry of a list says about the list: that it is no list of tags, or that it is one. Pure.

Entries are as received, without blank ends. `docs/texts.md` has these rules in words.
"""

import re
import unicodedata
from collections.abc import Callable

from contracts.errors import Rejected
from contracts.tags import canonicalize
from contracts.texts.known_tags import EAST_ASIAN_ENDINGS, FACES, MARKERS, MODIFIERS, NAMESPACES, NOUNS, TAGS
from contracts.texts.writing import KAOMOJI

MAX_WORDS = 8
"""Of an entry; titles of series have that many."""
MAX_LETTERS_WITHOUT_SPACES = 20
"""Of scripts that write without spaces: what is longer is a sentence."""
MAX_DIGITS = 4
"""More are a telephone number, a postal code, a date or an id."""

_ALL_FACES = KAOMOJI | FACES
_ESCAPED = re.compile(r"\\([\\()])")
_WRAPPED = re.compile(r"\(+([^()]*(?:\([^()]*\)[^()]*)*)\)+\Z")
_WEIGHTED = re.compile(r"(?<!\\)\(.+:[0-9]+(?:\.[0-9]+)?\)\Z")
_COUNT = re.compile(r"(?:[1-9]|6\+|[2-9]\+)_?(?:girl|boy|other|woman|women|man|men|cat|dog)s?\Z")
_SCORE = re.compile(
    r"score_\d+(?:_up|\+)?\Z|year_\d{4}\Z|source_(?:anime|cartoon|furry|pony|comic|3d|photo)\Z"
    r"|rating_(?:safe|questionable|explicit|general|sensitive|suggestive)\Z"
)
_QUALIFIED = re.compile(r".*\w_\(.+\)\Z|.*\w[ _]?\\\(.+\\\)\Z")
_UNDERSCORED = re.compile(r"[^\s_]+(?:_[^\s_]+)+\Z")

_NAMESPACED = re.compile(rf"(?:{'|'.join(sorted(NAMESPACES))}):\s?\S")
_KEY_VALUE = re.compile(r"\w:\s")
_CONTACT = re.compile(
    r"\S@\S+\.\w|(?:^|\s)@\w|://|\bwww\.|[^\W\d]{2,}\.[a-z]{2,}|(?:^|\s)[/~]\w|\w/[\w.-]+/|#\w|(?:^|\s)[A-Za-z]:\\"
)
_MONEY = re.compile(r"[$€£¥₩₽₹]\s?\d|\d\s?[$€£¥₩₽₹]")
_ADDRESS = re.compile(
    r"\b\d+\w?\s(?:\w+\s)+(?:street|st|road|rd|avenue|ave|drive|square)\b|(?:stra(?:ß|ss)e|str)\.?\s\d"
)
_CODE = re.compile(r"[{}\[\]<>=`\"*%$^|“”«»「」『』]|\\(?![()\\])|;(?:\s|\Z)|\(\)|[^\W_]\(\w*\)")
_SENTENCE = re.compile(r"[。．｡…]|[^\W\d]{3,}\.(?:\s|\Z)|\b(?:i'm|i’m)\b|\w(?:n't|'re|'ll|'ve|n’t|’re|’ll|’ve)\b")
_PROSE_START = re.compile(
    r"(?:a|an|this|these|there|here|i|you|he|she|they|we|it|my|our|your|his|her|their|please|in the|on the|at the"
    r"|(?:photo|photograph|picture|image|portrait|painting|drawing|close-up|closeup|shot|view|selfie) of)\s"
)
_PROSE_WORD = re.compile(
    r"\s(?:a|an|i|he|she|they|we|my|our|your|her|his|their|its)\s|(?<!\sof)\sthe\s"
    r"|\b(?:is|are|am|was|were|has|have|had|been|who|which|named|called|born|lives"
    r"|ein|eine|einer|einem|einen|ist|mit|une|est|avec|una|está)\b"
)


def undo_syntax(entry: str) -> str:
    """Without escapes, weights and the parentheses of emphasis: `saber \\(fate\\)`, `((smile))`, `(smile:1.2)`.

    Applied until nothing changes, so that what was read once is read the same again. Rejected as in `canonicalize`.
    """
    while True:
        tag = _ESCAPED.sub(r"\1", canonicalize(entry))
        if tag not in _ALL_FACES and (wrapped := _WRAPPED.match(tag)) is not None:
            tag = wrapped[1]
        if tag == entry:
            return tag
        entry = tag


def objection(entry: str) -> str | None:
    """Why a list with this entry is not taken for tags, as a code; none if it may be.

    `not-a-tag`, `contact` (address, e-mail, URL, path, hashtag), `number` (of a person, money, date), `code`,
    `sentence`, `capitals` (a name of people or places). None for usual tags: `Long Hair`, `looking to the side`.
    """
    tag = _tag(entry)
    if tag is None:
        return "not-a-tag"
    if tag in _ALL_FACES or tag in TAGS or tag in MARKERS or not any(map(str.isalnum, tag)):
        return None
    return next((reason for reason, applies in _OBJECTIONS if applies(entry)), None)


def is_marker(entry: str) -> bool:
    """Is it something that only lists of tags have?"""
    tag = _tag(entry)
    if tag is None:
        return False
    weighted = _WEIGHTED.search(entry) is not None and _WEIGHTED.match(entry) is not None
    qualified = _QUALIFIED.match(entry.lower()) is not None
    by_form = any(pattern.match(tag) for pattern in (_COUNT, _SCORE, _NAMESPACED))
    return tag in MARKERS or by_form or weighted or qualified


def is_key_value(entry: str) -> bool:
    """`camera: nikon`. Some titles look the same (`honkai: star rail`); `artist: name` and its like do not count."""
    return _KEY_VALUE.search(entry) is not None and not _NAMESPACED.match(entry)


def is_underscored(entry: str) -> bool:
    return _UNDERSCORED.match(entry) is not None


def is_known(entry: str) -> bool:
    """Is it a usual tag, or does it end with a noun that usual tags end with?"""
    tag = _tag(entry)
    if tag is None:
        return False
    if tag in TAGS or tag in MARKERS or tag in _ALL_FACES or tag.endswith(EAST_ASIAN_ENDINGS):
        return True
    words = tag.split("_")
    # "peter's house" names somebody
    return len(words) <= 4 and _is_noun(words[-1]) and "'s" not in tag and "’s" not in tag


def _tag(entry: str) -> str | None:
    try:
        return undo_syntax(entry)
    except Rejected:
        return None


def _is_noun(word: str) -> bool:
    return word in NOUNS or word.removesuffix("s") in NOUNS or word.removesuffix("es") in NOUNS


def _has_capitals(entry: str) -> bool:
    """Capital letters, but in an entry all of whose words are usual ones."""
    if not any(map(str.isupper, entry)):
        return False
    tag = undo_syntax(entry)
    if _COUNT.match(tag) or _SCORE.match(tag):
        return False
    return not all(word in MODIFIERS or _is_noun(word) for word in tag.split("_"))


def _is_sentence(entry: str) -> bool:
    if _SENTENCE.search(entry):
        return True
    words = entry.lower().split()
    text = " ".join(words)
    if _PROSE_START.match(text) or _PROSE_WORD.search(text) or len(words) > MAX_WORDS:
        return True
    return any(sum(map(_is_unspaced, word)) > MAX_LETTERS_WITHOUT_SPACES for word in words)


def _is_unspaced(character: str) -> bool:
    return character > "\u0e00" and unicodedata.category(character) == "Lo"


_OBJECTIONS: tuple[tuple[str, Callable[[str], bool]], ...] = (
    ("contact", lambda entry: _CONTACT.search(entry) is not None or _ADDRESS.search(entry.lower()) is not None),
    (
        "number",
        lambda entry: (
            sum(map(str.isdigit, entry)) > MAX_DIGITS + 4 * bool(_WEIGHTED.match(entry)) or bool(_MONEY.search(entry))
        ),
    ),
    ("code", lambda entry: _CODE.search(entry) is not None),
    ("sentence", _is_sentence),
    ("capitals", _has_capitals),
)
