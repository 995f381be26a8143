"""What an import would do with each file, before anything is sent."""

from contracts.events.base import ReadAs
from contracts.texts.reading import TextReading, read_text
from loratory.folders.result import LINK_OUTSIDE, ImageFile, ScanResult
from loratory.folders.texts import to_send

PLAN_COLUMNS = ("File", "Becomes", "Text", "Repeats", "Mask")
PlanRow = tuple[str, str, str, str, str]
SHOWN_CHARACTERS = 60


def plan_rows(scan: ScanResult, read_as: ReadAs) -> list[PlanRow]:
    """A row for each file: its name, what it becomes, what its text is read as, its repeats, and its mask."""
    rows = [_image_row(image, read_as) for image in scan.images]
    left_out = [*scan.unreadable, *((name, "there is no image of this name") for name in scan.unmatched)]
    left_out += [(name, LINK_OUTSIDE) for name in scan.links]
    rows += [(name, "left out", reason, "", "") for name, reason in left_out]
    return rows + [(name, "not read", reason, "", "") for name, reason in scan.others]


def _image_row(image: ImageFile, read_as: ReadAs) -> PlanRow:
    repeats = "" if image.repeats is None else str(image.repeats)
    mask = "" if image.mask is None else image.mask.label.replace("\\", "/").rpartition("/")[2]
    return image.name, "image", _text_of(image, read_as), repeats, mask


def _text_of(image: ImageFile, read_as: ReadAs) -> str:
    texts = to_send(image.texts, read_as)
    if texts.text is not None:
        return describe_reading(read_text(texts.text, read_as))
    parts = [TextReading(kind="tags", tags=texts.tags, reason="named")] if texts.tags else []
    parts += [TextReading(kind="caption", caption=texts.caption, reason="named")] if texts.caption else []
    return "; ".join(map(describe_reading, parts))


def describe_reading(reading: TextReading) -> str:
    """`3 tags: a, b, c`, `caption: A woman …`, each cut; says what is public."""
    match reading.kind:
        case "tags":
            return _cut(f"{len(reading.tags)} tags (not encrypted): {', '.join(reading.tags)}")
        case "caption":
            return _cut(f"caption: {reading.caption}")
        case _:
            return "empty"


def _cut(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= SHOWN_CHARACTERS else f"{line[: SHOWN_CHARACTERS - 1]}…"
