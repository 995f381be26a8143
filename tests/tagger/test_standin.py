import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from contracts.tags import Acceptance, accepted, rating
from tagger.standin import STAND_IN
from tagger.standin.make import write
from tagger.wd.tagger import Predicted, Tagger, Unreadable

FILES = ("model.onnx", "selected_tags.csv", "manifest.json")


@pytest.fixture(scope="module")
def tagger() -> Tagger:
    return Tagger(STAND_IN, threads=1)


def drawn(path: Path, colour: str | tuple[int, int, int], size: tuple[int, int] = (96, 96)) -> Path:
    Image.new("RGB", size, colour).save(path)
    return path


def tags_of(tagger: Tagger, path: Path) -> list[str]:
    (answer,) = tagger.tag([path])
    assert isinstance(answer, Predicted)
    assert rating(answer.predictions) == "general"
    return [guess.tag for guess in accepted(answer.predictions, Acceptance())]


def test_the_committed_files_are_what_the_script_makes(tmp_path: Path) -> None:
    write(tmp_path)
    for name in FILES:
        assert (tmp_path / name).read_bytes() == (STAND_IN / name).read_bytes(), name


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
    tags = set(tags_of(tagger, drawn(tmp_path / "one.png", colour)))
    assert tags & colours == {name}
    assert {f"{name}_background", "simple_background"} <= tags


def test_light_and_characters_are_seen(tagger: Tagger, tmp_path: Path) -> None:
    black = tags_of(tagger, drawn(tmp_path / "black.png", "black"))
    assert black[0] == "shade_(stand-in)"
    assert {"dark", "monochrome"} <= set(black)
    assert "bright" in tags_of(tagger, drawn(tmp_path / "white.png", "white"))
    assert {"colorful", "ember_(stand-in)"} <= set(tags_of(tagger, drawn(tmp_path / "red.png", "red")))


def test_a_red_disc_on_blue_is_red_and_on_a_blue_background(tagger: Tagger, tmp_path: Path) -> None:
    image = Image.new("RGB", (96, 96), "blue")
    ImageDraw.Draw(image).ellipse((20, 20, 76, 76), fill="red")
    image.save(tmp_path / "disc.png")
    tags = tags_of(tagger, tmp_path / "disc.png")
    assert {"red", "blue", "blue_background", "simple_background", "colorful"} <= set(tags)
    assert "red_background" not in tags


def test_a_file_that_cannot_be_read_gets_a_reason_and_the_rest_goes_on(tagger: Tagger, tmp_path: Path) -> None:
    whole = drawn(tmp_path / "whole.jpg", "red")
    half = tmp_path / "half.jpg"
    half.write_bytes(whole.read_bytes()[:400])
    text = tmp_path / "text.png"
    text.write_text("I am no picture")
    answers = tagger.tag([half, whole, text, tmp_path / "gone.png", whole])
    assert [type(each) for each in answers] == [Unreadable, Predicted, Unreadable, Unreadable, Predicted]
    assert answers[1] == answers[4]
    assert all(each.reason and str(tmp_path) not in each.reason for each in answers if isinstance(each, Unreadable))


def test_no_pictures_have_no_answers(tagger: Tagger) -> None:
    assert tagger.tag([]) == []


def test_answers_do_not_depend_on_their_company_and_hardly_on_the_batch_size(tagger: Tagger, tmp_path: Path) -> None:
    paths = [drawn(tmp_path / f"{i}.png", (i * 40, 200 - i * 30, 90), (60 + i, 50)) for i in range(5)]
    alone = [answer for path in paths for answer in tagger.tag([path])]
    assert tagger.tag(paths) == alone
    for one, other in zip(alone, Tagger(STAND_IN, batch=4, threads=1).tag(paths), strict=True):
        assert isinstance(one, Predicted)
        assert isinstance(other, Predicted)
        chances = {guess.tag: guess.probability for guess in other.predictions}
        assert {guess.tag: guess.probability for guess in one.predictions} == pytest.approx(chances, abs=2e-3)


def test_the_tagger_needs_neither_torch_nor_onnx_nor_a_bus() -> None:
    probe = (
        "import sys, tagger.wd.tagger, tagger.models; print({'torch', 'onnx', 'nats', 'asyncio'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "set()"
