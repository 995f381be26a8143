"""Which messages of the log a known writer appended, decided once for each message, in the order of the log. Pure.

The signers' keys are in the log itself (`contracts.events.service_keys`), signed by the workshop's root key. A message
is foreign if nobody known signed it, if its signer may not append its events, or if it is not the next commit of the
aggregate on whose subject it is. It keeps its sequence and changes nothing; the aggregate goes on.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import msgspec

from contracts import subjects
from contracts.aggregates import REGISTRY, SignerName
from contracts.commits import (
    Commit,
    ForeignMessage,
    LogEntry,
    RecordedCommit,
    StreamRevision,
    decode_commit,
    written_schema,
)
from contracts.errors import LogDamaged
from contracts.events.base import SCHEMA, Event
from contracts.events.log import LogCreated, LogRestored, LogVoided
from contracts.events.service_keys import ServiceKeyRegistered, ServiceKeyRetired, ServiceKeyRootEstablished
from contracts.log_message import LogMessage
from contracts.signatures import Signature, is_valid, key_id_of, parse_signature, signed_bytes

RESTORED = b'"log.restored"'
ANY_SCHEMA = sys.maxsize
LARGEST_NUMBER = 2**63 - 1
"""What databases store."""
LONG_NUMBER = b"0" * len(str(LARGEST_NUMBER))
DIGITS_TO_ZEROS = bytes(ord("0") if byte in b"0123456789" else ord(" ") for byte in range(256))


@dataclass(frozen=True)
class KnownKey:
    """A public key of 32 bytes, and whose it is. `schema`: the newest one that its commits may have."""

    signer: SignerName
    public_key: bytes
    retired: bool = False
    schema: int = ANY_SCHEMA


@dataclass(frozen=True)
class Trust:
    """What the log has said so far about itself and the keys of its writers.

    `log_id`: the id that signatures name from here on. `root`: the id of the root key. `voided`: the sequence of the
    newest void commit, before which histories may have gaps.
    """

    log_id: str = ""
    root: str = ""
    keys: dict[str, KnownKey] = field(default_factory=dict)
    voided: int = 0

    def keys_of(self, signer: SignerName) -> list[str]:
        """The ids of the keys with which this signer may sign now."""
        return [key_id for key_id, key in self.keys.items() if key.signer == signer and not key.retired]


def evolve(trust: Trust, sequence: int, commit: Commit) -> Trust:
    """After an accepted commit."""
    for event in commit.events:
        match event:
            case LogCreated(log_id=log_id) | LogRestored(log_id=log_id):
                trust = replace(trust, log_id=log_id)
            case LogVoided():
                trust = replace(trust, voided=sequence)
            case ServiceKeyRootEstablished(public_key=public):
                others = {key_id: key for key_id, key in trust.keys.items() if key.signer != "root"}
                keys = {**others, commit.aggregate_id: KnownKey("root", bytes.fromhex(public))}
                trust = replace(trust, root=commit.aggregate_id, keys=keys)
            case ServiceKeyRegistered(service=service, public_key=public, schema=schema):
                key = KnownKey(service, bytes.fromhex(public), schema=schema)
                trust = replace(trust, keys={**trust.keys, commit.aggregate_id: key})
            case ServiceKeyRetired():
                retired = replace(trust.keys[commit.aggregate_id], retired=True)
                trust = replace(trust, keys={**trust.keys, commit.aggregate_id: retired})
            case _:
                pass
    return trust


HeadOf = Callable[[str, str], StreamRevision]
"""Where the history of an aggregate (kind, id) stands, without foreign messages."""
IsSigned = Callable[[Signature, bytes, bytes], bool]
"""Whether a signature over these bytes (last) is of this public key."""


def verify(message: LogMessage, trust: Trust, root: bytes, head_of: HeadOf, is_signed: IsSigned = is_valid) -> LogEntry:
    """The commit in a message, or a foreign message with the reason, as a sentence.

    `root`: the public key of `keys.db`, by which the log's own root key is recognised. LogDamaged: a newer version
    wrote it, and this one cannot read it.
    """
    try:
        commit, signer = _signed_commit(message, trust, root, is_signed)
        _check_place(message, commit, signer, trust, head_of)
    except _Foreign as foreign:
        return ForeignMessage(
            sequence=message.sequence,
            recorded_at=message.recorded_at,
            subject=message.subject,
            body=message.body,
            signature=message.signature,
            reason=str(foreign),
        )
    return RecordedCommit(
        sequence=message.sequence,
        recorded_at=message.recorded_at,
        commit=commit,
        body=message.body,
        signature=message.signature,
    )


class _Foreign(Exception):
    """Why nobody known can have appended it."""


def _signed_commit(message: LogMessage, trust: Trust, root: bytes, is_signed: IsSigned) -> tuple[Commit, SignerName]:
    """The commit, if its signer may append it."""
    if message.sequence == 1:
        return _first_commit(message), "root"
    signature = parse_signature(message.signature)
    if signature is None:
        raise _Foreign("it is not signed" if not message.signature else "its signature is not one")
    key = trust.keys.get(signature.key_id)
    if key is None and signature.key_id == key_id_of(root):
        key = KnownKey("root", root)
    if key is None:
        raise _Foreign(f"it is signed with the key {signature.key_id}, which is not registered")
    if key.retired:
        raise _Foreign(f"it is signed with the key {signature.key_id} of the {key.signer}, which is retired")
    signed = signed_bytes(_log_id_for(message, trust), message.subject, message.body)
    if not is_signed(signature, key.public_key, signed):
        raise _Foreign(f"its signature with the key {signature.key_id} of the {key.signer} is wrong")
    commit = _decode(message, key)
    kind = REGISTRY.by_name[commit.aggregate_kind]
    known = signature.key_id in trust.keys
    for event in commit.events:
        introduces_root = isinstance(event, ServiceKeyRootEstablished)
        if type(event) not in kind.event_types or not kind.may_append(key.signer, type(event)):
            raise _Foreign(f"the {key.signer} may not append {event.type_name} to {commit.aggregate_kind}")
        if not known and not introduces_root and trust.root:
            raise _Foreign("it is signed with a root key that the log does not name yet")
        _check_key_id(commit, event)
    return commit, key.signer


def _first_commit(message: LogMessage) -> Commit:
    """`log.created` alone is not signed: the migrate step appends it before there are keys."""
    commit = _decode(message, KnownKey("root", b""))
    match commit.events:
        case (LogCreated(log_id=log_id),) if commit.aggregate_id == log_id:
            return commit
    raise _Foreign("the first commit is not the creation of the log")


def _log_id_for(message: LogMessage, trust: Trust) -> str:
    """`log.restored` is signed for the new log, whose id is that of its aggregate."""
    prefix = subjects.aggregate("log", "")
    if message.subject.startswith(prefix) and RESTORED in message.body:
        return message.subject.removeprefix(prefix)
    return trust.log_id


def _decode(message: LogMessage, key: KnownKey) -> Commit:
    """What can be read and stored. Only a schema that the key was registered with may be newer than this version's."""
    try:
        commit = decode_commit(message.body)
    except RecursionError as error:
        raise _Foreign("it is nested too deeply") from error
    except msgspec.DecodeError as error:
        written = written_schema(message.body)
        _check_schema(written, key)
        if written > SCHEMA:
            raise LogDamaged(
                f"commit {message.sequence} was written by a newer version of Loratory; upgrade this one"
            ) from error
        raise _Foreign(f"it is no commit: {error}") from error
    _check_schema(commit.schema, key)
    _check_numbers(message.body)
    return commit


