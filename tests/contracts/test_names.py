"""Names that terminals and other programs can show as they are."""

import pytest

from contracts.errors import Rejected
from contracts.names import require_printable


@pytest.mark.parametrize("text", ["a\0b", "two\nlines", "bell\a", "\x1b[31m", "\x7f", "c1 \x85", "tab\t"])
def test_control_characters_are_refused_by_their_numbers(text: str) -> None:
    with pytest.raises(Rejected, match=r"`labels` must not contain control characters, but .* has U\+00"):
        require_printable("labels", "fine", text)


@pytest.mark.parametrize("text", [None, "", "a name", "猫 (cat)", "e\u0301", "👩\u200d🎨", "\u202eright to left"])
def test_everything_else_is_taken(text: str | None) -> None:
    require_printable("name", text)
