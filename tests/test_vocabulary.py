"""The project speaks its field's language: private words of earlier versions do not come back.

Identifiers, strings on the wire, log keys, docstrings, comments, screen texts and docs are split into words, at
everything that is no letter and inside camelCase. `docs/glossary.md` says which words are used instead.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = (
    "benchmarks",
    "catalog",
    "contracts",
    "demo_world",
    "deploy",
    "docs",
    "gateway",
    "loratory",
    "tagger",
    "tests",
    "tools",
    "trainer",
)
TEXT = frozenset(
    (".py", ".js", ".html", ".css", ".md", ".toml", ".yaml", ".conf", ".sh", ".txt", ".json", ".jsonl", "")
)
NOT_OURS = re.compile(
    r"gateway/web/vendor/|demo_world/(bases|lists)/|demo_world/taggers/\w+/training\.jsonl|LICENSE\Z|tests/golden/format1\.jsonl"
)

REFUSED = frozenset(
    (
        *("blinded", "chance", "desk", "door", "fact", "facts", "fruitless", "grant", "granted"),
        *("guess", "guesses", "hear", "heard", "hint", "hints", "hung", "knot", "lane"),
        *("lanes", "misfit", "narrated", "narrowing", "nudge", "patience", "shelf", "sight", "standin"),
        *("standing", "standings", "survivors", "thing", "things", "told", "untied"),
        *("wanted", "wish", "wishes"),
    )
)
REFUSED_PHRASES = re.compile(
    r"stand[-_ ]in\b|make_anew|still_at_it|work_off|say_goodbye|hand_back|draw_up|\btell_|class Sign\b"
    r'|"""So (many|long|often)\b',
    re.IGNORECASE,
)
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_WORD = re.compile(r"[a-z]+")


def own_files() -> Iterator[Path]:
    folders = [ROOT / name for name in FOLDERS]
    for file in [*ROOT.glob("*"), *(file for folder in folders for file in folder.rglob("*"))]:
        name = file.relative_to(ROOT).as_posix()
        if file.is_file() and file.suffix in TEXT and not NOT_OURS.search(name) and file != Path(__file__):
            yield file


def refused_words(text: str) -> set[str]:
    """The refused words and phrases of one line."""
    words = _WORD.findall(_CAMEL.sub(" ", text.replace("get_type_hints", "")).lower())  # a name of the standard library
    return set(REFUSED.intersection(words)) | {match[0] for match in REFUSED_PHRASES.finditer(text)}


def test_no_file_uses_a_refused_word() -> None:
    files = list(own_files())
    assert len(files) > 300
    found = [
        f"{file.relative_to(ROOT)}:{number}: {', '.join(sorted(words))}"
        for file in files
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1)
        if (words := refused_words(line))
    ]
    assert found == []


@pytest.mark.parametrize(
    "text",
    ["class JobFact:", "wished = wish_of(x)", "tell_progress()", "isHung", "a stand-in base", '"""So many files'],
)
def test_refused_words_are_found_in_every_spelling(text: str) -> None:
    assert refused_words(text)


@pytest.mark.parametrize(
    "text", ["def sign(self, body: bytes)", "factor", "nothing", "anything", "understanding", "design"]
)
def test_words_that_contain_a_refused_one_are_allowed(text: str) -> None:
    assert not refused_words(text)
