"""The sheet at the demo's end: pictures in, judged, laid side by side."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trainer.demo.pictures import draw, write
from trainer.demo.sheet import Found, Row, judged, sheet
from trainer.demo.world import drawing
from trainer.demo.world.withheld import judging_scene


def others(count: int) -> list[Image.Image]:
    return [drawing.draw(judging_scene("sheet", index), index) for index in range(count)]


def asked(file: Path, **what: object) -> subprocess.CompletedProcess[str]:
    """Of a process that must not load torch."""
    run = "runpy.run_module('trainer.demo.sheet', run_name='__main__')"
    code = f"import runpy, sys; {run}; assert 'torch' not in sys.modules"
    words = json.dumps(what, default=str)
    return subprocess.run(
        [sys.executable, "-c", code, str(file)], input=words, capture_output=True, text=True, check=False
    )


def saved(folder: Path, pictures: Sequence[Image.Image]) -> list[Path]:
    folder.mkdir()
    for index, picture in enumerate(pictures):
        picture.save(folder / f"{index}.png")
    return sorted(folder.iterdir())


def test_the_judge_tells_the_concept_from_everything_else() -> None:
    momo = [picture for picture, _ in draw(7, 4)]
    assert judged("momo", others(4), momo) == Found("momo", 4, before=0, after=4)
    assert judged("krok", momo, others(4)) == Found("krok", 4, before=0, after=0)


def test_a_sentence_says_what_changed() -> None:
    found = Found("momo", 5, before=0, after=4)
    assert found.sentence(47.6) == (
        "momo was recognised in 0 of 5 pictures before, in 4 of 5 with the LoRA, after 48 s of training"
    )
    assert found.sentence(None).endswith("in 4 of 5 with the LoRA")


def test_small_pictures_are_enlarged_pixel_by_pixel_and_large_ones_cut() -> None:
    small, wide = others(1)[0], Image.new("RGB", (900, 300), "teal")
    whole = sheet([Row("one", "", [small, wide])], prompts=["a circle", "x"])
    left = np.asarray(whole.crop((48, 88, 48 + 192, 88 + 192)))
    assert (left[96:99, 96:99] == np.asarray(small)[32, 32]).all()
    assert whole.getpixel((48 + 192 + 16 + 96, 88 + 96)) == (0, 128, 128)
    assert whole.width == 2 * 48 + 3 * 192 + 2 * 16


def test_a_long_title_is_written_smaller_and_not_cut_off() -> None:
    whole = np.asarray(sheet([Row("one", "", others(1))], title="momo was recognised " * 4))
    paper = whole[0, 0]
    assert (whole[:80, 48:-48] != paper).any()
    assert (whole[:, -48:] == paper).all()


def test_the_command_lays_the_sheet_and_says_what_it_found(tmp_path: Path) -> None:
    shown = write(tmp_path / "shown", count=3, seed=0)
    before, after = saved(tmp_path / "before", others(2)), write(tmp_path / "after", count=2, seed=5)
    pictures = {"shown": shown, "of": 12, "before": before, "after": after, "prompts": ["momo, big", "momo"]}
    made = asked(tmp_path / "sheet.png", **pictures, concept="momo", seconds=30)
    assert made.returncode == 0, made.stderr
    said = json.loads(made.stdout)
    assert (said["before"], said["after"]) == (0, 2)
    assert said["sentence"].startswith("momo was recognised in 0 of 2 pictures before, in 2 of 2 with")
    with Image.open(tmp_path / "sheet.png") as whole:
        assert whole.width == 2 * 48 + 3 * 192 + 2 * 16
        assert whole.height > 3 * 192

    plain = asked(tmp_path / "plain.png", **pictures)
    assert json.loads(plain.stdout) == {"sentence": ""}


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"before": []}, "as many before as after"),
        ({"shown": []}, "there must be pictures"),
        ({"concept": "nobody"}, "no concept 'nobody'; there are: momo"),
        ({"befor": ["x.png"]}, "unknown field `befor`"),
        ({"shown": ["none.png"]}, "none.png"),
    ],
)
def test_what_makes_no_sense_is_refused(tmp_path: Path, wrong: dict[str, object], why: str) -> None:
    (picture,) = saved(tmp_path / "pictures", others(1))
    made = asked(tmp_path / "no.png", **{"shown": [picture], "of": 1, "before": [picture], "after": [picture], **wrong})
    assert made.returncode != 0
    assert why in made.stderr.strip().rpartition("\n")[2]
    assert not (tmp_path / "no.png").exists()
