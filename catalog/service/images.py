"""Commands on single images: load, decide, append."""

from dataclasses import replace

from catalog.database import Connection
from catalog.domain import images as rules
from catalog.lookup import erased, known_dataset, known_image, require_image_and_dataset
from catalog.service.context import CommandContext, locked
from catalog.service.execution import Change, CommandOutcome
from catalog.service.locks import Scope
from catalog.views import decisions, erasures, images, presence, texts
from catalog.views.datasets import DatasetRow
from catalog.watch.absent_keys import keys_of
from contracts.commands.base import CommandMetadata, CommandResult
from contracts.commands.datasets import (
    EditTags,
    EraseImage,
    ImageResult,
    OrderTags,
    RemoveImage,
    ReplaceTags,
    SetCaption,
)
from contracts.ids import ImageId

Loaded = tuple[DatasetRow, rules.ImageState]
"""The data set of an image, and what commands on the image are decided from."""


def scope_of_image(connection: Connection, command: rules.ImageChange) -> Scope:
    """Only the image: other images may change meanwhile, and the data set only together with all of them."""
    dataset_id = images.dataset_of(connection, command.image) or known_image(connection, command.image).dataset_id
    return Scope((dataset_id,), part=command.image)


@locked(scope_of_image)
async def remove_image(context: CommandContext, _: CommandMetadata, command: RemoveImage) -> CommandOutcome:
    return _outcome(command, await context.read_shared(lambda now: _load(now, command.image)))


@locked(scope_of_image)
async def set_caption(context: CommandContext, _: CommandMetadata, command: SetCaption) -> CommandOutcome:
    """KeyMissing, Lost: the key that would seal the caption is gone, although the image was not erased."""
    row, image = await context.read_shared(lambda now: _load(now, command.image))
    keys, absent = await keys_of(context.executor.store, context.keys, [command.image])
    if absent.erased:
        raise erased(command.image)
    absent.require()
    return _outcome(command, (row, replace(image, key=keys[command.image])))


@locked(scope_of_image)
async def change_tags(context: CommandContext, _: CommandMetadata, command: ReplaceTags | EditTags) -> CommandOutcome:
    def read(connection: Connection) -> Loaded:
        row, image = _load(connection, command.image)
        state = decisions.state_of(connection, row.id, image.ordinal)
        seen = command.seen if isinstance(command, ReplaceTags) else None
        return row, replace(
            image,
            base=state.effective if seen is None else decisions.tag_names(connection, row.id, image.ordinal, seen),
            asserted=state.asserted,
            rejected=state.rejected,
            predicted=state.predicted,
        )

    return _outcome(command, await context.read_shared(read))


@locked(scope_of_image)
async def order_tags(context: CommandContext, _: CommandMetadata, command: OrderTags) -> CommandOutcome:
    def read(connection: Connection) -> Loaded:
        row, image = _load(connection, command.image)
        return row, replace(image, order=texts.orders(connection, row.id, [image.ordinal]).get(image.ordinal, ()))

    return _outcome(command, await context.read_shared(read))


async def erase_image(context: CommandContext, metadata: CommandMetadata, command: EraseImage) -> CommandResult:
    """Erase an image, even one already removed from its data set. InUse: an unfinished job needs it."""
    result = await _erase_image(context, metadata, command)
    await context.purge_now()
    return result


@locked(lambda connection, command: Scope((known_image(connection, command.image).dataset_id,)))
async def _erase_image(context: CommandContext, _: CommandMetadata, command: EraseImage) -> CommandOutcome:
    def read(connection: Connection) -> Loaded:
        image = known_image(connection, command.image)
        row = known_dataset(connection, image.dataset_id)
        if isinstance(image, erasures.ErasedRow):
            return row, rules.ImageState(erased=True)
        return row, rules.ImageState(
            ordinal=image.ordinal,
            active_jobs=erasures.active_jobs(
                connection, row.id, presence.spans(connection, row.id, image.ordinal, image.added_sequence)
            ),
        )

    return _outcome(command, await context.read(read))


def _load(connection: Connection, image_id: ImageId) -> Loaded:
    image, dataset = require_image_and_dataset(connection, image_id)
    return dataset, rules.ImageState(
        ordinal=image.ordinal,
        added=image.added_sequence,
        etag=image.etag,
        caption=image.caption,
        caption_changed=image.caption_sequence,
    )


def _outcome(command: rules.ImageChange, loaded: Loaded) -> CommandOutcome:
    row, image = loaded
    change = Change("dataset", row.id, rules.decide(image, command), row.revision)
    return CommandOutcome(ImageResult(id=command.image), [change])
