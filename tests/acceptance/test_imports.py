"""What each package may load, seen from outside: torch only in the trainer's child, the environment only at doors."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("contracts", "catalog", "gateway", "tagger", "trainer", "loratory")
HEAVY = ("torch", "diffusers", "peft", "accelerate", "transformers")
IN_THE_CHILD = ("trainer.engine", "trainer.families", "trainer.demo")
"""Only these of the trainer know torch: the worker starts them as a process."""

IMPORT_ALL = """
import importlib, pkgutil, sys
package, heavy, passed_over = sys.argv[1], sys.argv[2].split(","), tuple(sys.argv[3].split(","))
names = [package]
names += [found.name for found in pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}.")]
names = [name for name in names if not name.startswith(passed_over)]
for name in names:
    importlib.import_module(name)
print(len(names), *[name for name in heavy if name in sys.modules])
"""


@pytest.mark.parametrize("package", PACKAGES)
def test_every_module_imports_without_torch(package: str) -> None:
    told = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL, package, ",".join(HEAVY), ",".join(IN_THE_CHILD)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.returncode == 0, told.stderr
    count, *loaded = told.stdout.split()
    assert loaded == []
    assert int(count) >= 8


def test_the_layers_hold() -> None:
    linted = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert linted.returncode == 0, linted.stdout + linted.stderr


def test_the_environment_is_read_only_where_a_program_starts() -> None:
    readers = set()
    for package in PACKAGES:
        for file in (ROOT / package).rglob("*.py"):
            names = {(node.value.id, node.attr) for node in ast.walk(ast.parse(file.read_text())) if _of_a_name(node)}
            if names & {("os", "environ"), ("os", "getenv"), ("os", "putenv")}:
                readers.add(file.relative_to(ROOT).as_posix())
    assert not {name for name in readers if not name.endswith("__main__.py")}


def _of_a_name(node: ast.AST) -> bool:
    return isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
