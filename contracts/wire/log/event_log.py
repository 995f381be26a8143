"""The event log on JetStream: append with optimistic concurrency, load one aggregate. The only writer of `EVT`.

The append loop follows from how the server behaves (nats-server 2.15): repeating an append that was stored answers
10071 on one replica and `duplicate` on three; a publish that timed out may be stored, now or later. So an unclear
outcome is retried with the same id and the same expected sequence, and on a conflict the stored message is read back
and compared with ours.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

import msgspec
from nats.aio.client import Client
from nats.js.api import Header, RawStreamMsg

from contracts import subjects
from contracts.commits import (
    AggregateHistory,
    Commit,
    CommitLog,
    RecordedCommit,
    StreamRevision,
    check_atomic,
    decode,
    encode_commit,
)
from contracts.errors import KeyReused, LogDamaged, Unavailable
from contracts.retry import Outage, RetryPolicy
from contracts.wire.log.publishing import UNCLEAR, Ack, Draft, publish
from contracts.wire.service import tracing
from contracts.wire.service.jetstream import find_message, find_stream


class LogTimings(msgspec.Struct, frozen=True, kw_only=True):
    """`publish`: seconds until a publish without acknowledgement, or a read, fails. `retries` of unclear publishes."""

    publish: float = 2.0
    retries: RetryPolicy = RetryPolicy(first_delay=0.05, jitter=0.2, time_limit=20.0)


DEFAULT_TIMINGS = LogTimings()


@dataclass(frozen=True)
class _CommitDraft(Draft):
    commit: Commit


class EventLog(CommitLog):
    """One service's access to the log."""

    def __init__(
        self, bus: Client, fence: Callable[[], None] = lambda: None, *, timings: LogTimings = DEFAULT_TIMINGS
    ) -> None:
        """`fence` is called before each append and raises when this process may no longer write."""
        self.bus = bus
        self.fence = fence
        self._timings = timings
        self._js = bus.jetstream(timeout=timings.publish)
        self._message = partial(find_message, self._js, subjects.EVENTS)

    async def append_atomically(self, commits: Sequence[tuple[Commit, StreamRevision]]) -> list[RecordedCommit]:
        check_atomic([commit for commit, _ in commits])
        drafts = [_draft(commit, expected_revision) for commit, expected_revision in commits]
        with tracing.span("append", "producer", attributes={"loratory.commits": len(drafts)}):
            return await self._append(drafts)

    async def _append(self, drafts: Sequence[_CommitDraft]) -> list[RecordedCommit]:
        outage, unclear = Outage(None, self._timings.retries), False
        while True:
            self.fence()
            ack = await publish(self.bus, drafts, self._timings.publish)
            if ack.verdict == "stored" and not ack.duplicate:
                return _recorded_commits(drafts, ack)
            if ack.verdict != "unclear":
                recorded = await self._resolve(drafts, ack, unclear=unclear)
                if recorded is not None:
                    return recorded
            unclear = True
            await outage.wait(UNCLEAR.to_error())

    async def _resolve(self, drafts: Sequence[_CommitDraft], ack: Ack, *, unclear: bool) -> list[RecordedCommit] | None:
        """Whether an earlier try stored the commits although this one did not. None: the log does not answer.

        A refusal is final only if no earlier try had an unclear outcome: if that one was stored it counts, whatever the
        server answers to the repetition.
        """
        if ack.verdict in ("stored", "conflict") or unclear:
            try:
                found = [await self._find_stored(draft, ack) for draft in drafts]
            except Unavailable:
                return None
            if None not in found:
                return [recorded for recorded in found if recorded is not None]
        raise ack.to_error()

    async def _find_stored(self, draft: _CommitDraft, ack: Ack) -> RecordedCommit | None:
        """This very commit, if the log has it: then it directly follows its expected revision.

        `duplicate` says only that the stream has seen the id, and at which sequence: possibly at an older revision, by
        an earlier process.
        """
        if ack.duplicate:
            message = await self._message(seq=ack.seq)
            if message is None:
                raise LogDamaged(f"the log calls {draft.id} a duplicate of {ack.seq}, but has no message there")
        else:
            message = await self._message(seq=draft.expected_sequence + 1, subject=draft.subject, next=True)
        if message is None or message.subject != draft.subject:
            return None
        if (message.headers or {}).get(Header.MSG_ID) != draft.id:
            return None
        recorded = _decode_message(message)
        if recorded.commit.fingerprint != draft.commit.fingerprint:
            raise KeyReused
        return recorded

    async def load(
        self, aggregate_kind: str, aggregate_id: str, since: AggregateHistory | None = None
    ) -> AggregateHistory:
        commits = list(since.commits) if since else []
        sequence = commits[-1].sequence if commits else 0
        subject = subjects.aggregate(aggregate_kind, aggregate_id)
        while message := await self._message(seq=sequence + 1, subject=subject, next=True):
            commits.append(_decode_message(message))
            sequence = commits[-1].sequence
        return AggregateHistory(commits)

    async def commit_at(self, sequence: int) -> RecordedCommit | None:
        message = await self._message(seq=sequence)
        return None if message is None else _decode_message(message)

    async def end(self) -> tuple[str, int]:
        # The id is in the stream's metadata, created once.
        info = await find_stream(self._js, subjects.EVENTS)
        if info is None:
            raise LogDamaged("there is no event log on this server; run the migrate step")
        return (info.config.metadata or {}).get("log_id", ""), info.state.last_seq


def _decode_message(message: RawStreamMsg) -> RecordedCommit:
    return decode(message.seq or 0, message.time or datetime.now(UTC), message.data or b"")


def _draft(commit: Commit, expected_revision: StreamRevision) -> _CommitDraft:
    subject = subjects.aggregate(commit.aggregate_kind, commit.aggregate_id)
    return _CommitDraft(commit.id, subject, encode_commit(commit), expected_revision.sequence, commit)


def _recorded_commits(drafts: Sequence[_CommitDraft], ack: Ack) -> list[RecordedCommit]:
    """A batch gets consecutive sequences, in its order."""
    now, first = datetime.now(UTC), ack.seq - len(drafts) + 1
    return [
        RecordedCommit(sequence=sequence, recorded_at=now, commit=draft.commit, body=draft.body)
        for sequence, draft in enumerate(drafts, start=first)
    ]
