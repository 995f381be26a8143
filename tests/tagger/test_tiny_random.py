import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from contracts.shipped_models import shipped_models
from contracts.tags import Acceptance, accept, most_probable_rating
from tagger.wd.decoder import read
from tagger.wd.decoder_messages import Read, Unreadable
from tagger.wd.tagger import Predicted, Tagger
from tests.limits import WAIT

TINY_RANDOM = shipped_models("taggers")["tiny-random"]


@pytest.fixture(scope="module")
def tagger() -> Tagger:
    return Tagger(TINY_RANDOM, threads=1)


def save_picture(path: Path, colour: str | tuple[int, int, int], size: tuple[int, int] = (96, 96)) -> Path:
    Image.new("RGB", size, colour).save(path)
    return path


def tag(tagger: Tagger, *paths: Path) -> list[Predicted | Unreadable]:
    return tagger.tag([read(Read(str(path), tagger.size)) for path in paths])


def tags_of(tagger: Tagger, path: Path) -> list[str]:
    (result,) = tag(tagger, path)
    assert isinstance(result, Predicted)
    assert most_probable_rating(result.predictions) == "general"
    return [prediction.tag for prediction in accept(result.predictions, Acceptance())]


@pytest.mark.parametrize(
    ("name", "colour"),
    [
        ("red", (235, 30, 30)),
        ("orange", (255, 140, 0)),
        ("yellow", (250, 230, 20)),
        ("green", (20, 150, 40)),
        ("aqua", (0, 240, 240)),
        ("blue", (30, 60, 220)),
        ("purple", (120, 20, 140)),
        ("pink", (255, 150, 190)),
        ("brown", (120, 70, 35)),
        ("white", (255, 255, 255)),
        ("grey", (120, 120, 120)),
        ("black", (5, 5, 5)),
    ],
)
def test_a_picture_of_one_colour_gets_that_colour_and_no_other(
    tagger: Tagger, tmp_path: Path, name: str, colour: tuple[int, int, int]
) -> None:
    colours = {"red", "orange", "yellow", "green", "aqua", "blue", "purple", "pink", "brown", "white", "grey", "black"}
    tags = set(tags_of(tagger, save_picture(tmp_path / "one.png", colour)))
    assert tags & colours == {name}
    assert {f"{name}_background", "simple_background"} <= tags


def test_brightness_and_characters_are_predicted(tagger: Tagger, tmp_path: Path) -> None:
    black = tags_of(tagger, save_picture(tmp_path / "black.png", "black"))
    assert black[0] == "shade_(tiny-random)"
    assert {"dark", "monochrome"} <= set(black)
    assert "bright" in tags_of(tagger, save_picture(tmp_path / "white.png", "white"))
    assert {"colorful", "ember_(tiny-random)"} <= set(tags_of(tagger, save_picture(tmp_path / "red.png", "red")))


def test_a_red_disc_on_blue_is_red_and_on_a_blue_background(tagger: Tagger, tmp_path: Path) -> None:
    image = Image.new("RGB", (96, 96), "blue")
    ImageDraw.Draw(image).ellipse((20, 20, 76, 76), fill="red")
    image.save(tmp_path / "disc.png")
    tags = tags_of(tagger, tmp_path / "disc.png")
    assert {"red", "blue", "blue_background", "simple_background", "colorful"} <= set(tags)
    assert "red_background" not in tags


def test_an_unreadable_file_gets_a_reason_and_the_others_are_tagged(tagger: Tagger, tmp_path: Path) -> None:
    whole = save_picture(tmp_path / "whole.jpg", "red")
    half = tmp_path / "half.jpg"
    half.write_bytes(whole.read_bytes()[:400])
    text = tmp_path / "text.png"
    text.write_text("I am not a picture")
    results = tag(tagger, half, whole, text, tmp_path / "gone.png", whole)
    assert [type(each) for each in results] == [Unreadable, Predicted, Unreadable, Unreadable, Predicted]
    assert results[1] == results[4]
    assert all(each.reason and str(tmp_path) not in each.reason for each in results if isinstance(each, Unreadable))


def test_no_pictures_give_no_results(tagger: Tagger) -> None:
    assert tagger.tag([]) == []


def test_predictions_do_not_depend_on_other_pictures_and_hardly_on_the_batch_size(
    tagger: Tagger, tmp_path: Path
) -> None:
    paths = [save_picture(tmp_path / f"{i}.png", (i * 40, 200 - i * 30, 90), (60 + i, 50)) for i in range(5)]
    alone = [result for path in paths for result in tag(tagger, path)]
    assert tag(tagger, *paths) == alone
    for one, other in zip(alone, tag(Tagger(TINY_RANDOM, batch=4, threads=1), *paths), strict=True):
        assert isinstance(one, Predicted)
        assert isinstance(other, Predicted)
        expected = {prediction.tag: prediction.probability for prediction in other.predictions}
        assert {prediction.tag: prediction.probability for prediction in one.predictions} == pytest.approx(
            expected, abs=2e-3
        )


def test_the_tagger_needs_neither_torch_nor_onnx_nor_a_bus() -> None:
    probe = (
        "import sys, tagger.wd.tagger, tagger.models; print({'torch', 'onnx', 'nats', 'asyncio'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True, timeout=WAIT)
    assert done.stdout.strip() == "set()"
