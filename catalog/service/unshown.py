"""What commands appended and the read model does not show yet: what later commands must wait for, or build on.

Kept in memory only. A catalog that starts has applied the whole log before it accepts a command.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from contracts.aggregates import AnyCommandResult
from contracts.commands.base import CommandMetadata
from contracts.commits import Aggregate, StreamRevision
from contracts.errors import KeyReused


@dataclass(frozen=True)
class Scope:
    """What a command is decided from: aggregates, or with `part` (an image) only that part of one.

    `locks` are held while it is decided and appended, so that nobody changes what it was decided from.
    """

    locks: tuple[str, ...]
    part: str = ""

    def overlaps(self, other: "Scope") -> bool:
        """Whether a command of one is decided from what a command of the other changes."""
        return self.shares_lock(other) and (not self.part or not other.part or self.part == other.part)

    def shares_lock(self, other: "Scope") -> bool:
        return not set(self.locks).isdisjoint(other.locks)


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


def revision_after(written: Iterable[Written], aggregate: Aggregate) -> StreamRevision:
    """Where these left an aggregate; the initial revision if none appended to it."""
    revisions = (one.revisions[aggregate] for one in written if aggregate in one.revisions)
    return max(revisions, default=StreamRevision())
