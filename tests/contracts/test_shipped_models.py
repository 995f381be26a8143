import subprocess
import sys
from pathlib import Path

import pytest

from contracts import shipped_models as module
from contracts.shipped_models import shipped_models

ROOT = Path(__file__).parents[2]


def test_shipped_models_are_folders_found_by_name() -> None:
    assert shipped_models("bases") == {"demo": ROOT / "demo_world" / "bases" / "demo"}
    taggers = ROOT / "demo_world" / "taggers"
    assert shipped_models("taggers") == {"demo": taggers / "demo", "tiny-random": taggers / "tiny-random"}


def test_looking_for_them_imports_nothing_of_the_demo_world() -> None:
    probe = (
        "import sys; from contracts.shipped_models import shipped_models; "
        "assert shipped_models('bases'); print('demo_world' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", probe], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_an_installation_without_the_package_or_its_data_has_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PACKAGE", "package_without_models")
    assert shipped_models("bases") == {}
    (tmp_path / "package_without_models").mkdir()
    (tmp_path / "package_without_models" / "__init__.py").write_text("raise ImportError")
    monkeypatch.syspath_prepend(tmp_path)
    assert shipped_models("taggers") == {}
    (tmp_path / "package_without_models" / "taggers" / "mine").mkdir(parents=True)
    assert shipped_models("taggers") == {"mine": tmp_path / "package_without_models" / "taggers" / "mine"}
