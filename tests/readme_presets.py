"""The table of presets in README.md, from the built-in presets: `python -m tests.readme_presets` prints it."""

import sys
from collections.abc import Iterable

from catalog.domain.builtin_presets import BY_NAME
from contracts.recipe import BuiltinBase, Steps

PURPOSES = {
    "quick": "a first look, in a few minutes on a GPU",
    "sd15-lora": "a character, an object or a style, from 10 to 100 images",
    "sd15-low-memory": "the same with a smaller LoRA",
    "demo": "only for the demo: a creature, on a CPU",
}
"""The presets listed; `tiny-random-demo` is for tests."""
COLUMNS = (
    *("Preset", "Base model", "Pixels", "Rank / alpha", "Steps", "Learning rate", "Batch"),
    *("Steps between checkpoints / samples", "For"),
)


def render() -> str:
    return "\n".join((_line(COLUMNS), "|" + "---|" * len(COLUMNS), *map(_preset, PURPOSES)))


def _preset(name: str) -> str:
    recipe = BY_NAME[name].recipe
    assert isinstance(recipe.length, Steps)
    base = f"built-in `{recipe.base.name}`" if isinstance(recipe.base, BuiltinBase) else f"`{recipe.base.path}`"
    samples = str(recipe.sampling.every) if recipe.sampling.every else "at the end"
    cells = (
        f"`{name}`",
        base,
        recipe.data.resolution,
        f"{recipe.adapter.rank} / {recipe.adapter.alpha:g}",
        recipe.length.count,
        f"{recipe.optimizer.lr:g} ({type(recipe.optimizer).__name__})",
        recipe.data.batch_size,
        f"{recipe.save.every} / {samples}",
        PURPOSES[name],
    )
    return _line(cells)


def _line(cells: Iterable[object]) -> str:
    return f"| {' | '.join(map(str, cells))} |"


if __name__ == "__main__":
    sys.stdout.write(render() + "\n")
