"""What an import would do with each file, before anything is sent."""

from contracts.events.base import ReadAs
from contracts.texts.reading import TextReading, read_text
from loratory.image_files import ImageFile, ScanResult

PLAN_COLUMNS = ("File", "Becomes", "Text")
PlanRow = tuple[str, str, str]
SHOWN_CHARACTERS = 60


def plan_rows(scan: ScanResult, read_as: ReadAs) -> list[PlanRow]:
    """A row for each file: its name, what it becomes, and what its text is read as."""
    rows = [(image.name, "image", _text_of(image, read_as)) for image in scan.images]
    rows += [(name, "left out", reason) for name, reason in scan.unreadable]
    return rows + [(name, "left out", "there is no image of this name") for name in scan.unmatched]


def _text_of(image: ImageFile, read_as: ReadAs) -> str:
    return "" if image.text is None else describe_reading(read_text(image.text, read_as))


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
