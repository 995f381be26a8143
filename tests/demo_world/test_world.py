"""The demo world: pictures, captions and tags, and the split between training and evaluation."""

from pathlib import Path
from random import Random

import numpy as np
import pytest

from demo_world import withheld
from demo_world.concepts import (
    CONCEPTS,
    EVALUATION_BACKGROUNDS,
    TRAINING_BACKGROUNDS,
    concept_scenes,
    similar_concepts,
)
from demo_world.drawing import draw_scene
from demo_world.palette import BACKGROUNDS, COLOURS
from demo_world.scenes import (
    BACKDROPS,
    EARS,
    FACES,
    SHAPES,
    TAILS,
    TEXTURES,
    Creature,
    Scene,
    Shape,
    all_tags,
    random_scene,
)

STAR = Scene(subject=Shape(shape="star", count=2), colour="red", texture="striped", size="small", background="dark")
CAT = Scene(
    subject=Creature(body="tall", ears="pointy ears", tail="curly tail"),
    colour="blue",
    face="smiling",
    background="pink",
    backdrop="hills",
)


def test_a_scene_has_a_caption_and_tags() -> None:
    assert STAR.caption() == "two small striped red stars, in the middle, dark background"
    assert STAR.tags() == ["stars", "red", "two", "striped", "small", "middle", "dark background"]
    assert CAT.caption() == (
        "a big blue creature with a tall body, pointy ears, short legs, curly tail, smiling, "
        "in the middle, pink background with hills"
    )
    assert CAT.tags()[:4] == ["creature", "blue", "pointy ears", "tall body"]


def test_a_picture_is_a_function_of_scene_and_seed() -> None:
    first, repeated, different = draw_scene(CAT, 1), draw_scene(CAT, 1), draw_scene(CAT, 2)
    assert first.tobytes() == repeated.tobytes() != different.tobytes()
    assert (first.size, first.mode) == ((64, 64), "RGB")
    assert draw_scene(CAT, 1, (96, 80)).size == (96, 80)


def test_every_feature_can_be_drawn_and_all_pictures_differ() -> None:
    scenes = [Scene(subject=Shape(shape=shape), colour="red", texture=each) for shape in SHAPES for each in TEXTURES]
    scenes += [
        Scene(subject=Creature(body="round", ears=ears, tail=tail), colour=colour, face=face)
        for ears, colour in zip(EARS * 2, COLOURS, strict=True)
        for tail in TAILS
        for face in FACES
    ]
    scenes += [
        Scene(subject=Shape(shape="drop"), colour="brown", background=background, backdrop=backdrop)
        for background in BACKGROUNDS
        for backdrop in BACKDROPS
    ]
    assert len({draw_scene(scene, 0).tobytes() for scene in scenes}) == len(set(scenes))


def test_all_tags_lists_every_tag_of_every_scene() -> None:
    scenes = [random_scene(Random(seed)) for seed in range(3000)]
    assert {tag for scene in scenes for tag in scene.tags()} == set(all_tags())


def test_no_training_picture_shows_a_withheld_pair_or_a_concept() -> None:
    pairs, features = set(), set()
    for index in range(50_000):
        scene = withheld.training_scene(0, index)
        pairs.add((scene.kind, scene.colour))
        if isinstance(scene.subject, Creature):
            features.add((scene.subject.ears, scene.subject.accent))
    assert not pairs & withheld.WITHHELD
    assert len(pairs) == len(withheld.KINDS) * len(COLOURS) - len(withheld.WITHHELD)
    assert features == {(ears, "") for ears in EARS}


def test_every_kind_and_colour_still_occurs_in_other_combinations() -> None:
    assert len(withheld.WITHHELD) == 20
    for position, names in ((0, withheld.KINDS), (1, COLOURS)):
        assert all(sum(pair[position] == name for pair in withheld.WITHHELD) <= 2 for name in names)


def test_the_committed_lists_equal_the_generated_ones(tmp_path: Path) -> None:
    withheld.write_lists(tmp_path)
    for name in ("withheld", "evaluation", "combinations", "concepts", "demo"):
        assert (tmp_path / f"{name}.json").read_text() == (withheld.LISTS / f"{name}.json").read_text()


def test_the_lists_contain_the_intended_prompts() -> None:
    evaluation, combinations = withheld.read_prompts("evaluation"), withheld.read_prompts("combinations")
    assert (len(evaluation), len(combinations), len(withheld.read_demo_prompts())) == (200, 100, 5)
    assert not {(each.kind, each.colour) for each in evaluation} & withheld.WITHHELD
    assert {(each.kind, each.colour) for each in combinations} == withheld.WITHHELD
    assert len({each.prompt for each in evaluation}) == 200
    assert all(each.colour in each.prompt for each in (*evaluation, *combinations))
    trials = withheld.read_trials()
    assert {(each.concept, each.seed) for each in trials} == {(name, seed) for name in CONCEPTS for seed in range(3)}
    assert not [
        p
        for each in trials
        for p in each.prompts
        if any(f"{background} background" in p for background in TRAINING_BACKGROUNDS)
    ]


@pytest.mark.parametrize("name", CONCEPTS)
def test_a_concept_has_a_fixed_design_in_varying_scenes(name: str) -> None:
    concept = CONCEPTS[name]
    scenes = concept_scenes(concept, seed=0)
    assert len(scenes) == 12
    assert {(scene.subject, scene.colour, scene.texture) for scene in scenes} == {
        (concept.creature, concept.colour, concept.texture)
    }
    assert (
        {scene.background for scene in scenes}
        <= set(TRAINING_BACKGROUNDS)
        == set(BACKGROUNDS) - set(EVALUATION_BACKGROUNDS)
    )
    assert concept.tags(scenes[0])[:2] == [name, "creature"]


def test_similar_concepts_look_different_from_their_concept() -> None:
    for concept in CONCEPTS.values():
        rng = Random(0)
        scene = concept.scene(rng)
        own = np.asarray(draw_scene(scene, 0), np.float32)
        for similar in similar_concepts(concept):
            other = np.asarray(draw_scene(similar.scene(Random(0)), 0), np.float32)
            assert np.abs(own - other).mean() > 1
