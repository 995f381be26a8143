"""The demo world's classifiers on unseen pictures."""

from random import Random

import numpy as np
import pytest
from PIL import Image

from demo_world.concepts import CONCEPTS, EVALUATION_BACKGROUNDS, similar_concepts
from demo_world.drawing import draw_scene
from demo_world.scenes import EARS
from demo_world.scoring import ConceptClassifier, SceneClassifier, success_rate
from demo_world.withheld import evaluation_scene


@pytest.fixture(scope="module")
def classifier() -> SceneClassifier:
    return SceneClassifier(examples_per_kind=30)


@pytest.mark.slow
def test_kind_and_colour_are_classified_from_the_picture_alone(classifier: SceneClassifier) -> None:
    scenes = [evaluation_scene("held-out", index) for index in range(150)]
    results = [classifier.classify(draw_scene(scene, f"held-out/{index}")) for index, scene in enumerate(scenes)]
    pairs = list(zip(scenes, results, strict=True))
    kinds = success_rate([scene.kind == result.kind for scene, result in pairs])
    shapes = success_rate([scene.kind == result.kind for scene, result in pairs if scene.kind not in EARS])
    colours = success_rate([scene.colour == result.colour for scene, result in pairs])
    print(f"kind {kinds:.3f} (shapes alone {shapes:.3f}), colour {colours:.3f}")  # noqa: T201 - pytest -s shows it
    assert kinds >= 0.85
    assert shapes >= 0.95
    assert colours >= 0.98


@pytest.mark.slow
def test_an_empty_picture_or_noise_has_no_kind(classifier: SceneClassifier) -> None:
    empty = classifier.classify(Image.new("RGB", (64, 64), (190, 214, 246)))
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    assert (empty.kind, empty.colour) == ("", "")
    assert classifier.classify(Image.fromarray(noise)).kind == ""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["momo", "krok"])
def test_a_concept_is_recognised_and_similar_ones_are_not(name: str) -> None:
    concept, rng = CONCEPTS[name], Random("held-out")
    concept_classifier = ConceptClassifier(concept, examples=40)
    matches = [
        concept_classifier.matches(draw_scene(concept.scene(rng, EVALUATION_BACKGROUNDS), f"own/{index}"))
        for index in range(40)
    ]
    others = [
        draw_scene(each.scene(rng), f"other/{index}") for each in similar_concepts(concept) for index in range(15)
    ]
    others += [draw_scene(evaluation_scene("base", index), f"base/{index}") for index in range(60)]
    false_positives = success_rate([concept_classifier.matches(other) for other in others])
    print(f"{name}: recognised {success_rate(matches):.3f}, false positives {false_positives:.3f}")  # noqa: T201 - pytest -s shows it
    assert success_rate(matches) >= 0.95
    assert false_positives <= 0.05
