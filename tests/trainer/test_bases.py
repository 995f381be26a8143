from pathlib import Path

import pytest

from contracts.errors import Rejected
from contracts.recipe import BuiltinBase, FolderBase
from trainer import bases
from trainer.bases import base_folder


def test_a_base_lies_where_its_kind_says(tmp_path: Path) -> None:
    (tmp_path / "bases" / "mine").mkdir(parents=True)
    places = {"made": tmp_path / "made", "bases": tmp_path / "bases"}
    assert base_folder(BuiltinBase(name="stand-in"), **places) == tmp_path / "made" / "stand-in"
    assert base_folder(FolderBase(path="mine"), **places) == tmp_path / "bases" / "mine"
    assert base_folder(FolderBase(path=str(tmp_path / "bases" / "mine")), **places) == tmp_path / "bases" / "mine"


def test_the_demo_base_is_read_where_it_came_or_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert bases.DEMO.is_relative_to(Path(bases.__file__).parent)
    monkeypatch.setattr(bases, "DEMO", tmp_path / "base")
    places = {"made": tmp_path / "made", "bases": tmp_path / "bases"}
    with pytest.raises(Rejected, match="'demo' did not come with"):
        base_folder(BuiltinBase(name="demo"), **places)
    bases.DEMO.mkdir()
    (bases.DEMO / "model_index.json").write_text("{}")
    assert base_folder(BuiltinBase(name="demo"), **places) == tmp_path / "base"


@pytest.mark.parametrize("path", ["../own", "nothing", "mine/../../own"])
def test_a_folder_that_is_not_there_or_leads_out_is_refused(tmp_path: Path, path: str) -> None:
    (tmp_path / "own").mkdir()
    with pytest.raises(Rejected):
        base_folder(FolderBase(path=path), made=tmp_path, bases=tmp_path / "bases")
