"""What a file says about a picture: a text whose kind is not known, or a caption and tags. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from contracts.errors import Rejected
from contracts.events.base import ReadAs
from contracts.tags import canonicalize
from contracts.texts import MAX_CAPTION_CHARACTERS
from contracts.texts.reading import MAX_TAGS, read_text


@dataclass(frozen=True)
class Texts:
    """Either `text`, or `caption` and `tags`, which are canonical. `problems`: sentences about what was left out."""

    text: str | None = None
    caption: str | None = None
    tags: tuple[str, ...] = ()
    problems: tuple[str, ...] = field(default=(), compare=False)

    def __bool__(self) -> bool:
        return bool(self.text or self.caption or self.tags)


NO_TEXTS = Texts()


def from_fields(text: object = None, caption: object = None, tags: object = None) -> Texts:
    """Of fields as JSON and CSV files have them. Tags are a list, or a text with commas.

    A text or a caption alone can be either. Beside tags, a text that only repeats them is no caption.
    """
    problems: list[str] = []
    plain, written = _string(text, "text", problems), _string(caption, "caption", problems)
    read = _tags(tags, problems)
    if not read:
        return Texts(text=written or plain, problems=tuple(problems))
    if written is None and plain is not None and read_text(plain, "tags").tags != read:
        written = plain
    return Texts(caption=written, tags=read, problems=tuple(problems))


def to_send(texts: Texts, read_as: ReadAs) -> Texts:
    """As a text where that says the same, because a later import sees what such a text changed, and what a person did.

    Asked to read texts as captions, tags become part of the caption, so that nothing is public.
    """
    if texts.text is not None or not texts:
        return texts
    joined = ", ".join(part for part in (texts.caption, ", ".join(texts.tags)) if part)
    if len(joined) > MAX_CAPTION_CHARACTERS:
        return texts
    reading = read_text(joined, read_as)
    is_same = (reading.caption, reading.tags) == (texts.caption, texts.tags)
    return Texts(text=joined) if is_same or (texts.tags and read_as == "caption") else texts


def _string(value: object, name: str, problems: list[str]) -> str | None:
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        problems.append(f"its {name} is not a text")
    elif len(value) > MAX_CAPTION_CHARACTERS:
        problems.append(f"its {name} has more than {MAX_CAPTION_CHARACTERS} characters")
    else:
        return value.strip() or None
    return None


def _tags(value: object, problems: list[str]) -> tuple[str, ...]:
    if isinstance(value, str):
        text = _string(value, "tags", problems)
        reading = read_text(text or "", "tags")
        problems += reading.problems
        return reading.tags
    if value is None or not isinstance(value, list) or not all(isinstance(tag, str) for tag in value):
        if value is not None:
            problems.append("its tags are neither a list of texts nor a text with commas")
        return ()
    return _canonical(value, problems)


def _canonical(tags: Sequence[str], problems: list[str]) -> tuple[str, ...]:
    found: dict[str, None] = {}
    for tag in tags:
        try:
            found[canonicalize(tag)] = None
        except Rejected as error:
            problems.append(error.detail)
    if len(found) > MAX_TAGS:
        problems.append(f"an image has at most {MAX_TAGS} tags; the last {len(found) - MAX_TAGS} were left out")
    return tuple(found)[:MAX_TAGS]
