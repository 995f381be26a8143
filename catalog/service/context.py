"""What the handlers of commands work with, and how they run under an aggregate lock."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any, TypeVar

from catalog.database import Connection
from catalog.keys import Keys
from catalog.service.execution import CommandExecutor, CommandOutcome
from catalog.service.unshown import Scope
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
Decider = Callable[[CommandContext, CommandMetadata, C], Awaitable[CommandOutcome]]


def locked(scope: Callable[[Connection, Any], Scope]) -> Callable[[Decider[C]], Handler[C]]:
    """Runs a decider under the locks of this scope and appends its outcome; after a conflict it decides again."""

    def decorate(decider: Decider[C]) -> Handler[C]:
        @wraps(decider)
        async def run(context: CommandContext, metadata: CommandMetadata, command: C) -> CommandResult:
            found = await context.read(lambda connection: scope(connection, command))
            return await context.executor.execute(metadata, found, lambda: decider(context, metadata, command))

        return run

    return decorate
