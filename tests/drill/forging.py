"""Forged messages: published straight into the log's subjects, with the credentials of a service or of the admin."""

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import msgspec
import nats.errors

from catalog.domain.image_sets import image_set
from contracts import subjects
from contracts.commands.base import CommandMetadata
from contracts.commits import RecordedCommit, build_commit, encode_commit, revision_of
from contracts.errors import LoratoryError
from contracts.events.datasets import TagsEdited
from contracts.ids import new_command_id, ulid
from contracts.wire.server.accounts import ROLES, Role
from contracts.wire.service.bus import Bus, connect
from loratory.stack import Stack

REPLY_TIMEOUT_SECONDS = 2.0
FORGED_TAG = "forged"
"""Forged edits assert tags with this prefix; none may ever be shown."""
MAX_PER_FAULT = 4
RECENT_COMMITS = 50
"""Forged messages are made from so recent commits that their aggregates are in use."""


class PublishReply(msgspec.Struct):
    """What JetStream answers: the sequence at which it stored the message, or why it did not."""

    seq: int = 0
    error: Mapping[str, object] | None = None


@dataclass
class ForgedMessages:
    """What became of them. `sequences`: of those that are in the log; they must change nothing."""

    outcomes: Counter[str] = field(default_factory=Counter)
    sequences: set[int] = field(default_factory=set)


async def forge(stack: Stack, commits: Sequence[RecordedCommit], forged: ForgedMessages, variant: float) -> bool:
    """Publish a few forged messages as a random role; False if there is no connection, or nothing to forge yet."""
    rng = random.Random(variant)
    role = rng.choice(ROLES)
    recent = [one for one in commits if one.commit.aggregate_kind in {"dataset", "job"}][-RECENT_COMMITS:]
    if not recent:
        return False
    try:
        bus = await connect_as(stack, role)
    except LoratoryError:
        return False
    async with bus:
        for _ in range(rng.randint(1, MAX_PER_FAULT)):
            subject, body = _forged_message(rng.choice(recent), recent, rng)
            forged.outcomes[await _publish(bus, subject, body, forged)] += 1
    return True


async def connect_as(stack: Stack, role: Role) -> Bus:
    """With whatever credentials the data folder holds for this role."""
    return await connect(stack.nats.url, *stack.nats.credentials(role), f"forger as {role}", timeout=5)


def _forged_message(base: RecordedCommit, recent: Sequence[RecordedCommit], rng: random.Random) -> tuple[str, bytes]:
    """A subject and a body: an edit that continues its history, an old body, one of another kind, and no commit."""
    commit = base.commit
    own = subjects.aggregate(commit.aggregate_kind, commit.aggregate_id)
    datasets = [one for one in recent if one.commit.aggregate_kind == "dataset"] or [base]
    match rng.randrange(4):
        case 0:
            return _forged_edit(datasets[-1])
        case 1:
            return own, base.body
        case 2:
            return subjects.aggregate("job", rng.choice(recent).commit.aggregate_id), datasets[0].body
        case _:
            return own, rng.randbytes(rng.randint(0, 200))


def _forged_edit(last: RecordedCommit) -> tuple[str, bytes]:
    """A well-formed commit on top of the last one that was seen."""
    at = datetime.now(UTC)
    metadata = CommandMetadata(command_id=new_command_id(), actor="user:local", at=at)
    event = TagsEdited(images=image_set(range(5)), asserted=(f"{FORGED_TAG}-{ulid().lower()}",))
    kind, aggregate_id = last.commit.aggregate_kind, last.commit.aggregate_id
    commit = build_commit(kind, aggregate_id, [event], expected_revision=revision_of(last), metadata=metadata)
    return subjects.aggregate(kind, aggregate_id), encode_commit(commit)


async def _publish(bus: Bus, subject: str, body: bytes, forged: ForgedMessages) -> str:
    try:
        reply = await bus.request(subject, body, REPLY_TIMEOUT_SECONDS, headers={"Nats-Msg-Id": ulid()})
    except nats.errors.Error:  # not permitted, or disturbed by another fault: nothing says which
        return "refused"
    answer = msgspec.json.decode(reply.data, type=PublishReply)
    if not answer.seq:
        return "refused"
    forged.sequences.add(answer.seq)
    return "stored"
