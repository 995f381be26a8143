"""Freezing a version: every image with its caption and tags as they are now, in immutable manifest blobs."""

from catalog.lookup import require_dataset
from catalog.service.context import CommandContext
from catalog.service.freezing import VersionDraft
from contracts.commands.base import CommandMetadata, CommandResult
from contracts.commands.datasets import FreezeVersion, VersionResult
from contracts.ids import VersionId, derived


async def freeze_version(context: CommandContext, metadata: CommandMetadata, command: FreezeVersion) -> CommandResult:
    """A new version, or the latest one where nothing has changed since. Only its append holds the aggregate lock."""
    await context.executor.wait_until_applied()
    row = await context.read(lambda connection: require_dataset(connection, command.dataset))
    async with context.freezer.draft(row.id, command.trigger) as draft:
        return await context.executor.execute_once(metadata, row.id, lambda: _append(context, metadata, draft))


async def _append(context: CommandContext, metadata: CommandMetadata, draft: VersionDraft) -> CommandResult:
    frozen = await context.freezer.finish(draft, version_id_for(metadata))
    result = VersionResult(id=frozen.version.version_id, name=frozen.dataset.name, version=frozen.version.version)
    return await context.executor.append(metadata, result, frozen.change)


def version_id_for(metadata: CommandMetadata) -> VersionId:
    """The id of the version that a command freezes."""
    return VersionId(derived("ver", metadata.command_id))