def _check_schema(written: int, key: KnownKey) -> None:
    if written > key.schema:
        raise _Foreign(f"it has schema {written}, but the {key.signer} registered its key for schema {key.schema}")


def _check_numbers(body: bytes) -> None:
    """JSON has numbers of any size. Few commits have so many digits in a row that they are looked at one by one."""
    values = [msgspec.json.decode(body)] if LONG_NUMBER in body.translate(DIGITS_TO_ZEROS) else []
    while values:
        match values.pop():
            case dict() as found:
                values += found.values()
            case list() as found:
                values += found
            case int() as found if abs(found) > LARGEST_NUMBER:
                raise _Foreign("it has a number of more than 64 bits")
            case _:
                pass


def _check_key_id(commit: Commit, event: Event) -> None:
    match event:
        case ServiceKeyRootEstablished(public_key=public) | ServiceKeyRegistered(public_key=public):
            try:
                key_id = key_id_of(bytes.fromhex(public))
            except ValueError as error:
                raise _Foreign("its public key is none") from error
            if key_id != commit.aggregate_id:
                raise _Foreign(f"its key has the id {key_id}, not {commit.aggregate_id}")


def _check_place(message: LogMessage, commit: Commit, signer: SignerName, trust: Trust, head_of: HeadOf) -> None:
    """Whether it continues the history of the aggregate on whose subject it is."""
    if message.subject != subjects.aggregate(commit.aggregate_kind, commit.aggregate_id):
        raise _Foreign(
            f"it is about {commit.aggregate_kind} {commit.aggregate_id}, but on the subject {message.subject}"
        )
    if any(isinstance(event, LogRestored) and event.before != trust.log_id for event in commit.events):
        raise _Foreign("it restores another log")
    head = head_of(commit.aggregate_kind, commit.aggregate_id)
    if not head.sequence and signer in REGISTRY.by_name[commit.aggregate_kind].writers:
        raise _Foreign(f"the {signer} may not begin a {commit.aggregate_kind}")
    # A void commit replaces a lost one of an unknown aggregate, so a gap in any history before it is accepted.
    if (why := check_link(commit, head)) and trust.voided <= head.sequence:
        raise _Foreign(why)


def check_link(commit: Commit, previous: StreamRevision) -> str:
    """Empty if this commit continues the history of its aggregate, else the reason why not."""
    if commit.previous_hash != previous.digest:
        return f"it does not follow the last commit of {commit.aggregate_kind} {commit.aggregate_id}"
    if commit.version != previous.version + len(commit.events):
        return f"it skips a version of {commit.aggregate_kind} {commit.aggregate_id}"
    return ""
