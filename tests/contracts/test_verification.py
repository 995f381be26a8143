"""Signatures of commits, and which messages of a log are foreign. Every road by which a forged commit may come."""

import re
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts import signatures
from contracts.commits import ForeignMessage, LogEntry, RecordedCommit, StreamRevision, revision_of
from contracts.errors import LogDamaged
from contracts.events.base import SCHEMA, Event
from contracts.events.datasets import DatasetRenamed
from contracts.events.jobs import JobAttemptFailed, JobEdited, JobSucceeded
from contracts.events.log import LogRestored, LogVoided
from contracts.events.service_keys import ServiceKeyRegistered, ServiceKeyRetired, ServiceKeyRootEstablished
from contracts.events.tagging import TaggingPredicted
from contracts.log_message import LogMessage
from contracts.signatures import OwnSignatures, Signature, Signer, SigningKey, is_valid, parse_signature, signed_bytes
from contracts.verification import LARGEST_NUMBER, Trust, evolve, verify
from tests.catalog.log_builder import LOG_ID, LogBuilder, add_keys, full_history
from tests.signing import key_named

ROOT = key_named("root")
Change = Callable[[LogMessage], LogMessage]


class Reader:
    """Verifies messages one after the other, as the catalog does."""

    def __init__(self, root: SigningKey = ROOT) -> None:
        self.trust, self.root = Trust(), root.public
        self.heads: dict[tuple[str, str], StreamRevision] = {}

    def read(self, message: LogMessage) -> LogEntry:
        entry = verify(message, self.trust, self.root, lambda *name: self.heads.get(name, StreamRevision()))
        if isinstance(entry, RecordedCommit):
            self.trust = evolve(self.trust, entry.sequence, entry.commit)
            self.heads[entry.commit.aggregate_kind, entry.commit.aggregate_id] = revision_of(entry)
        return entry

    def reason(self, message: LogMessage) -> str:
        """Why a message is foreign."""
        entry = self.read(message)
        assert isinstance(entry, ForeignMessage), entry
        return entry.reason


def message_of(recorded: RecordedCommit) -> LogMessage:
    microseconds = round(recorded.recorded_at.timestamp() * 1e6)
    return LogMessage(recorded.sequence, microseconds, recorded.subject, recorded.body, recorded.signature)


def log_with_job() -> tuple[LogBuilder, Reader]:
    """A log with keys, a data set and a job with a running attempt, and a reader that has read it."""
    builder, reader = full_history(), Reader()
    for recorded in builder.commits:
        reader.read(message_of(recorded))
    return builder, reader


def test_a_signature_survives_its_text_form() -> None:
    signature = Signature(ROOT.id, ROOT.sign(b"text"))
    assert parse_signature(str(signature)) == signature
    assert is_valid(signature, ROOT.public, b"text")


@given(st.text(max_size=120))
def test_other_text_is_no_signature(text: str) -> None:
    assert parse_signature(text) is None


def test_a_signature_is_good_for_one_log_subject_and_body() -> None:
    signer = Signer(ROOT, "log_a")
    signature = signer.sign("evt.job.a", b"body")
    assert signer.has_signed(signature, "evt.job.a", b"body")
    assert not signer.has_signed(signature, "evt.job.b", b"body")
    assert not signer.has_signed(signature, "evt.job.a", b"another body")
    assert not Signer(ROOT, "log_b").has_signed(signature, "evt.job.a", b"body")
    assert not Signer(key_named("other"), "log_a").has_signed(signature, "evt.job.a", b"body")


def noted(made: OwnSignatures, key: SigningKey, *bodies: bytes) -> list[Signature]:
    """The signatures of these bodies, noted."""
    found = [parse_signature(Signer(key, "log_a", made).sign("evt.job.a", body)) for body in bodies]
    return [signature for signature in found if signature is not None]


