"""Names of images: the path of the file that was imported, inside its folder, as far as it leads nowhere else. Pure."""

import re
import unicodedata

MAX_NAME_CHARACTERS = 1000
"""Of a name; of a longer path the last parts are kept."""
MAX_PART_CHARACTERS = 255
"""Of each part of a name, the usual limit of file systems."""
UNNAMED = "unnamed"
_DRIVE = re.compile(r"[A-Za-z]:")


def image_name(path: str) -> str:
    """A relative path with slashes, in NFC: without `..`, drives, a slash in front, control and bidi characters."""
    parts = [part for part in map(_clean, path.replace("\\", "/").split("/")) if part]
    while len("/".join(parts)) > MAX_NAME_CHARACTERS:
        del parts[0]
    while parts and _DRIVE.match(parts[0]):
        first = _clean(parts[0][2:])
        parts[:1] = [first] if first else []
    return "/".join(parts) or UNNAMED


def last_part(name: str) -> str:
    """The name of the file alone."""
    return name.rpartition("/")[2]


def _clean(part: str) -> str:
    """Empty if the part names no file or folder: `.` and `..`, also as Windows reads them, with spaces."""
    visible = "".join(one for one in part if unicodedata.category(one)[0] != "C")
    short = unicodedata.normalize("NFC", visible)[:MAX_PART_CHARACTERS]
    return short if short.strip(". ") else ""
