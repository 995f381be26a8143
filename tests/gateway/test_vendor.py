"""The vendored libraries of the page are the files that VENDOR.md says, and need nothing from elsewhere."""

import hashlib
import re
from pathlib import Path

import pytest

import gateway

VENDOR = Path(gateway.__file__).parent / "web" / "vendor"
ROW = re.compile(r"^\| `([^`]+)` \| ([^|]+) \| ([^|]+) \| .+ \| `([0-9a-f]{64})` \|$", re.MULTILINE)
ROWS = ROW.findall((VENDOR / "VENDOR.md").read_text())
IMPORTED = re.compile(r"""\b(?:from|import)\s*\(?\s*["']([^"'\s]+)["']""")


@pytest.mark.parametrize(("name", "digest"), [(name, digest) for name, _, _, digest in ROWS])
def test_a_vendored_file_is_the_one_that_was_taken(name: str, digest: str) -> None:
    assert hashlib.sha256((VENDOR / name).read_bytes()).hexdigest() == digest


def test_no_vendored_file_is_without_package_version_and_licence() -> None:
    files = {file.name for file in VENDOR.iterdir() if file.is_file()} - {"VENDOR.md"}
    assert files == {name for name, *_ in ROWS}
    for name, package, licence, _ in ROWS:
        assert re.search(r" \d+\.\d+\.\d+$", package.strip()), name
        if not name.startswith("LICENSE-"):
            assert (VENDOR / licence.split("`")[1]).is_file(), name


def test_all_imports_of_the_page_are_files_of_its_own() -> None:
    scripts = [*VENDOR.glob("*.js"), *VENDOR.parent.glob("*.js")]
    assert scripts
    for script in scripts:
        for imported in IMPORTED.findall(script.read_text()):
            assert imported.startswith("./"), f"{script.name} imports {imported}"
            assert (script.parent / imported).is_file(), f"{script.name} imports {imported}"
