"""The rules of presets: named recipes, each derived from a parent by changing some fields. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import reduce

from catalog.domain import builtin_presets
from catalog.domain.datasets import normalize_name
from contracts.aggregates import AnyEvent
from contracts.commands.presets import PresetCommand, RetirePreset, SavePreset
from contracts.errors import NotFound, Rejected
from contracts.events.base import Event
from contracts.events.presets import PresetRetired, PresetSaved
from contracts.ids import PresetId, derived
from contracts.recipe import Recipe, apply_changes, validate_recipe


@dataclass(frozen=True)
class Preset:
    saved: PresetSaved | None = None
    retired: bool = False


def preset_id_of(name: str) -> PresetId:
    """Derived from the name: concurrent saves under one name write to the same aggregate, and one of them conflicts."""
    return PresetId(derived("pre", normalize_name(name)))


def evolve(preset: Preset, event: AnyEvent) -> Preset:
    match event:
        case PresetSaved():
            return Preset(saved=event)
        case PresetRetired():
            return replace(preset, retired=True)
        case _:
            return preset


def fold(history: Iterable[tuple[AnyEvent, int]]) -> Preset:
    return reduce(evolve, (event for event, _ in history), Preset())


def decide(preset: Preset, command: PresetCommand, parent: Recipe) -> list[Event]:
    """The events of a command, none if nothing changes. `parent`: the recipe of its parent, or the default."""
    name = normalize_name(command.name)
    if name.casefold() in builtin_presets.BY_NAME:
        raise Rejected(f"{name!r} comes with Loratory and cannot be changed; save yours under another name")
    match command:
        case SavePreset(changes=changes, description=description):
            recipe = validate_recipe(apply_changes(parent, changes))
            saved = PresetSaved(name=name, recipe=recipe, parent=command.parent, description=description)
            return [] if saved == preset.saved and not preset.retired else [saved]
        case RetirePreset():
            if preset.saved is None:
                raise NotFound(f"there is no preset {name!r}")
            return [] if preset.retired else [PresetRetired()]
