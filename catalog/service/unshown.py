"""What commands appended and the read model does not show yet: what later commands must wait for, or build on.

Kept in memory only. A catalog that starts has applied the whole log before it accepts a command.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from catalog.service.locks import Scope
from contracts.aggregates import AnyCommandResult
from contracts.commands.base import CommandMetadata
from contracts.commits import Aggregate, StreamRevision
from contracts.errors import KeyReused


@dataclass(frozen=True)
class Written:
    """What one command appended: the revision of each aggregate afterwards, and its result."""

    metadata: CommandMetadata
    scope: Scope
    revisions: Mapping[Aggregate, StreamRevision]
    result: AnyCommandResult


class UnshownCommits:
    """Bounded by its user, who asks for `len` before more is appended."""

    def __init__(self, is_shown: Callable[[Aggregate, int], bool]) -> None:
        """`is_shown`: whether the read model shows the commit of an aggregate at a sequence."""
        self._is_commit_shown = is_shown
        self._written: list[Written] = []

    def __len__(self) -> int:
        """With those that were shown since `under` was called last."""
        return len(self._written)

    def add(self, written: Written) -> None:
        self._written.append(written)

    def under(self, scope: Scope) -> list[Written]:
        """What was appended under the locks of this scope, oldest first."""
        self._forget_shown()
        return [written for written in self._written if written.scope.shares_lock(scope)]

    def of_command(self, metadata: CommandMetadata) -> Written | None:
        """What this command appended before. KeyReused: its command id belongs to another request."""
        same = (written for written in self._written if written.metadata.command_id == metadata.command_id)
        written = next(same, None)
        if written is not None and written.metadata.fingerprint != metadata.fingerprint:
            raise KeyReused
        return written

    def _forget_shown(self) -> None:
        self._written = [written for written in self._written if not self._is_shown(written)]

    def _is_shown(self, written: Written) -> bool:
        return all(self._is_commit_shown(aggregate, at.sequence) for aggregate, at in written.revisions.items())
