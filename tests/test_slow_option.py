"""Tests marked slow run with `--all`, or if they are named."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TESTS = """
import pytest

def test_quick():
    pass

@pytest.mark.slow
def test_slow():
    pass

@pytest.mark.drill
def test_drill():
    pass
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("folder", ["quick"]),
        ("folder --all", ["quick", "slow"]),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (
                ("folder -k test_", ["quick", "slow"]),
                ("folder -m slow", ["slow"]),
                ("folder -m drill", ["drill"]),
                ("folder/test_it.py", ["quick", "slow", "drill"]),
                ("folder/test_it.py::test_slow -n 1", ["slow"]),
            )
        ),
    ],
)
def test_slow_tests_run_with_all_or_if_they_are_named(tmp_path: Path, arguments: str, expected: list[str]) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "test_it.py").write_text(TESTS)
    options = ["-c", str(ROOT / "pyproject.toml"), "-p", "tests.conftest", "-p", "no:cacheprovider", "-v"]
    command = [sys.executable, "-m", "pytest", *options, f"--rootdir={tmp_path}", *arguments.split()]
    environment = {"PYTHONPATH": str(ROOT)}
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    ran = re.findall(r"(?:test_(\w+) PASSED|PASSED \S*test_(\w+))", result.stdout)
    assert ["".join(name) for name in ran] == expected, result.stdout + result.stderr
    selects = re.search(" -k | -m | --all", arguments)
    assert ("Without --all" in result.stdout) == (selects is None)