def test_what_this_process_signed_itself_is_recognised_without_verifying_it(monkeypatch: pytest.MonkeyPatch) -> None:
    made, verified = OwnSignatures(limit=2), list[bytes]()

    def refuse(_: Signature, __: bytes, message: bytes) -> bool:
        verified.append(message)
        return False

    monkeypatch.setattr(signatures, "is_valid", refuse)
    messages = [signed_bytes("log_a", "evt.job.a", body) for body in (b"oldest", b"older", b"newest")]
    oldest, older, newest = noted(made, ROOT, b"oldest", b"older", b"newest")
    assert made.is_valid(newest, ROOT.public, messages[2])
    assert made.is_valid(older, ROOT.public, messages[1])
    assert verified == []
    assert not made.is_valid(oldest, ROOT.public, messages[0])  # beyond the limit
    assert not made.is_valid(newest, ROOT.public, messages[2])  # a second time
    assert verified == [messages[0], messages[2]]


@pytest.mark.parametrize("change", ["body", "key", "value"])
def test_anything_but_what_was_signed_is_verified(change: str) -> None:
    made, message = OwnSignatures(), signed_bytes("log_a", "evt.job.a", b"body")
    (signature,) = noted(made, ROOT, b"body")
    match change:
        case "body":
            assert not made.is_valid(signature, ROOT.public, message + b"x")
        case "key":
            assert not made.is_valid(signature, key_named("other").public, message)
        case _:
            assert not made.is_valid(signature._replace(value=bytes(64)), ROOT.public, message)
    assert made.is_valid(signature, ROOT.public, message)  # it is a good one all the same


def test_a_history_with_every_event_type_is_accepted() -> None:
    reader = Reader()
    for recorded in full_history().commits:
        assert reader.read(message_of(recorded)) == recorded


def renamed(message: LogMessage) -> LogMessage:
    return msgspec.structs.replace(message, body=message.body.replace(b"forged", b"FORGED"))


def unsigned(message: LogMessage) -> LogMessage:
    return msgspec.structs.replace(message, signature="")


def signed_with(key: SigningKey, log_id: str = "01JAGAIN") -> Change:
    def change(message: LogMessage) -> LogMessage:
        signature = Signer(key, log_id).sign(message.subject, message.body)
        return msgspec.structs.replace(message, signature=signature)

    return change


def moved(message: LogMessage) -> LogMessage:
    return msgspec.structs.replace(message, subject="evt.dataset.ds_dogs")


def moved_and_signed(message: LogMessage) -> LogMessage:
    return signed_with(key_named("catalog"))(moved(message))


def garbage(message: LogMessage) -> LogMessage:
    return signed_with(key_named("trainer"))(msgspec.structs.replace(message, subject="evt.job.x", body=b"\xff"))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (unsigned, "it is not signed"),
        (renamed, "its signature with the key .* of the catalog is wrong"),
        (moved, "its signature with the key .* of the catalog is wrong"),
        (moved_and_signed, "it is about dataset ds_cats, but on the subject evt.dataset.ds_dogs"),
        (signed_with(key_named("stranger")), "which is not registered"),
        (signed_with(key_named("old")), "of the trainer, which is retired"),
        (signed_with(key_named("trainer")), "the trainer may not append dataset.renamed to dataset"),
        (signed_with(ROOT), "the root may not append dataset.renamed to dataset"),
        (signed_with(key_named("catalog"), LOG_ID), "its signature with the key .* of the catalog is wrong"),
        (garbage, "it is no commit"),
    ],
    ids=lambda value: getattr(value, "__name__", "")[:20],
)
def test_what_nobody_known_appended_is_foreign_and_its_aggregate_goes_on(change: Change, reason: str) -> None:
    builder, reader = log_with_job()
    genuine = builder.append("dataset", "ds_cats", DatasetRenamed(name="forged"))
    assert re.search(reason, reader.reason(change(message_of(genuine))))
    later = msgspec.structs.replace(message_of(genuine), sequence=genuine.sequence + 1)
    assert isinstance(reader.read(later), RecordedCommit)


def test_a_commit_that_was_accepted_before_is_foreign_when_it_comes_again() -> None:
    builder, reader = log_with_job()
    again = msgspec.structs.replace(message_of(builder.commits[-3]), sequence=builder.sequence + 1)
    assert "does not follow the last commit" in reader.reason(again)


@pytest.mark.parametrize("event", [JobEdited(name="mine"), DatasetRenamed(name="mine")])
def test_a_worker_reports_and_requests_nothing(event: JobEdited | DatasetRenamed) -> None:
    builder, reader = log_with_job()
    message = message_of(builder.append("job", "job_2", event))
    forged = signed_with(key_named("trainer"))(message)
    assert f"the trainer may not append {event.type_name} to job" in reader.reason(forged)


