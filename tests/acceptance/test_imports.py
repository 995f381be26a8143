"""What each package may load: torch only in the trainer's child process, `os.environ` only in entry points.

Who may import whom is checked by `make check`.
"""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
PACKAGES = ("contracts", "catalog", "gateway", "tagger", "trainer", "loratory", "demo_world")
HEAVY = ("torch", "diffusers", "peft", "accelerate", "transformers")
TORCH_PACKAGES = ("trainer.engine", "trainer.families", "demo_world.models")
"""The only packages that import torch: the worker starts its child process, a person what makes the models."""

IMPORT_ALL = """
import importlib, pkgutil, sys
package, heavy, skipped = sys.argv[1], sys.argv[2].split(","), tuple(sys.argv[3].split(","))
names = [package]
names += [found.name for found in pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}.")]
names = [name for name in names if not name.startswith(skipped)]
for name in names:
    importlib.import_module(name)
print(len(names), *[name for name in heavy if name in sys.modules])
"""


@pytest.mark.parametrize("package", PACKAGES)
def test_every_module_imports_without_torch(package: str) -> None:
    result = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL, package, ",".join(HEAVY), ",".join(TORCH_PACKAGES)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    count, *loaded = result.stdout.split()
    assert loaded == []
    assert int(count) >= 8


def test_only_entry_points_read_the_environment() -> None:
    readers = set()
    for package in PACKAGES:
        for file in (ROOT / package).rglob("*.py"):
            names = {
                (node.value.id, node.attr)
                for node in ast.walk(ast.parse(file.read_text()))
                if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
            }
            if names & {("os", "environ"), ("os", "getenv"), ("os", "putenv")}:
                readers.add(file.relative_to(ROOT).as_posix())
    assert not {name for name in readers if not name.endswith("__main__.py")}
