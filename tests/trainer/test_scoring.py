"""The judges of the demo world, on pictures they have never seen."""

from random import Random

import numpy as np
import pytest
from PIL import Image

from trainer.demo.world.concepts import CONCEPTS, UNSEEN, siblings
from trainer.demo.world.drawing import draw
from trainer.demo.world.scenes import EARS
from trainer.demo.world.scoring import Judge, Recogniser, share
from trainer.demo.world.withheld import judging_scene


@pytest.fixture(scope="module")
def judge() -> Judge:
    return Judge(each=30)


def test_kind_and_colour_are_told_from_the_picture_alone(judge: Judge) -> None:
    scenes = [judging_scene("held-out", index) for index in range(150)]
    answers = [judge.judge(draw(scene, f"held-out/{index}")) for index, scene in enumerate(scenes)]
    pairs = list(zip(scenes, answers, strict=True))
    kinds = share([scene.kind == answer.kind for scene, answer in pairs])
    shapes = share([scene.kind == answer.kind for scene, answer in pairs if scene.kind not in EARS])
    colours = share([scene.colour == answer.colour for scene, answer in pairs])
    print(f"kind {kinds:.3f} (shapes alone {shapes:.3f}), colour {colours:.3f}")  # noqa: T201 - pytest -s shows it
    assert kinds >= 0.85
    assert shapes >= 0.95
    assert colours >= 0.98


def test_what_shows_nothing_is_nothing(judge: Judge) -> None:
    empty = judge.judge(Image.new("RGB", (64, 64), (190, 214, 246)))
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    assert (empty.kind, empty.colour) == ("", "")
    assert judge.judge(Image.fromarray(noise)).kind == ""


@pytest.mark.parametrize("name", ["momo", "krok"])
def test_a_concept_is_recognised_and_near_relations_are_not(name: str) -> None:
    concept, chance = CONCEPTS[name], Random("held-out")
    recogniser = Recogniser(concept, each=40)
    own = [recogniser.knows(draw(concept.scene(chance, UNSEEN), f"own/{index}")) for index in range(40)]
    others = [draw(each.scene(chance), f"other/{index}") for each in siblings(concept) for index in range(15)]
    others += [draw(judging_scene("base", index), f"base/{index}") for index in range(60)]
    known = share([recogniser.knows(other) for other in others])
    print(f"{name}: recognised {share(own):.3f}, others taken for it {known:.3f}")  # noqa: T201 - pytest -s shows it
    assert share(own) >= 0.95
    assert known <= 0.05
