"""The table of all commands of the catalog and the functions that handle them."""

from functools import partial
from typing import Any

from catalog.service import datasets, images, jobs, presets, tagging
from catalog.service.context import CommandContext, Handler
from catalog.service.freezing import Freezer
from catalog.service.imports import ImageImporter
from contracts.commands.base import Command, CommandMetadata, CommandResult
from contracts.commands.datasets import FreezeVersion, ImportImages
from contracts.wire.service.handlers import handlers_in
from contracts.wire.service.requests import CommandHandlers

HANDLERS = handlers_in(datasets, images, jobs, presets, tagging, parameter="command")


def command_handlers(context: CommandContext, importer: ImageImporter, freezer: Freezer) -> CommandHandlers:
    """The argument `commands` of `contracts.wire.service.requests.Service.start`."""
    handlers = HANDLERS | {FreezeVersion: freezer.freeze_version}
    return {command: partial(_handle, context, handler) for command, handler in handlers.items()} | {
        ImportImages: partial(importer.import_images, context)
    }


async def _handle(
    context: CommandContext, handler: Handler[Any], metadata: CommandMetadata, command: Command[Any]
) -> CommandResult:
    """A repeated command has the result it had before; checked first, because what it names may be gone by now."""
    previous = await context.executor.previous_result(metadata)
    return await handler(context, metadata, command) if previous is None else previous
