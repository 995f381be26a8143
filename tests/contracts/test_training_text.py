"""Training texts: version 1 says what it always said, version 2 has the trigger first and a style."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.errors import Rejected
from contracts.tag_style import TagStyle
from contracts.training_text import DEFAULT_TEMPLATE, RULES, TEXT_VERSION, training_text

SCORES = ("score_9", "long_hair", "^_^", "saber_(fate)")
Given = tuple[str, tuple[str, ...], str | None]

BOTH: list[tuple[Given, str]] = [
    (("", (), None), ""),
    (("", ("long_hair", "t_t"), None), "long hair, t_t"),
    (("sks", (), None), "sks"),
    (("sks", ("hat",), None), "sks, hat"),
    (("sks", ("sks", "hat"), None), "sks, hat"),
    (("cat", ("cat_ears",), None), "cat, cat ears"),
    (("sks", ("hat",), "asleep"), "sks, asleep"),
    (("sks", ("hat",), ""), "sks"),
    (("sks", (), "a photo of sks, asleep"), "a photo of sks, asleep"),
    (("cat", (), "a category"), "cat, a category"),
    (("", ("hat",), "score_9, {a|b} ||| x"), "score_9, {a|b} ||| x"),
]
DIFFERENT: list[tuple[Given, str, str]] = [
    (("", SCORES, None), "score 9, long hair, ^_^, saber (fate)", "score_9, long hair, ^_^, saber (fate)"),
    (("sks", ("hat", "sks"), None), "hat, sks", "sks, hat"),
    (("Mika", ("hat", "mika"), None), "Mika, hat, mika", "Mika, hat"),
    (("red hat", ("bow", "red_hat"), None), "bow, red hat", "red hat, bow"),
    (("a, b", ("b", "c"), None), "a, b, b, c", "a, b, c"),
]


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(("given", "text"), BOTH)
def test_what_both_versions_say(version: int, given: Given, text: str) -> None:
    assert training_text(*given, version=version) == text


@pytest.mark.parametrize(("given", "first", "second"), DIFFERENT)
def test_where_the_versions_differ(given: Given, first: str, second: str) -> None:
    assert training_text(*given, version=1) == first
    assert training_text(*given, version=2) == training_text(*given) == second


@pytest.mark.parametrize(
    ("style", "text"),
    [
        (TagStyle(words="underscores"), "sks, score_9, long_hair, ^_^, saber_(fate)"),
        (TagStyle(escape=True), "sks, score_9, long hair, ^_^, saber \\(fate\\)"),
        (TagStyle(separator=" ||| "), "sks ||| score_9 ||| long hair ||| ^_^ ||| saber (fate)"),
        (TagStyle(keep=()), "sks, score 9, long hair, ^_^, saber (fate)"),
    ],
)
def test_version_2_writes_tags_in_a_style_and_captions_as_they_are(style: TagStyle, text: str) -> None:
    assert training_text("sks", SCORES, None, style=style) == text
    assert training_text("sks", SCORES, "a_(b)", style=style) == "sks, a_(b)"
    assert training_text("sks", SCORES, None, version=1, style=style) == "sks, score 9, long hair, ^_^, saber (fate)"


TEMPLATES: list[tuple[Given, str, str]] = [
    (("sks", ("hat", "sks"), "asleep"), "sks, hat, asleep", "sks, asleep, hat"),
    (("", ("hat",), "asleep"), "hat, asleep", "asleep, hat"),
    (("sks", ("hat",), None), "sks, hat", "sks, hat"),
    (("sks", ("hat",), ""), "sks, hat", "sks, hat"),
    (("sks", (), "asleep"), "sks, asleep", "sks, asleep"),
    (("sks", (), "a photo of sks"), "a photo of sks", "a photo of sks"),
    (("sks", ("sks",), "a photo of sks"), "a photo of sks", "a photo of sks"),
    (("sks", ("hat",), "a photo of sks"), "sks, hat, a photo of sks", "a photo of sks, hat"),
    (("sks", (), None), "sks", "sks"),
    (("", (), ""), "", ""),
    (("", (), None), "", ""),
    (
        ("猫娘", ("長い髪", "^_^"), "窓辺で眠る猫娘。"),
        "猫娘, 長い髪, ^_^, 窓辺で眠る猫娘。",
        "猫娘, 窓辺で眠る猫娘。, 長い髪, ^_^",
    ),
    (
        ("ミカ", ("o_o", "saber_(fate)"), "公園 (春)"),
        "ミカ, o_o, saber (fate), 公園 (春)",
        "ミカ, 公園 (春), o_o, saber (fate)",
    ),
    (("", ("score_9",), "a|b, ||| c"), "score_9, a|b, ||| c", "a|b, ||| c, score_9"),
]


@pytest.mark.parametrize(("given", "tags_first", "caption_first"), TEMPLATES)
def test_the_templates_with_tags_and_caption(given: Given, tags_first: str, caption_first: str) -> None:
    assert training_text(*given, template=2) == tags_first
    assert training_text(*given, template=3) == caption_first


@pytest.mark.parametrize("template", [1, 2, 3])
def test_without_a_caption_all_templates_are_the_same(template: int) -> None:
    style = TagStyle(words="underscores", separator=" ||| ")
    assert training_text("sks", SCORES, None, template, style=style) == training_text("sks", SCORES, None, style=style)


def test_a_caption_stays_as_it_is_written_in_every_template() -> None:
    style = TagStyle(escape=True, separator=";;;")
    assert training_text("sks", ("a_(b)",), "c_(d)", 2, style=style) == "sks;;;a \\(b\\);;;c_(d)"
    assert training_text("sks", ("a_(b)",), "c_(d)", 3, style=style) == "sks;;;c_(d);;;a \\(b\\)"


@given(st.text(max_size=20), st.lists(st.sampled_from(["hat", "long_hair", "a", "t_t"]), unique=True))
def test_the_trigger_is_first_and_no_tag_is_lost(trigger: str, tags: list[str]) -> None:
    text = training_text(trigger, tags, None, style=TagStyle(words="underscores"))
    assert text.startswith(trigger)
    named = {*text.split(", "), *("_".join(part.casefold().split()) for part in trigger.split(","))}
    assert set(tags) <= named


@pytest.mark.parametrize(("version", "template"), [(1, 2), (1, 3), (2, 0), (2, 4), (0, 1), (3, 1)])
def test_unknown_rules_are_refused(version: int, template: int) -> None:
    with pytest.raises(Rejected, match=f"no template {template} .* version {version}") as refused:
        training_text("", (), None, template, version=version)
    assert refused.value.extra == {"template": template}
    assert (TEXT_VERSION, DEFAULT_TEMPLATE) in RULES
