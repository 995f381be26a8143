from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.errors import Rejected
from contracts.recipe import Constant, Cosine, Data, Epochs, Linear, Recipe, Sampling, Save, Steps
from trainer.plan import Plan, assign_buckets, bucket_sizes, build_plan, epoch_batches, lr_factor

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
    return build_plan(Recipe(data=data, seed=draw(st.integers(0, 9)), length=Epochs(count=2)), draw(sizes))


@given(plans())
def test_an_epoch_has_every_picture_repeats_times_and_never_mixes_buckets(plan: Plan) -> None:
    sizes_by_index = plan.sizes_by_index()
    for number in (1, 2):
        batches = epoch_batches(plan, number)
        assert len(batches) == plan.batches_per_epoch
        assert all(len({sizes_by_index[index] for index in batch}) == 1 for batch in batches)
        assert all(len(batch) <= plan.batch_size for batch in batches)
        assert Counter(index for batch in batches for index in batch) == dict.fromkeys(sizes_by_index, plan.repeats)


@given(st.lists(st.tuples(sides, sides, st.integers(1, 4)), min_size=1, max_size=20), st.integers(1, 3))
def test_an_epoch_has_every_picture_as_often_as_its_own_repeats_times_the_recipes(
    pictures: list[tuple[int, int, int]], repeats: int
) -> None:
    recipe = Recipe(data=Data(batch_size=3, repeats=repeats), length=Epochs(count=2))
    own = [picture[2] for picture in pictures]
    plan = build_plan(recipe, [(width, height) for width, height, _ in pictures], own)
    for number in (1, 2):
        batches = epoch_batches(plan, number)
        assert len(batches) == plan.batches_per_epoch
        assert Counter(index for batch in batches for index in batch) == {
            index: times * repeats for index, times in enumerate(own)
        }


def test_repeats_of_one_are_the_plan_without_repeats() -> None:
    sizes = [(512, 768), (64, 64), (512, 512)]
    assert build_plan(Recipe(), sizes, [1, 1, 1]) == build_plan(Recipe(), sizes)


def test_an_epoch_that_would_not_fit_in_memory_is_refused() -> None:
    recipe = Recipe(data=Data(repeats=10_000))
    with pytest.raises(Rejected, match="an epoch has 20,010,000 pictures; it may have 20,000,000"):
        build_plan(recipe, [(64, 64), (64, 64)], [2000, 1])


@given(plans())
def test_the_steps_of_an_epoch_use_its_batches_in_order(plan: Plan) -> None:
    assert plan.steps == plan.epochs * plan.steps_per_epoch
    for number in (1, 2):
        steps = range((number - 1) * plan.steps_per_epoch + 1, number * plan.steps_per_epoch + 1)
        assert {plan.epoch_of(step) for step in steps} == {number}
        assert tuple(batch for step in steps for batch in plan.batches_of(step)) == epoch_batches(plan, number)
        assert all(plan.batches_of(step) for step in steps)


def test_the_data_order_is_a_function_of_seed_and_epoch() -> None:
    ours, same, other = (build_plan(Recipe(seed=seed), [(512, 512)] * 50) for seed in (1, 1, 2))
    assert epoch_batches(ours, 3) == epoch_batches(same, 3)
    assert epoch_batches(ours, 3) != epoch_batches(ours, 4)
    assert epoch_batches(ours, 3) != epoch_batches(other, 3)


@given(st.integers(1, 300).map(lambda cells: cells * 8), cells, sizes)
def test_buckets_respect_area_and_step(resolution: int, step: int, pictures: list[tuple[int, int]]) -> None:
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
    buckets = assign_buckets(pictures, choices)
    assert sorted(index for bucket in buckets for index in bucket.members) == list(range(len(pictures)))
    assert {bucket.size for bucket in buckets} <= set(choices)


def test_pictures_go_into_the_bucket_with_the_nearest_aspect_ratio() -> None:
    sizes_by_index = {
        index: bucket.size
        for bucket in assign_buckets([(1000, 1000), (1920, 1080), (30_000, 1), (600, 800)], bucket_sizes(512, 64))
        for index in bucket.members
    }
    assert sizes_by_index == {0: (512, 512), 1: (640, 384), 2: (1024, 256), 3: (448, 576)}


@given(st.integers(1, 500), st.integers(0, 600), st.sampled_from((Constant, Linear, Cosine)))
def test_the_lr_factor_warms_up_and_stays_within_bounds(steps: int, warmup: int, kind: type) -> None:
    factors = [lr_factor(kind(warmup=warmup), step, steps) for step in range(1, steps + 1)]
    assert all(0 < factor <= 1 for factor in factors)
    top = min(warmup, steps)
    assert factors[:top] == sorted(factors[:top])
    assert factors[top:] == sorted(factors[top:], reverse=True)


def test_it_saves_and_samples_at_the_recipes_steps() -> None:
    recipe = Recipe(length=Steps(count=10), save=Save(every=4), sampling=Sampling(every=5))
    plan = build_plan(recipe, [(64, 64)])
    assert [step for step in range(11) if plan.saves_at(step)] == [4, 8, 10]
    assert [step for step in range(11) if plan.samples_at(step)] == [0, 5, 10]


def test_a_version_without_pictures_is_refused() -> None:
    with pytest.raises(Rejected, match="no pictures"):
        build_plan(Recipe(), [])
