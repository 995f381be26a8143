"""The table of all commands of the catalog and the functions that handle them."""

from functools import partial

from catalog.service import (
    bulk_edits,
    datasets,
    images,
    imports,
    jobs,
    presets,
    repeats,
    reviews,
    tagging,
    text_readings,
    undos,
)
from catalog.service.context import CommandContext
from catalog.service.freezing import Freezer
from catalog.service.imports import ImageImporter
from contracts.commands.datasets import FreezeVersion, ImportImages
from contracts.wire.service.handlers import handlers_in
from contracts.wire.service.requests import CommandHandlers

HANDLERS = handlers_in(
    *(bulk_edits, datasets, images, imports, jobs, presets, repeats, reviews, tagging, text_readings, undos),
    parameter="command",
)


def command_handlers(context: CommandContext, importer: ImageImporter, freezer: Freezer) -> CommandHandlers:
    """The argument `commands` of `contracts.wire.service.requests.Service.start`."""
    handlers = HANDLERS | {FreezeVersion: freezer.freeze_version}
    return {command: partial(handler, context) for command, handler in handlers.items()} | {
        ImportImages: partial(importer.import_images, context)
    }
