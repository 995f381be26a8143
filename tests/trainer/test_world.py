"""The demo world: what it draws, what it says, what it keeps to itself."""

from pathlib import Path
from random import Random

import numpy as np
import pytest

from trainer.demo.world import withheld
from trainer.demo.world.concepts import CONCEPTS, SEEN, UNSEEN, shown, siblings
from trainer.demo.world.drawing import draw
from trainer.demo.world.palette import COLOURS, GROUNDS
from trainer.demo.world.scenes import (
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
    any_scene,
)

STAR = Scene(subject=Shape(shape="star", count=2), colour="red", texture="striped", size="small", ground="dark")
CAT = Scene(
    subject=Creature(body="tall", ears="pointy ears", tail="curly tail"),
    colour="blue",
    face="smiling",
    ground="pink",
    backdrop="hills",
)


def test_a_scene_says_its_caption_and_its_tags() -> None:
    assert STAR.caption() == "two small striped red stars, in the middle, dark background"
    assert STAR.tags() == ["stars", "red", "two", "striped", "small", "middle", "dark background"]
    assert CAT.caption() == (
        "a big blue creature with a tall body, pointy ears, short legs, curly tail, smiling, "
        "in the middle, pink background with hills"
    )
    assert CAT.tags()[:4] == ["creature", "blue", "pointy ears", "tall body"]


def test_a_picture_is_a_function_of_scene_and_seed() -> None:
    one, same, other = draw(CAT, 1), draw(CAT, 1), draw(CAT, 2)
    assert one.tobytes() == same.tobytes() != other.tobytes()
    assert (one.size, one.mode) == ((64, 64), "RGB")
    assert draw(CAT, 1, (96, 80)).size == (96, 80)


def test_everything_there_is_can_be_drawn_and_no_two_look_the_same() -> None:
    scenes = [Scene(subject=Shape(shape=shape), colour="red", texture=each) for shape in SHAPES for each in TEXTURES]
    scenes += [
        Scene(subject=Creature(body="round", ears=ears, tail=tail), colour=colour, face=face)
        for ears, colour in zip(EARS * 2, COLOURS, strict=True)
        for tail in TAILS
        for face in FACES
    ]
    scenes += [
        Scene(subject=Shape(shape="drop"), colour="brown", ground=ground, backdrop=backdrop)
        for ground in GROUNDS
        for backdrop in BACKDROPS
    ]
    assert len({draw(scene, 0).tobytes() for scene in scenes}) == len(set(scenes))


def test_every_tag_of_every_scene_is_known() -> None:
    scenes = [any_scene(Random(seed)) for seed in range(3000)]
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


def test_every_kind_and_every_colour_is_still_seen_in_other_company() -> None:
    assert len(withheld.WITHHELD) == 20
    for place, names in ((0, withheld.KINDS), (1, COLOURS)):
        assert all(sum(pair[place] == name for pair in withheld.WITHHELD) <= 2 for name in names)


def test_the_committed_lists_are_those_that_were_made(tmp_path: Path) -> None:
    withheld.write(tmp_path)
    for name in ("withheld", "evaluation", "combinations", "concepts", "demo"):
        assert (tmp_path / f"{name}.json").read_text() == (withheld.LISTS / f"{name}.json").read_text()


def test_the_lists_ask_for_what_they_are_there_for() -> None:
    evaluation, combinations = withheld.prompts("evaluation"), withheld.prompts("combinations")
    assert (len(evaluation), len(combinations), len(withheld.demo_prompts())) == (200, 100, 5)
    assert not {(each.kind, each.colour) for each in evaluation} & withheld.WITHHELD
    assert {(each.kind, each.colour) for each in combinations} == withheld.WITHHELD
    assert len({each.prompt for each in evaluation}) == 200
    assert all(each.colour in each.prompt for each in (*evaluation, *combinations))
    trials = withheld.trials()
    assert {(each.concept, each.seed) for each in trials} == {(name, seed) for name in CONCEPTS for seed in range(3)}
    assert not [p for each in trials for p in each.prompts if any(f"{ground} background" in p for ground in SEEN)]


@pytest.mark.parametrize("name", CONCEPTS)
def test_a_concept_never_changes_but_for_where_it_is(name: str) -> None:
    concept = CONCEPTS[name]
    scenes = shown(concept, seed=0)
    assert len(scenes) == 12
    assert {(scene.subject, scene.colour, scene.texture) for scene in scenes} == {
        (concept.creature, concept.colour, concept.texture)
    }
    assert {scene.ground for scene in scenes} <= set(SEEN) == set(GROUNDS) - set(UNSEEN)
    assert concept.tags(scenes[0])[:2] == [name, "creature"]


def test_siblings_differ_from_their_concept_in_what_is_seen() -> None:
    for concept in CONCEPTS.values():
        chance = Random(0)
        scene = concept.scene(chance)
        own = np.asarray(draw(scene, 0), np.float32)
        for sibling in siblings(concept):
            other = np.asarray(draw(sibling.scene(Random(0)), 0), np.float32)
            assert np.abs(own - other).mean() > 1
