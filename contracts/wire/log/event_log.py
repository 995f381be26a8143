"""The event log on JetStream: append with optimistic concurrency, load one aggregate. The only writer of `EVT`.

The append loop follows from how the server behaves (nats-server 2.15): repeating an append that was stored answers
10071 or 10164, and a publish that timed out may be stored, now or later. So an unclear outcome is retried with the same
expected sequence, and on a conflict the stored message is read back: it is ours if it has our id and our signature.

That the server stored a commit does not mean that it was accepted: the catalog verifies each one (`Verdicts`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Protocol

import msgspec
from nats.js.api import RawStreamMsg

from contracts import subjects
from contracts.commits import (
    AggregateHistory,
    Commit,
    CommitLog,
    RecordedCommit,
    StreamRevision,
    check_atomic,
    decode_message,
    encode_commit,
)
from contracts.errors import Fenced, KeyReused, LogDamaged, Unavailable
from contracts.log_message import LogMessage
from contracts.retry import Outage, RetryPolicy
from contracts.signatures import HEADER as SIGNATURE
from contracts.signatures import Signer
from contracts.wire.log.publishing import UNCLEAR, Ack, Draft, publish
from contracts.wire.service import tracing
from contracts.wire.service.bus import Bus
from contracts.wire.service.jetstream import find_message, find_stream
from contracts.wire.service.telemetry import announce_append


class LogTimings(msgspec.Struct, frozen=True, kw_only=True):
    """`publish`: seconds until a publish without acknowledgement, or a read, fails. `retries` of unclear publishes."""

    publish: float = 2.0
    retries: RetryPolicy = RetryPolicy(first_delay=0.05, jitter=0.2, time_limit=20.0)


DEFAULT_TIMINGS = LogTimings()


@dataclass(frozen=True, kw_only=True)
class _CommitDraft(Draft):
    commit: Commit


class Verdicts(Protocol):
    """What the catalog found when it verified the log."""

    async def foreign(self, aggregate_kind: str, aggregate_id: str, after: int, to: int) -> frozenset[int]:
        """The sequences of foreign messages on this aggregate's subject, after one sequence and up to another.

        Returns once the log is verified up to there. Unavailable: not in time.
        """
        ...


class NotAccepted(Fenced):
    """What this process appended is not signed by a known writer."""


class _NotVerified:
    """For those who only read ends and single messages, or write where nobody else can."""

    async def foreign(self, *_: object) -> frozenset[int]:
        return frozenset()


NOT_VERIFIED = _NotVerified()


class EventLog(CommitLog):
    """One service's access to the log."""

    def __init__(
        self,
        bus: Bus,
        fence: Callable[[], None] = lambda: None,
        *,
        verdicts: Verdicts = NOT_VERIFIED,
        timings: LogTimings = DEFAULT_TIMINGS,
    ) -> None:
        """`fence` is called before each append and raises when this process may no longer write."""
        self.bus = bus
        self.fence = fence
        self.verdicts = verdicts
        self.signer: Signer | None = None
        """Signs what is appended. Without one it is foreign to all readers."""
        self._timings = timings
        self._js = bus.jetstream(timeout=timings.publish)
        self._message = partial(find_message, self._js, subjects.EVENTS)

    async def append_atomically(self, commits: Sequence[tuple[Commit, StreamRevision]]) -> list[RecordedCommit]:
        check_atomic([commit for commit, _ in commits])
        drafts = [self._draft(commit, expected_revision) for commit, expected_revision in commits]
        with tracing.span("append", "producer", attributes={"loratory.commits": len(drafts)}):
            return await self._append(drafts)

    async def _append(self, drafts: Sequence[_CommitDraft]) -> list[RecordedCommit]:
        outage, unclear = Outage(None, self._timings.retries), False
        while True:
            self.fence()
            ack = await publish(self.bus, drafts, self._timings.publish)
            if ack.verdict == "stored":
                await announce_append(self.bus, ack.seq)
                return _recorded_commits(drafts, ack)
            if ack.verdict != "unclear":
                recorded = await self._resolve(drafts, ack, unclear=unclear)
                if recorded is not None:
                    await announce_append(self.bus, recorded[-1].sequence)
                    return recorded
            unclear = True
            await outage.wait(UNCLEAR.to_error())

    async def _resolve(self, drafts: Sequence[_CommitDraft], ack: Ack, *, unclear: bool) -> list[RecordedCommit] | None:
        """Whether an earlier try stored the commits although this one did not. None: the log does not answer.

        A refusal is final only if no earlier try had an unclear outcome: if that one was stored it counts, whatever the
        server answers to the repetition.
        """
        if ack.verdict == "conflict" or unclear:
            try:
                found = [await self._find_stored(draft) for draft in drafts]
            except Unavailable:
                return None
            if None not in found:
                return [recorded for recorded in found if recorded is not None]
        raise ack.to_error()

    async def _find_stored(self, draft: _CommitDraft) -> RecordedCommit | None:
        """This very commit, if the log has it: then it directly follows its expected revision."""
        found = await self._message(seq=draft.expected_sequence + 1, subject=draft.subject, next=True)
        if found is None:
            return None
        message = _log_message(found)
        if self.signer is not None and not self.signer.has_signed(message.signature, message.subject, message.body):
            return None
        try:
            recorded = decode_message(message)
        except LogDamaged:  # whatever it is, it is not ours
            return None
        if recorded.commit.id != draft.commit.id:
            return None
        if recorded.commit.fingerprint != draft.commit.fingerprint:
            raise KeyReused
        return recorded

    async def load(
        self, aggregate_kind: str, aggregate_id: str, since: AggregateHistory | None = None
    ) -> AggregateHistory:
        known = since or AggregateHistory()
        sequence = after = known.revision.sequence
        subject = subjects.aggregate(aggregate_kind, aggregate_id)
        messages: list[LogMessage] = []
        while message := await self._message(seq=sequence + 1, subject=subject, next=True):
            messages.append(_log_message(message))
            sequence = messages[-1].sequence
        if not messages:
            return known
        foreign = await self.verdicts.foreign(aggregate_kind, aggregate_id, after, sequence)
        newer = [decode_message(message) for message in messages if message.sequence not in foreign]
        return AggregateHistory([*known.commits, *newer], max(known.last_foreign, *foreign, 0))

    async def authorize(self) -> None:
        """Before work begins: what is appended from here on will be accepted. For unsigned logs: nothing."""

    async def confirm(self, recorded: RecordedCommit) -> None:
        """Returns once the catalog has accepted a commit. NotAccepted: it is foreign. Unavailable: not in time."""
        commit, sequence = recorded.commit, recorded.sequence
        if await self.verdicts.foreign(commit.aggregate_kind, commit.aggregate_id, sequence - 1, sequence):
            raise NotAccepted(f"the catalog did not accept commit {sequence} of this process")

    async def commit_at(self, sequence: int) -> RecordedCommit | None:
        message = await self.message_at(sequence)
        return None if message is None else decode_message(message)

    async def message_at(self, sequence: int) -> LogMessage | None:
        """The message at a sequence, whoever appended it; None where the log has none."""
        message = await self._message(seq=sequence)
        return None if message is None else _log_message(message)

    async def end(self) -> tuple[str, int]:
        # The id is in the stream's metadata, created once.
        info = await find_stream(self._js, subjects.EVENTS)
        if info is None:
            raise LogDamaged("there is no event log on this server; run the migrate step")
        return (info.config.metadata or {}).get("log_id", ""), info.state.last_seq

    def _draft(self, commit: Commit, expected_revision: StreamRevision) -> _CommitDraft:
        subject, body = subjects.aggregate(commit.aggregate_kind, commit.aggregate_id), encode_commit(commit)
        signature = "" if self.signer is None else self.signer.sign(subject, body)
        return _CommitDraft(subject, body, expected_revision.sequence, signature, commit=commit)


def _log_message(message: RawStreamMsg) -> LogMessage:
    recorded_us = round((message.time or datetime.now(UTC)).timestamp() * 1e6)
    signature = (message.headers or {}).get(SIGNATURE, "")
    return LogMessage(message.seq or 0, recorded_us, message.subject or "", message.data or b"", signature)


def _recorded_commits(drafts: Sequence[_CommitDraft], ack: Ack) -> list[RecordedCommit]:
    """A batch gets consecutive sequences, in its order."""
    now, first = datetime.now(UTC), ack.seq - len(drafts) + 1
    return [
        RecordedCommit(
            sequence=sequence, recorded_at=now, commit=draft.commit, body=draft.body, signature=draft.signature
        )
        for sequence, draft in enumerate(drafts, start=first)
    ]
