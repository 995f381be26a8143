"""The rules of presets: named recipes, each made from a parent by changing some fields. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from catalog.domain import builtin_presets
from catalog.domain.datasets import clean
from contracts.commands import PresetWish, RetirePreset, SavePreset
from contracts.errors import NotFound, Rejected
from contracts.events import AnyFact, PresetFact, PresetRetired, PresetSaved
from contracts.ids import PresetId, derived
from contracts.recipe import Recipe, checked, overlaid


@dataclass(frozen=True)
class Preset:
    saved: PresetSaved | None = None
    retired: bool = False


def id_of(name: str) -> PresetId:
    """Its name is its identity: two people who save the same name write to the same thing, and one of them is late."""
    return PresetId(derived("pre", clean(name)))


def evolve(preset: Preset, fact: AnyFact) -> Preset:
    match fact:
        case PresetSaved():
            return Preset(saved=fact)
        case PresetRetired():
            return replace(preset, retired=True)
        case _:
            return preset


def fold(history: Iterable[tuple[AnyFact, int]]) -> Preset:
    preset = Preset()
    for fact, _ in history:
        preset = evolve(preset, fact)
    return preset


def decide(preset: Preset, wish: PresetWish, parent: Recipe) -> PresetFact | None:
    """`parent` is the recipe of the wish's parent, or the plain one."""
    name = clean(wish.name)
    if name.casefold() in builtin_presets.BY_NAME:
        raise Rejected(f"{name!r} comes with Loratory and cannot be changed; save yours under another name")
    match wish:
        case SavePreset(changes=changes, description=description):
            recipe = checked(overlaid(parent, changes))
            saved = PresetSaved(name=name, recipe=recipe, parent=wish.parent, description=description)
            return None if saved == preset.saved and not preset.retired else saved
        case RetirePreset():
            if preset.saved is None:
                raise NotFound(f"there is no preset {name!r}")
            return None if preset.retired else PresetRetired()