def test_the_catalog_does_not_report_in_the_place_of_a_worker() -> None:
    builder, reader = log_with_job()
    message = message_of(builder.append("job", "job_2", JobSucceeded(attempt=1, step=1, artifacts=())))
    forged = signed_with(key_named("catalog"))(message)
    assert "the catalog may not append job.succeeded to job" in reader.reason(forged)


def test_only_the_root_key_of_the_key_file_is_believed() -> None:
    builder, reader = LogBuilder(), Reader(root=key_named("another root"))
    add_keys(builder)
    entries = [reader.read(message_of(recorded)) for recorded in builder.commits]
    assert isinstance(entries[0], RecordedCommit)
    assert all(isinstance(entry, ForeignMessage) for entry in entries[1:])


def test_a_second_root_that_is_not_in_the_key_file_is_foreign() -> None:
    builder, reader = log_with_job()
    thief = key_named("thief")
    event = ServiceKeyRootEstablished(public_key=thief.public.hex(), replaces=ROOT.id)
    message = signed_with(thief)(message_of(builder.append("service-key", thief.id, event)))
    assert "is not registered" in reader.reason(message)


def test_a_key_under_the_id_of_another_is_foreign() -> None:
    builder, reader = log_with_job()
    event = ServiceKeyRegistered(service="catalog", public_key=key_named("thief").public.hex())
    message = message_of(builder.append("service-key", key_named("victim").id, event))
    assert "its key has the id" in reader.reason(signed_with(ROOT)(message))


def test_a_retired_key_signs_no_more_and_what_it_signed_stays() -> None:
    builder, reader = LogBuilder(), Reader()
    add_keys(builder)
    builder.create_dataset()
    builder.append("service-key", key_named("catalog").id, ServiceKeyRetired())
    entries = [reader.read(message_of(recorded)) for recorded in builder.commits]
    assert all(isinstance(entry, RecordedCommit) for entry in entries)
    late = builder.append("dataset", "ds_cats", DatasetRenamed(name="late"))
    assert "which is retired" in reader.reason(message_of(late))


def test_after_a_restore_signatures_name_the_new_log() -> None:
    builder, reader = LogBuilder(), Reader()
    add_keys(builder)
    builder.append("log", "01JNEW", LogRestored(log_id="01JNEW", before=LOG_ID))
    builder.create_dataset()
    assert all(isinstance(reader.read(message_of(recorded)), RecordedCommit) for recorded in builder.commits)
    assert reader.trust.log_id == "01JNEW"


def test_a_restore_of_another_log_is_foreign() -> None:
    builder, reader = LogBuilder(), Reader()
    add_keys(builder)
    for recorded in builder.commits:
        reader.read(message_of(recorded))
    other = builder.append("log", "01JNEW", LogRestored(log_id="01JNEW", before="01JOTHER"))
    assert reader.reason(message_of(other)) == "it restores another log"


def test_a_log_that_begins_with_something_else_is_foreign_from_the_start() -> None:
    builder = LogBuilder()
    first = msgspec.structs.replace(message_of(builder.create_dataset()), sequence=1)
    assert "not the creation of the log" in Reader().reason(first)


# --- what a service's own key could do to all others


def rewritten(recorded: RecordedCommit, old: bytes, new: bytes, key: SigningKey) -> LogMessage:
    """With another body, signed well."""
    message = message_of(recorded)
    assert old in message.body
    return signed_with(key)(msgspec.structs.replace(message, body=message.body.replace(old, new)))


def newer(recorded: RecordedCommit, key: SigningKey) -> LogMessage:
    return rewritten(recorded, b'"version"', b'"schema":99,"version"', key)


def test_a_schema_that_its_key_was_not_registered_for_is_foreign() -> None:
    builder, reader = log_with_job()
    renamed = builder.append("dataset", "ds_cats", DatasetRenamed(name="new"))
    reason = reader.reason(newer(renamed, key_named("catalog")))
    assert reason == f"it has schema 99, but the catalog registered its key for schema {SCHEMA}"
    later = msgspec.structs.replace(message_of(renamed), sequence=renamed.sequence + 1)
    assert isinstance(reader.read(later), RecordedCommit)


