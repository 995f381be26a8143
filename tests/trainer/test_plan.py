from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.errors import Rejected
from contracts.recipe import Constant, Cosine, Data, Epochs, Linear, Recipe, Sampling, Save, Steps
from trainer.plan import Plan, assign, bucket_sizes, draw_up, epoch, rate_at

sides = st.integers(1, 6000)
sizes = st.lists(st.tuples(sides, sides), min_size=1, max_size=40)
cells = st.integers(1, 16).map(lambda cells: cells * 8)


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    data = Data(
        resolution=draw(st.integers(8, 64)) * 8,
        bucket_step=draw(st.sampled_from((8, 16, 64))),
        batch_size=draw(st.integers(1, 5)),
        accumulate=draw(st.integers(1, 4)),
        repeats=draw(st.integers(1, 3)),
    )
    return draw_up(Recipe(data=data, seed=draw(st.integers(0, 9)), length=Epochs(count=2)), draw(sizes))


@given(plans())
def test_an_epoch_shows_every_picture_as_often_as_repeats_say_and_never_mixes_buckets(plan: Plan) -> None:
    size_of = plan.size_of()
    for number in (1, 2):
        batches = epoch(plan, number)
        assert len(batches) == plan.batches_per_epoch
        assert all(len({size_of[place] for place in batch}) == 1 for batch in batches)
        assert all(len(batch) <= plan.batch_size for batch in batches)
        assert Counter(place for batch in batches for place in batch) == dict.fromkeys(size_of, plan.repeats)


@given(plans())
def test_the_steps_of_an_epoch_are_its_batches_in_order(plan: Plan) -> None:
    assert plan.steps == plan.epochs * plan.steps_per_epoch
    for number in (1, 2):
        steps = range((number - 1) * plan.steps_per_epoch + 1, number * plan.steps_per_epoch + 1)
        assert {plan.epoch_of(step) for step in steps} == {number}
        assert tuple(batch for step in steps for batch in plan.batches_of(step)) == epoch(plan, number)
        assert all(plan.batches_of(step) for step in steps)


def test_the_order_is_a_function_of_seed_and_epoch() -> None:
    ours, same, other = (draw_up(Recipe(seed=seed), [(512, 512)] * 50) for seed in (1, 1, 2))
    assert epoch(ours, 3) == epoch(same, 3)
    assert epoch(ours, 3) != epoch(ours, 4)
    assert epoch(ours, 3) != epoch(other, 3)


@given(st.integers(1, 300).map(lambda cells: cells * 8), cells, sizes)
def test_buckets_keep_to_their_area_and_step(resolution: int, step: int, pictures: list[tuple[int, int]]) -> None:
    if step > resolution:
        with pytest.raises(Rejected):
            bucket_sizes(resolution, step)
        return
    choices = bucket_sizes(resolution, step)
    assert choices
    for width, height in choices:
        assert width % step == height % step == 0
        assert width * height <= resolution**2
        assert (height, width) in choices
    buckets = assign(pictures, choices)
    assert sorted(place for bucket in buckets for place in bucket.members) == list(range(len(pictures)))
    assert {bucket.size for bucket in buckets} <= set(choices)


def test_pictures_go_where_their_aspect_fits() -> None:
    places = {
        place: bucket.size
        for bucket in assign([(1000, 1000), (1920, 1080), (30_000, 1), (600, 800)], bucket_sizes(512, 64))
        for place in bucket.members
    }
    assert places == {0: (512, 512), 1: (640, 384), 2: (1024, 256), 3: (448, 576)}


@given(st.integers(1, 500), st.integers(0, 600), st.sampled_from((Constant, Linear, Cosine)))
def test_the_rate_warms_up_and_stays_within_bounds(steps: int, warmup: int, kind: type) -> None:
    rates = [rate_at(kind(warmup=warmup), step, steps) for step in range(1, steps + 1)]
    assert all(0 < rate <= 1 for rate in rates)
    top = min(warmup, steps)
    assert rates[:top] == sorted(rates[:top])
    assert rates[top:] == sorted(rates[top:], reverse=True)


def test_it_saves_and_samples_when_the_recipe_says() -> None:
    recipe = Recipe(length=Steps(count=10), save=Save(every=4), sampling=Sampling(every=5))
    plan = draw_up(recipe, [(64, 64)])
    assert [step for step in range(11) if plan.saves_at(step)] == [4, 8, 10]
    assert [step for step in range(11) if plan.samples_at(step)] == [0, 5, 10]


def test_a_version_without_pictures_cannot_be_planned() -> None:
    with pytest.raises(Rejected, match="no pictures"):
        draw_up(Recipe(), [])
