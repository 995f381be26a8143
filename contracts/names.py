"""What names may be made of that persons give to jobs and labels, and triggers."""

import unicodedata
from collections.abc import Iterable

from contracts.errors import Rejected


def require_printable(what: str, *texts: str | None) -> None:
    """Rejected: one of the texts has control characters (Unicode's category Cc), such as NUL or a line break.

    Terminals, file names and lists of other programs could not show it as it is. `what`: the name of the field.
    """
    for text in filter(None, texts):
        if found := sorted(_controls(text)):
            raise Rejected(f"`{what}` must not contain control characters, but {text!r} has {', '.join(found)}")


def _controls(text: Iterable[str]) -> set[str]:
    return {f"U+{ord(one):04X}" for one in text if unicodedata.category(one) == "Cc"}
