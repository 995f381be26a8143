"""The rules of presets: named recipes, each made from a parent by changing some fields. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from catalog.domain import builtin_presets
from catalog.domain.datasets import RESERVED
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
    return PresetId(derived("pre", name.casefold()))


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
    if wish.name.casefold() in builtin_presets.BY_NAME:
        raise Rejected(f"{wish.name!r} comes with Loratory and cannot be changed; save yours under another name")
    match wish:
        case SavePreset(name=name, changes=changes, description=description):
            if name.casefold() in RESERVED or "/" in name:
                raise Rejected(f"the name {name!r} is reserved; choose another", reason="reserved-name")
            recipe = checked(overlaid(parent, changes))
            saved = PresetSaved(name=name, recipe=recipe, parent=wish.parent, description=description)
            return None if saved == preset.saved and not preset.retired else saved
        case RetirePreset(name=name):
            if preset.saved is None:
                raise NotFound(f"there is no preset {name!r}")
            return None if preset.retired else PresetRetired()
