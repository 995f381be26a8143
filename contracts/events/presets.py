"""Events of presets."""

from contracts.definitions import union_in
from contracts.events.base import Event
from contracts.recipe import Recipe


class PresetSaved(Event, frozen=True, tag="preset.saved"):
    """The whole resolved recipe; `parent` is the preset it was derived from."""

    name: str
    recipe: Recipe
    parent: str | None = None
    description: str = ""

    def describe(self) -> str:
        return f"Saved preset {self.name!r}"


class PresetRetired(Event, frozen=True, tag="preset.retired"):
    """No longer offered. Jobs are not affected: they carry their resolved recipe."""

    def describe(self) -> str:
        return "Retired the preset"


PresetEvent = union_in(__name__, Event)
