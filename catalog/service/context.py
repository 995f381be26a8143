"""What the handlers of commands work with, and how they run under an aggregate lock."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any, TypeVar

from catalog.database import Connection
from catalog.keys import Keys
from catalog.service.execution import CommandExecutor
from catalog.watch.losses import Losses
from contracts.commands.base import Command, CommandMetadata, CommandResult
from contracts.wire.blobs.store import Blobs

T = TypeVar("T")
C = TypeVar("C", bound=Command[Any])


@dataclass(frozen=True)
class CommandContext:
    """`purge_now` waits a while for the destruction of what was erased, which goes on either way.

    `losses`: the blobs and keys that are missing now.
    """

    executor: CommandExecutor
    keys: Keys
    blobs: Blobs
    purge_now: Callable[[], Awaitable[None]]
    losses: Callable[[], Losses]

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Run `work` on one snapshot of the read model."""
        return await self.executor.store.read(work)


Handler = Callable[[CommandContext, CommandMetadata, C], Awaitable[CommandResult]]


def locked(lock: Callable[[Connection, Any], str]) -> Callable[[Handler[C]], Handler[C]]:
    """Runs a handler under the aggregate lock of this name; after a conflict again, on the rows as they are then."""

    def decorate(handler: Handler[C]) -> Handler[C]:
        @wraps(handler)
        async def run(context: CommandContext, metadata: CommandMetadata, command: C) -> CommandResult:
            name = await context.read(lambda connection: lock(connection, command))
            return await context.executor.execute_once(metadata, name, lambda: handler(context, metadata, command))

        return run

    return decorate
