"""The contact sheet at the end of the demo: recognition counts and layout."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from demo_world import drawing
from demo_world.concepts import CONCEPTS
from demo_world.contact_sheet import PictureRow, RecognitionCounts, count_recognised, draw_contact_sheet
from demo_world.pictures import draw_pictures, write_pictures
from demo_world.scoring import ConceptClassifier
from demo_world.withheld import evaluation_scene


def other_pictures(count: int) -> list[Image.Image]:
    return [drawing.draw_scene(evaluation_scene("sheet", index), index) for index in range(count)]


def run_program(file: Path, **request: object) -> subprocess.CompletedProcess[str]:
    """Run the program; the process must not import torch."""
    run = "runpy.run_module('demo_world.contact_sheet', run_name='__main__')"
    code = f"import runpy, sys; {run}; assert 'torch' not in sys.modules"
    stdin = json.dumps(request, default=str)
    return subprocess.run(
        [sys.executable, "-c", code, str(file)], input=stdin, capture_output=True, text=True, check=False
    )


def save_pictures(folder: Path, pictures: Sequence[Image.Image]) -> list[Path]:
    folder.mkdir()
    for index, picture in enumerate(pictures):
        picture.save(folder / f"{index}.png")
    return sorted(folder.iterdir())


@pytest.mark.slow
def test_only_pictures_of_the_concept_are_counted() -> None:
    is_momo, is_krok = (ConceptClassifier(CONCEPTS[name], examples=40) for name in ("momo", "krok"))
    momo = [picture for picture, _ in draw_pictures(7, 4)]
    assert count_recognised(is_momo, other_pictures(4), momo) == RecognitionCounts("momo", 4, before=0, after=4)
    assert count_recognised(is_krok, momo, other_pictures(4)) == RecognitionCounts("krok", 4, before=0, after=0)


def test_the_sentence_compares_before_and_after() -> None:
    counts = RecognitionCounts("momo", 5, before=0, after=4)
    assert counts.sentence(47.6) == (
        "momo was recognised in 0 of 5 pictures before, in 4 of 5 with the LoRA, after 48 s of training"
    )
    assert counts.sentence(None).endswith("in 4 of 5 with the LoRA")


def test_small_pictures_are_enlarged_pixel_by_pixel_and_large_ones_cropped() -> None:
    small, wide = other_pictures(1)[0], Image.new("RGB", (900, 300), "teal")
    sheet = draw_contact_sheet([PictureRow("one", "", [small, wide])], prompts=["a circle", "x"])
    left = np.asarray(sheet.crop((48, 88, 48 + 192, 88 + 192)))
    assert (left[96:99, 96:99] == np.asarray(small)[32, 32]).all()
    assert sheet.getpixel((48 + 192 + 16 + 96, 88 + 96)) == (0, 128, 128)
    assert sheet.width == 2 * 48 + 3 * 192 + 2 * 16


def test_a_long_title_is_set_in_a_smaller_font_and_not_cut_off() -> None:
    sheet = np.asarray(draw_contact_sheet([PictureRow("one", "", other_pictures(1))], title="momo was recognised " * 4))
    paper = sheet[0, 0]
    assert (sheet[:80, 48:-48] != paper).any()
    assert (sheet[:, -48:] == paper).all()


@pytest.mark.slow
def test_the_program_writes_the_sheet_and_prints_the_counts(tmp_path: Path) -> None:
    training_images = write_pictures(tmp_path / "training_images", count=3, seed=0)
    before, after = (
        save_pictures(tmp_path / "before", other_pictures(2)),
        write_pictures(tmp_path / "after", count=2, seed=5),
    )
    pictures = {
        "training_images": training_images,
        "dataset_size": 12,
        "before": before,
        "after": after,
        "prompts": ["momo, big", "momo"],
    }
    process = run_program(tmp_path / "sheet.png", **pictures, concept="momo", seconds=30)
    assert process.returncode == 0, process.stderr
    result = json.loads(process.stdout)
    assert (result["before"], result["after"]) == (0, 2)
    assert result["sentence"].startswith("momo was recognised in 0 of 2 pictures before, in 2 of 2 with")
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width == 2 * 48 + 3 * 192 + 2 * 16
        assert sheet.height > 3 * 192

    plain = run_program(tmp_path / "plain.png", **pictures)
    assert json.loads(plain.stdout) == {"sentence": ""}


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"before": []}, "as many before as after"),
        ({"training_images": []}, "there must be pictures"),
        ({"concept": "nobody"}, "no concept 'nobody'; available: momo"),
        ({"befor": ["x.png"]}, "unknown field `befor`"),
        ({"training_images": ["none.png"]}, "none.png"),
    ],
)
def test_an_invalid_request_is_refused(tmp_path: Path, wrong: dict[str, object], why: str) -> None:
    (picture,) = save_pictures(tmp_path / "pictures", other_pictures(1))
    process = run_program(
        tmp_path / "no.png",
        **{"training_images": [picture], "dataset_size": 1, "before": [picture], "after": [picture], **wrong},
    )
    assert process.returncode != 0
    assert why in process.stderr.strip().rpartition("\n")[2]
    assert not (tmp_path / "no.png").exists()
