"""The documents of docs/how-to are done as written, together in one copy of the repository; each also applies alone.

Its `diff` blocks are the changes made by hand; a new file is a diff from /dev/null. Its `sh` blocks are then run in the
order of the documents: what generates files, and the tests that show that it works. The document says how many files
are touched by hand: `Files touched: 12`.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted((ROOT / "docs" / "how-to").glob("*.md"))


def blocks(document: Path, language: str) -> list[str]:
    pattern = rf"^```{language}\n(.*?)^```$"
    return re.findall(pattern, document.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def touched_files(change: str) -> list[str]:
    """The files of a diff, as they are called afterwards."""
    return re.findall(r"^\+\+\+ b/(\S+)$", change, re.MULTILINE)


def copy_repository(to: Path) -> None:
    """All files that git does not ignore."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, to / name)


def apply(change: str, folder: Path) -> None:
    """Apply a diff; the line numbers in it need not be right."""
    command = ["git", "apply", "-C1", "-"]
    result = subprocess.run(command, input=change, cwd=folder, capture_output=True, text=True, check=False)
    assert result.returncode == 0, f"{touched_files(change)}: {result.stderr}"


def commands(document: Path) -> list[str]:
    """The lines of the `sh` blocks of a document."""
    return [line for block in blocks(document, "sh") for line in block.replace("\\\n", " ").splitlines()]


def merged(lines: Iterable[str]) -> list[str]:
    """Each command once, those before the tests first; tests that are named by files alone run in one process."""
    once = list(dict.fromkeys(lines))
    tests = {line: shlex.split(line)[-1].removeprefix("ARGS=") for line in once if line.startswith("make test ")}
    files = [words for words in tests.values() if " -k " not in words]
    together = " ".join(dict.fromkeys(" ".join(files).split()))
    selected = [line for line, words in tests.items() if words not in files]
    return [*(line for line in once if line not in tests), f'make test ARGS="{together}"', *selected]


def run(line: str, folder: Path) -> None:
    """Run a command of the document with the packages of the copy; AssertionError if it fails."""
    inherited = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "MAKE", "MFLAGS"))
    }
    environment = {**inherited, "PYTHONPATH": str(folder), "VENV": sys.prefix, "WORKERS": "0"}  # few tests each
    command = ["sh", "-c", line.replace(".venv/bin/", f"{sys.prefix}/bin/")]
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, f"{line}\n{result.stdout[-4000:]}{result.stderr[-4000:]}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.stem)
def test_the_changes_in_a_how_to_still_apply(document: Path, tmp_path: Path) -> None:
    """If this fails: do the steps again in a copy of the repository, or, if the example now exists, choose another."""
    changes = blocks(document, "diff")
    assert changes
    for name in {name for change in changes for name in touched_files(change)}:
        if (ROOT / name).exists():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, tmp_path / name)
    for change in changes:
        apply(change, tmp_path)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.stem)
def test_a_how_to_says_how_many_files_it_touches_and_how_to_test_them(document: Path) -> None:
    touched = {name for change in blocks(document, "diff") for name in touched_files(change)}
    stated = re.findall(r"^Files touched: (\d+)", document.read_text(encoding="utf-8"), re.MULTILINE)
    assert stated == [str(len(touched))], touched
    assert any(line.startswith("make test ") for line in commands(document))


@pytest.mark.slow
def test_the_how_tos_work_as_written(tmp_path: Path) -> None:
    """All in one copy: most of the time goes into types, and into tests that several of them name."""
    copy_repository(tmp_path)
    (tmp_path / "tools" / "environment.sh").write_text("#!/bin/sh\n")  # the environment of this test has everything
    changes = [change for document in DOCUMENTS for change in blocks(document, "diff")]
    for change in changes:
        apply(change, tmp_path)
    for line in merged(line for document in DOCUMENTS for line in commands(document)):
        run(line, tmp_path)
    files = " ".join({name for change in changes for name in touched_files(change) if name.endswith(".py")})
    if (ROOT / ".mypy_cache").is_dir():  # of `make check`: then only what the changes concern is checked again
        shutil.copytree(ROOT / ".mypy_cache", tmp_path / ".mypy_cache")
    for check in (f"ruff format --check {files}", f"ruff check {files}", "mypy"):
        run(f".venv/bin/{check}", tmp_path)
