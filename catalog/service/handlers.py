"""The table of all commands of the catalog and the functions that handle them."""

from functools import partial
from typing import Any

from catalog.service import datasets, images, jobs, presets, tagging, versions
from catalog.service.context import CommandContext, Handler
from catalog.service.imports import ImageImporter
from contracts.commands.base import Command, CommandMetadata, CommandResult
from contracts.commands.datasets import ImportImages
from contracts.wire.service.handlers import handlers_in
from contracts.wire.service.requests import CommandHandlers

HANDLERS = handlers_in(datasets, images, jobs, presets, tagging, versions, parameter="command")


def command_handlers(context: CommandContext, importer: ImageImporter) -> CommandHandlers:
    """The argument `commands` of `contracts.wire.service.requests.Service.start`."""
    return {command: partial(_handle, context, handler) for command, handler in HANDLERS.items()} | {
        ImportImages: partial(importer.import_images, context)
    }


async def _handle(
    context: CommandContext, handler: Handler[Any], metadata: CommandMetadata, command: Command[Any]
) -> CommandResult:
    return await context.executor.execute_once(metadata, lambda: handler(context, metadata, command))
