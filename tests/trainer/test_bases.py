from pathlib import Path

import pytest

from contracts.errors import Rejected
from contracts.recipe import BuiltinBase, FolderBase
from trainer.bases import base_folder


def test_a_base_lies_where_its_kind_says(tmp_path: Path) -> None:
    (tmp_path / "bases" / "mine").mkdir(parents=True)
    places = {"builtin": tmp_path / "own", "bases": tmp_path / "bases"}
    assert base_folder(BuiltinBase(), **places) == tmp_path / "own" / "stand-in"
    assert base_folder(FolderBase(path="mine"), **places) == tmp_path / "bases" / "mine"
    assert base_folder(FolderBase(path=str(tmp_path / "bases" / "mine")), **places) == tmp_path / "bases" / "mine"


@pytest.mark.parametrize("path", ["../own", "nothing", "mine/../../own"])
def test_a_folder_that_is_not_there_or_leads_out_is_refused(tmp_path: Path, path: str) -> None:
    (tmp_path / "own").mkdir()
    with pytest.raises(Rejected):
        base_folder(FolderBase(path=path), builtin=tmp_path, bases=tmp_path / "bases")
