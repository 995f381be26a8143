"""Recipes changed by dotted paths: what fits is taken, what does not is named."""

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contracts.errors import Rejected
from contracts.recipe import Adafactor, AdamW, Epochs, LoRA, Recipe, checked, overlaid

PLAIN = Recipe()
FIELDS = sorted(msgspec.to_builtins(PLAIN))


def test_no_change_is_the_same_recipe() -> None:
    assert overlaid(PLAIN, {}) == PLAIN == checked(PLAIN)


def test_a_path_and_a_nested_object_say_the_same() -> None:
    by_path = overlaid(PLAIN, {"adapter.rank": 16, "adapter.alpha": 4})
    nested = overlaid(PLAIN, {"adapter": {"rank": 16, "alpha": 4}})
    assert by_path == nested
    assert by_path.adapter == LoRA(rank=16, alpha=4.0)


def test_another_type_replaces_its_branch_and_the_same_type_merges_into_it() -> None:
    merged = overlaid(PLAIN, {"optimizer": {"type": "adamw", "lr": 0.5}})
    assert merged.optimizer == AdamW(lr=0.5)
    replaced = overlaid(PLAIN, {"optimizer": {"type": "adafactor"}, "length": {"type": "epochs", "count": 3}})
    assert (replaced.optimizer, replaced.length) == (Adafactor(), Epochs(count=3))


def test_each_change_sees_the_ones_before_it() -> None:
    recipe = overlaid(PLAIN, {"optimizer": {"type": "adafactor"}, "optimizer.lr": 0.25})
    assert recipe.optimizer == Adafactor(lr=0.25)


def test_changes_are_not_changed_themselves() -> None:
    changes: dict[str, object] = {"optimizer": {"type": "adafactor"}, "optimizer.lr": 0.25}
    overlaid(PLAIN, changes)
    assert changes == {"optimizer": {"type": "adafactor"}, "optimizer.lr": 0.25}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"speed": 1}, "'speed'"),
        ({"optimizer.speed": 1}, "'optimizer.speed'"),
        ({"optimizer": {"speed": 1}}, "'optimizer.speed'"),
        ({"seed.deep": 1}, "'seed.deep'"),
        ({"": 1}, "''"),
        ({"adapter.rank": 0}, "adapter.rank"),
        ({"adapter.rank": "8"}, "adapter.rank"),
        ({"optimizer": {"type": "magic"}}, "optimizer"),
        ({"optimizer.type": "adafactor"}, "optimizer"),
        ({"data.resolution": 100}, "data.resolution"),
        ({"sampling.prompts": ["x"] * 17}, "sampling.prompts"),
        ({"save": None}, "save"),
    ],
)
def test_what_does_not_fit_is_named(changes: dict[str, object], says: str) -> None:
    with pytest.raises(Rejected, match=says.replace(".", r"\.")):
        overlaid(PLAIN, changes)


@pytest.mark.parametrize("lr", [float("nan"), float("inf"), -1.0, 0.0])
def test_a_recipe_built_by_hand_is_checked_too(lr: float) -> None:
    with pytest.raises(Rejected):
        checked(Recipe(optimizer=AdamW(lr=lr)))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["type", "lr", "x"]), inner, max_size=2)
    ),
    max_leaves=4,
)


# Only how long the first examples take is not looked at: that is the machine's business.
@settings(suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from(FIELDS) | st.text("abc.", max_size=4), JSON, max_size=2))
def test_whatever_is_asked_the_outcome_is_a_recipe_or_a_refusal(changes: dict[str, object]) -> None:
    try:
        recipe = overlaid(PLAIN, changes)
    except Rejected:
        return
    assert checked(recipe) == recipe
