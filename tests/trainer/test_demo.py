import json
import subprocess
import sys
from pathlib import Path

from PIL import Image

from tests.trainer.builders import drawn
from trainer.demo import pictures
from trainer.demo.stand_in import make_stand_in
from trainer.demo.world.withheld import demo_prompts


def test_pictures_are_a_function_of_seed_and_index() -> None:
    (one, tags), (same, _), (other, _) = pictures.draw(0, 4)[3], pictures.draw(0, 9)[3], pictures.draw(1, 4)[3]
    assert one.tobytes() == same.tobytes()
    assert one.tobytes() != other.tobytes()
    assert len(tags) == len(set(tags)) >= 5
    assert one.size == (64, 64)
    assert {picture.size for picture, _ in pictures.draw(0, 9, sizes=pictures.ASPECTS)} == set(pictures.ASPECTS)


def test_the_command_writes_pictures_and_tags_without_torch(tmp_path: Path) -> None:
    run = "runpy.run_module('trainer.demo.pictures', run_name='__main__')"
    code = f"import runpy, sys; {run}; assert 'torch' not in sys.modules"
    asked = [sys.executable, "-c", code, str(tmp_path), "--count", "3", "--trigger", "momo"]
    said = subprocess.run(asked, check=True, capture_output=True, text=True).stdout
    assert json.loads(said) == {"concept": "momo", "prompts": demo_prompts()}
    assert sorted(path.name for path in tmp_path.glob("*.png")) == ["000.png", "001.png", "002.png"]
    assert (tmp_path / "002.txt").read_text().startswith("momo, ")
    with Image.open(tmp_path / "000.png") as picture:
        assert picture.mode == "RGB"


def test_drawn_pictures_differ(tmp_path: Path) -> None:
    assert len({example.digest for example in drawn(tmp_path, 30)}) == 30


def test_the_stand_in_is_the_same_bytes_whenever_it_is_made(base: Path, tmp_path: Path) -> None:
    again = make_stand_in(tmp_path / "again")
    files = sorted(path.relative_to(base) for path in base.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(again) for path in again.rglob("*") if path.is_file())
    assert all((base / path).read_bytes() == (again / path).read_bytes() for path in files)
    assert list(tmp_path.iterdir()) == [again]
    assert make_stand_in(again) == again


def test_another_concept_is_another_creature(tmp_path: Path) -> None:
    momo, krok = (pictures.write(tmp_path / name, count=1, seed=0, concept=name)[0] for name in ("momo", "krok"))
    assert momo.read_bytes() != krok.read_bytes()
    assert momo.with_suffix(".txt").read_text().startswith("creature, ")
