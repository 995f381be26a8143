"""The program that draws the demo's pictures."""

import json
import subprocess
import sys
from pathlib import Path

from PIL import Image

from demo_world import pictures
from demo_world.withheld import read_demo_prompts
from tests.trainer.builders import draw_examples


def test_pictures_are_a_function_of_seed_and_index() -> None:
    (first, tags), (repeated, _), (different, _) = (
        pictures.draw_pictures(0, 4)[3],
        pictures.draw_pictures(0, 9)[3],
        pictures.draw_pictures(1, 4)[3],
    )
    assert first.tobytes() == repeated.tobytes()
    assert first.tobytes() != different.tobytes()
    assert len(tags) == len(set(tags)) >= 5
    assert first.size == (64, 64)
    assert {picture.size for picture, _ in pictures.draw_pictures(0, 9, sizes=pictures.ASPECTS)} == set(
        pictures.ASPECTS
    )


def test_the_program_writes_pictures_and_tags_without_torch(tmp_path: Path) -> None:
    run = "runpy.run_module('demo_world.pictures', run_name='__main__')"
    code = f"import runpy, sys; {run}; assert 'torch' not in sys.modules"
    command = [sys.executable, "-c", code, str(tmp_path), "--count", "3", "--trigger", "momo"]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert json.loads(output) == {"concept": "momo", "prompts": read_demo_prompts()}
    assert sorted(path.name for path in tmp_path.glob("*.png")) == ["000.png", "001.png", "002.png"]
    assert (tmp_path / "002.txt").read_text().startswith("momo, ")
    with Image.open(tmp_path / "000.png") as picture:
        assert picture.mode == "RGB"


def test_drawn_pictures_differ(tmp_path: Path) -> None:
    assert len({example.digest for example in draw_examples(tmp_path, 30)}) == 30


def test_another_concept_is_a_different_creature(tmp_path: Path) -> None:
    momo, krok = (
        pictures.write_pictures(tmp_path / name, count=1, seed=0, concept=name)[0] for name in ("momo", "krok")
    )
    assert momo.read_bytes() != krok.read_bytes()
    assert momo.with_suffix(".txt").read_text().startswith("creature, ")
