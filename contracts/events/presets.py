"""Facts of presets."""

from contracts.events.facts import Fact
from contracts.recipe import Recipe


class PresetSaved(Fact, frozen=True, tag="preset.saved"):
    """The whole recipe as it stands; `parent` is the preset it was made from."""

    name: str
    recipe: Recipe
    parent: str | None = None
    description: str = ""


class PresetRetired(Fact, frozen=True, tag="preset.retired"):
    """Not offered any more; jobs carry their resolved recipe and do not notice."""


PresetFact = PresetSaved | PresetRetired
