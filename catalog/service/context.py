"""What the handlers of commands work with, and how they run under an aggregate lock."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Any, TypeVar

from catalog.database import Connection
from catalog.keys import Keys
from catalog.prediction_index import PredictionIndex
from catalog.service.execution import CommandExecutor, CommandOutcome
from catalog.service.locks import Scope
from catalog.text_index import TextIndexes
from catalog.watch.losses import Losses
from contracts.commands.base import Command, CommandMetadata, CommandResult
from contracts.commits import RecordedCommit
from contracts.errors import Behind
from contracts.wire.blobs.store import Blobs

T = TypeVar("T")
C = TypeVar("C", bound=Command[Any])


@dataclass(frozen=True)
class CommandContext:
    """`commits`: those at these sequences of the log.

    `purge_now` waits a while for the destruction of what was erased, which goes on either way.

    `losses`: the blobs and keys that are missing now. `texts` and `predictions`: for selections.
    """

    executor: CommandExecutor
    commits: Callable[[Sequence[int]], Awaitable[list[RecordedCommit]]]
    keys: Keys
    blobs: Blobs
    purge_now: Callable[[], Awaitable[None]]
    losses: Callable[[], Losses]
    texts: TextIndexes
    predictions: PredictionIndex

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Run `work` on one snapshot of the read model."""
        return await self.executor.store.read(work)

    async def read_shared(self, work: Callable[[Connection], T]) -> T:
        """The same for short work, on a snapshot that other commands share."""
        return await self.executor.reads.read(work)


Handler = Callable[[CommandContext, CommandMetadata, C], Awaitable[CommandResult]]
Decider = Callable[[CommandContext, CommandMetadata, C], Awaitable[CommandOutcome]]


def locked(scope_of: Callable[[Connection, Any], Scope]) -> Callable[[Decider[C]], Handler[C]]:
    """A handler that decides under the locks of a scope and appends the outcome; after a conflict it decides again."""

    def decorate(decider: Decider[C]) -> Handler[C]:
        @wraps(decider)
        async def run(context: CommandContext, metadata: CommandMetadata, command: C) -> CommandResult:
            def find(connection: Connection) -> Scope:
                return scope_of(connection, command)

            async def execute(scope: Scope) -> CommandResult:
                async def decide() -> CommandOutcome:
                    if not scope.part and await context.read(find) != scope:  # an image never moves
                        raise Behind("its name was given to another data set meanwhile; nothing was changed, try again")
                    return await decider(context, metadata, command)

                return await context.executor.execute(metadata, scope, decide)

            return await context.executor.execute_once(metadata, find, execute)

        return run

    return decorate
