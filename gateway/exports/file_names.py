"""Names of exported files: safe on every system, unique, and as much as possible those that the images came with. Pure.

Reserved names: Microsoft, "Naming Files, Paths, and Namespaces".
"""

import re
import unicodedata

MAX_STEM_BYTES = 180
"""In UTF-8, so that with number and extension it fits in the 255 bytes of a file name."""

_EXTENSION = re.compile(r"\.(png|jpe?g|jfif|webp|gif|bmp|tiff?|avif|heic|heif|jxl)\Z", re.IGNORECASE)
_RESERVED_CHARACTERS = re.compile(r'[<>:"/\\|?*]')
_RESERVED_NAMES = re.compile(
    r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9\u00b9\u00b2\u00b3])\s*(\..*)?\Z", re.IGNORECASE
)
_INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


def safe_name(name: str) -> str:
    """The name as that of one file or folder, in NFC; empty if nothing of it can be kept."""
    visible = "".join(one for one in unicodedata.normalize("NFC", name) if unicodedata.category(one) not in _INVISIBLE)
    plain = _strip(_RESERVED_CHARACTERS.sub("_", visible))
    # Not in the middle of a character; what is left of one is dropped.
    short = _strip(plain.encode()[:MAX_STEM_BYTES].decode(errors="ignore"))
    return f"_{short}" if _RESERVED_NAMES.match(short) else short


def safe_stem(name: str) -> str:
    """Of an image's name the last part, without the extension of a picture."""
    last = re.split(r"[/\\]", name.strip())[-1]
    return safe_name(_EXTENSION.sub("", last))


class UniqueStems:
    """Gives each image a stem of its own, whatever the extensions, also where `A.png` and `a.jpg` are one name."""

    def __init__(self) -> None:
        self._taken: set[str] = set()
        self._numbers: dict[str, int] = {}

    def add(self, name: str, ordinal: int, *suffixes: str) -> str:
        """`photo`, then `photo_2`, `photo_3`, …: equal for equal names in equal order.

        `suffixes`: with each of these the stem is unique, too.
        """
        stem = safe_stem(name) or f"image_{ordinal}"
        found, number = stem, self._numbers.get(_key(stem), 1)
        while not self._taken.isdisjoint(_key(found + suffix) for suffix in ("", *suffixes)):
            number += 1
            found = f"{stem}_{number}"
        if number > 1:
            self._numbers[_key(stem)] = number
        self._taken.update(_key(found + suffix) for suffix in ("", *suffixes))
        return found


def _key(stem: str) -> str:
    return unicodedata.normalize("NFC", stem.casefold())


def _strip(name: str) -> str:
    """Without dots and spaces at either end: hidden files, `..`, and what Windows drops."""
    return name.strip(". ")
