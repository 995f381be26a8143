"""Commands on presets: each preset is folded from its own history."""

from catalog.domain import builtin_presets
from catalog.domain import presets as rules
from catalog.service.context import CommandContext, locked
from catalog.service.execution import Change, CommandOutcome
from catalog.service.locks import Scope
from catalog.views import presets
from contracts.commands.base import CommandMetadata
from contracts.commands.presets import PresetResult, RetirePreset, SavePreset
from contracts.errors import Rejected
from contracts.recipe import Recipe


@locked(lambda _, command: Scope((rules.preset_id_of(command.name),)))
async def change_preset(
    context: CommandContext, _: CommandMetadata, command: SavePreset | RetirePreset
) -> CommandOutcome:
    parent = command.parent if isinstance(command, SavePreset) else None
    recipe = Recipe() if parent is None else await require_recipe(context, parent)
    preset_id = rules.preset_id_of(command.name)
    history = await context.executor.log.load("preset", preset_id)
    events = rules.decide(rules.fold(history.events()), command, recipe)
    result = PresetResult(id=preset_id, name=command.name)
    return CommandOutcome(result, [Change("preset", preset_id, events, history.revision)])


async def require_recipe(context: CommandContext, preset: str) -> Recipe:
    """The recipe of a built-in or saved preset; Rejected if there is no such preset."""
    if preset in builtin_presets.BY_NAME:
        return builtin_presets.BY_NAME[preset].recipe
    row = await context.read(lambda connection: presets.find(connection, preset))
    if row is None or row.retired:
        raise Rejected(f"there is no preset {preset!r}", reason="unknown-preset")
    return row.recipe
