"""A JSON file beside a picture, as ai-toolkit and others read it: an object with `caption`, or only a text. Pure."""

from dataclasses import replace

import msgspec

from loratory.folders.texts import Texts, from_fields

MAX_JSON_BYTES = 1 << 20


class _Fields(msgspec.Struct, frozen=True):
    text: object = None
    caption: object = None
    tags: object = None
    caption_short: object = None


def parse_json(content: bytes) -> Texts | None:
    """None: it has no text of a picture. ValueError: it is no JSON. A second, short caption is left out."""
    try:
        found = msgspec.json.decode(content.removeprefix(b"\xef\xbb\xbf"), type=_Fields | str)
    except msgspec.ValidationError:
        return None
    if isinstance(found, str):
        return from_fields(found)
    texts = from_fields(found.text, found.caption, found.tags)
    if found.caption_short is None:
        return texts if texts or texts.problems else None
    if not texts:
        return from_fields(found.caption_short)
    return replace(texts, problems=(*texts.problems, "its caption_short is left out, since an image has one caption"))
