"""Sealed text: opens only with its key and context, and sealing again gives the same bytes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.sealed import NotOpened, new_key, open_sealed, seal

KEY = bytes(range(32))


@given(text=st.text(max_size=500), context=st.text(max_size=20))
def test_sealing_is_reversible_and_deterministic(text: str, context: str) -> None:
    sealed = seal(KEY, text, context)
    assert open_sealed(KEY, sealed, context) == text
    assert sealed == seal(KEY, text, context)
    assert len(sealed) == 12 + len(text.encode()) + 16


def test_another_key_context_or_byte_does_not_open() -> None:
    sealed = seal(KEY, "holiday_beach.jpg", "name")
    for key, sealed_text, context in [
        (new_key(), sealed, "name"),
        (KEY, sealed, "caption"),
        (KEY, sealed[:-1] + bytes([sealed[-1] ^ 1]), "name"),
        (KEY, bytes([sealed[0] ^ 1]) + sealed[1:], "name"),
        (KEY, sealed[:27], "name"),
        (KEY, b"", "name"),
    ]:
        with pytest.raises(NotOpened):
            open_sealed(key, sealed_text, context)


def test_another_text_context_or_key_gives_another_nonce() -> None:
    sealed_texts = [seal(KEY, "ab", "c"), seal(KEY, "b", "ca"), seal(KEY, "ab", "d"), seal(new_key(), "ab", "c")]
    assert len({sealed_text[:12] for sealed_text in sealed_texts}) == len(sealed_texts)


def test_the_format_on_disk_does_not_change() -> None:
    assert (
        seal(KEY, "a red fox", "caption").hex()
        == "2317587801ceb8d3f9de3127d8ac6db3c34ace2114933dff9ee25b9d73dfadf3f5b91e94c0"
    )


def test_keys_are_random_and_of_fixed_length() -> None:
    assert len({new_key() for _ in range(100)}) == 100
    with pytest.raises(ValueError, match="32 bytes"):
        seal(b"short", "text", "name")
    with pytest.raises(ValueError, match="32 bytes"):
        open_sealed(b"short", seal(KEY, "text", "name"), "name")
