"""The version of the read model is a digest of its tables and rows, so that no change of either can be forgotten."""

from catalog.views.version import VERSION
from tests.catalog.view_digest import digest_of_tables_and_rows


def test_the_version_is_the_digest_of_the_tables_and_rows() -> None:
    """If this fails, rows of older versions differ: `make schemas` writes the new version, and they are rebuilt."""
    assert f"0x{VERSION:08x}" == f"0x{digest_of_tables_and_rows():08x}"
