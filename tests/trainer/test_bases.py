from pathlib import Path

import pytest

from contracts.errors import Rejected
from contracts.recipe import BuiltinBase, FolderBase
from contracts.shipped_models import shipped_models
from trainer import bases
from trainer.bases import base_folder


def test_the_folder_of_a_base_depends_on_its_type(tmp_path: Path) -> None:
    (tmp_path / "bases" / "mine").mkdir(parents=True)
    folders = {"builtin": tmp_path / "builtin", "bases": tmp_path / "bases"}
    assert base_folder(BuiltinBase(name="tiny-random"), **folders) == tmp_path / "builtin" / "tiny-random"
    assert base_folder(FolderBase(path="mine"), **folders) == tmp_path / "bases" / "mine"
    assert base_folder(FolderBase(path=str(tmp_path / "bases" / "mine")), **folders) == tmp_path / "bases" / "mine"


def test_the_demo_base_is_read_from_the_demo_world_or_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = {"builtin": tmp_path / "builtin", "bases": tmp_path / "bases"}
    assert base_folder(BuiltinBase(name="demo"), **folders) == shipped_models("bases")["demo"]
    installed: dict[str, Path] = {}
    monkeypatch.setattr(bases, "shipped_models", {"bases": installed}.get)
    with pytest.raises(Rejected, match="'demo' is not part of"):
        base_folder(BuiltinBase(name="demo"), **folders)
    installed["demo"] = tmp_path
    with pytest.raises(Rejected, match="'demo' is not part of"):
        base_folder(BuiltinBase(name="demo"), **folders)
    (tmp_path / "model_index.json").write_text("{}")
    assert base_folder(BuiltinBase(name="demo"), **folders) == tmp_path


@pytest.mark.parametrize("path", ["../own", "missing", "mine/../../own"])
def test_a_missing_folder_or_one_outside_the_bases_folder_is_refused(tmp_path: Path, path: str) -> None:
    (tmp_path / "own").mkdir()
    with pytest.raises(Rejected):
        base_folder(FolderBase(path=path), builtin=tmp_path, bases=tmp_path / "bases")
