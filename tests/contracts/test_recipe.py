"""Recipes changed by dotted paths: valid changes are applied, invalid ones name the field."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.errors import Rejected
from contracts.recipe import Adafactor, AdamW, Epochs, LoRA, Recipe, apply_changes, validate_recipe

DEFAULT = Recipe()
FIELDS = sorted(msgspec.to_builtins(DEFAULT))


def test_no_changes_give_an_equal_recipe() -> None:
    assert apply_changes(DEFAULT, {}) == DEFAULT == validate_recipe(DEFAULT)


def test_a_path_and_a_nested_object_are_equivalent() -> None:
    by_path = apply_changes(DEFAULT, {"adapter.rank": 16, "adapter.alpha": 4})
    nested = apply_changes(DEFAULT, {"adapter": {"rank": 16, "alpha": 4}})
    assert by_path == nested
    assert by_path.adapter == LoRA(rank=16, alpha=4.0)


def test_another_type_replaces_a_branch_and_the_same_type_is_merged() -> None:
    merged = apply_changes(DEFAULT, {"optimizer": {"type": "adamw", "lr": 0.5}})
    assert merged.optimizer == AdamW(lr=0.5)
    replaced = apply_changes(DEFAULT, {"optimizer": {"type": "adafactor"}, "length": {"type": "epochs", "count": 3}})
    assert (replaced.optimizer, replaced.length) == (Adafactor(), Epochs(count=3))


def test_each_change_sees_the_ones_before_it() -> None:
    recipe = apply_changes(DEFAULT, {"optimizer": {"type": "adafactor"}, "optimizer.lr": 0.25})
    assert recipe.optimizer == Adafactor(lr=0.25)


def test_applying_changes_does_not_mutate_them() -> None:
    changes: dict[str, object] = {"optimizer": {"type": "adafactor"}, "optimizer.lr": 0.25}
    apply_changes(DEFAULT, changes)
    assert changes == {"optimizer": {"type": "adafactor"}, "optimizer.lr": 0.25}


@pytest.mark.parametrize(
    ("changes", "named"),
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
def test_an_unknown_field_or_invalid_value_is_named(changes: dict[str, object], named: str) -> None:
    with pytest.raises(Rejected, match=named.replace(".", r"\.")):
        apply_changes(DEFAULT, changes)


@pytest.mark.parametrize("lr", [float("nan"), float("inf"), -1.0, 0.0])
def test_a_recipe_built_in_python_is_validated_too(lr: float) -> None:
    with pytest.raises(Rejected):
        validate_recipe(Recipe(optimizer=AdamW(lr=lr)))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["type", "lr", "x"]), inner, max_size=2)
    ),
    max_leaves=4,
)


# Slow generation of the first examples depends on the machine and is not a failure.
@given(st.dictionaries(st.sampled_from(FIELDS) | st.text("abc.", max_size=4), JSON, max_size=2))
def test_any_changes_give_a_valid_recipe_or_are_rejected(changes: dict[str, object]) -> None:
    try:
        recipe = apply_changes(DEFAULT, changes)
    except Rejected:
        return
    assert validate_recipe(recipe) == recipe
