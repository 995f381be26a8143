"""Commands on presets."""

from contracts.commands.base import Command, CommandResult, Description, Name


class PresetResult(CommandResult, frozen=True, tag="preset", tag_field="type"):
    name: str


class SavePreset(Command[PresetResult], frozen=True):
    """Save a recipe under a name: the parent's (or the default) with `changes` applied, given as dotted paths."""

    name: Name
    changes: dict[str, object] = {}
    parent: str | None = None
    description: Description = ""


class RetirePreset(Command[PresetResult], frozen=True):
    name: Name


PresetCommand = SavePreset | RetirePreset