def test_a_schema_that_its_key_was_registered_for_later_is_accepted() -> None:
    builder, reader = log_with_job()
    key = key_named("new trainer")
    older = ServiceKeyRegistered(service="trainer", public_key=key.public.hex(), schema=SCHEMA - 1)
    reader.read(message_of(builder.append("service-key", key.id, older)))
    change = signed_with(key)
    failed = message_of(builder.append("job", "job_2", JobAttemptFailed(attempt=1, step=1, reason="it crashed")))
    assert "registered its key for schema" in reader.reason(change(failed))

    registered = builder.append("service-key", key.id, msgspec.structs.replace(older, schema=SCHEMA))
    assert isinstance(reader.read(message_of(registered)), RecordedCommit)
    assert isinstance(reader.read(change(failed)), RecordedCommit)


def test_what_a_newer_version_wrote_stops_the_reader() -> None:
    builder, reader = log_with_job()
    key = key_named("catalog")
    event = ServiceKeyRegistered(service="catalog", public_key=key.public.hex(), schema=99)
    registered = builder.append("service-key", key.id, event)
    with pytest.raises(LogDamaged, match="was written by a newer version of Loratory; upgrade this one"):
        reader.read(newer(registered, ROOT))
    assert isinstance(reader.read(message_of(registered)), RecordedCommit)
    renamed = builder.append("dataset", "ds_cats", DatasetRenamed(name="new"))
    with pytest.raises(LogDamaged, match="was written by a newer version of Loratory; upgrade this one"):
        reader.read(newer(renamed, key))


NESTED = b"[" * 50_000 + b"]" * 50_000


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (b'"step":1', b'"step":1' + b"0" * 19, "it has a number of more than 64 bits"),
        (b'"step":1', b'"step":-1' + b"0" * 19, "it has a number of more than 64 bits"),
        (b'"step":1', b'"step":1e30', "it is no commit: Expected `int`"),
        (b'"step":1', b'"step":1,"more":[{"a":[1,' + b"9" * 400 + b"]}]", "it has a number of more than 64 bits"),
        (b'"version"', b'"more":' + NESTED + b',"version"', "it is nested too deeply"),
        (b'"version"', b'"schema":-9999999999999,"version"', "it is no commit: Expected `int` >= 1"),
        (b'"version"', b'"schema":"new","version"', "it is no commit: Expected `int`"),
    ],
    ids=["large", "negative", "float", "nested number", "nested", "schema below 1", "schema of another type"],
)
def test_what_nobody_could_read_or_store_is_foreign(old: bytes, new: bytes, reason: str) -> None:
    builder, reader = log_with_job()
    failed = builder.append("job", "job_2", JobAttemptFailed(attempt=1, step=1, reason="it crashed"))
    assert reader.reason(rewritten(failed, old, new, key_named("trainer"))).startswith(reason)


def test_the_largest_number_that_can_be_stored_is_accepted() -> None:
    builder, reader = log_with_job()
    failed = JobAttemptFailed(attempt=1, step=LARGEST_NUMBER, reason="1" * 40)
    assert isinstance(reader.read(message_of(builder.append("job", "job_2", failed))), RecordedCommit)


@pytest.mark.parametrize("voided", [False, True])
@pytest.mark.parametrize(
    ("kind", "event"),
    [
        ("job", JobAttemptFailed(attempt=1, step=1, reason="it crashed")),
        ("tagging", TaggingPredicted(attempt=1, images=())),
    ],
)
def test_a_worker_may_not_begin_what_nobody_requested(kind: str, event: Event, voided: bool) -> None:
    """The read model would miss what the request says; also if the request may have been lost."""
    builder, reader = LogBuilder(), Reader()
    add_keys(builder)
    if voided:
        builder.append("log", "void-1", LogVoided(reason="no copy had it"))
    for recorded in builder.commits:
        reader.read(message_of(recorded))
    message = message_of(builder.append(kind, "nobody_asked", event))
    assert re.fullmatch(f"the (trainer|tagger) may not begin a {kind}", reader.reason(message))
