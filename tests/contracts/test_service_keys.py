"""The file of a service's signing key."""

from pathlib import Path

import pytest

from contracts.errors import SetupError
from contracts.wire.log.service_keys import load_or_create_key


@pytest.mark.parametrize("content", [b"", b"damaged", b"\xff\xfe", b"00" * 31])
def test_a_damaged_key_is_made_anew_and_then_kept(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "keys" / "catalog.key"
    first = load_or_create_key(file)
    assert load_or_create_key(file).id == first.id
    file.write_bytes(content)

    second = load_or_create_key(file)

    assert second.id != first.id
    assert load_or_create_key(file).id == second.id
    assert file.stat().st_mode & 0o777 == 0o600


def test_a_key_that_cannot_be_read_is_left_alone(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"the signing key .* cannot be read"):
        load_or_create_key(tmp_path)
