"""The fault schedule and the drill's checker: a checker that found nothing would let every drill pass."""

from datetime import UTC, datetime
from itertools import pairwise

from contracts.aggregates import AnyEvent
from contracts.commands.base import CommandMetadata
from contracts.commits import RecordedCommit, StreamRevision, build_commit
from contracts.events.datasets import TagsEdited
from contracts.events.jobs import JobAttemptStarted, JobCancelled, JobCreated, JobFailed, JobQueued, JobSucceeded
from contracts.ids import CommandId, DatasetId, Digest, VersionId, WorkerId, keyed_command_id
from contracts.recipe import Recipe
from tests.drill.checker import check_commands, check_work
from tests.drill.client_commands import SentCommand
from tests.drill.schedule import DEATH_WINDOW_SECONDS, DURATIONS, MAX_DEATHS_PER_WINDOW, build_schedule
from tests.drill.work_generator import ACTOR, LogObserver

NOW = datetime(2026, 11, 21, tzinfo=UTC)
JOB = JobCreated(
    name="cats",
    mode="single",
    dataset_id=DatasetId("ds_1"),
    dataset="cats",
    version=1,
    version_id=VersionId("ver_1"),
    manifest=Digest("0" * 64),
    images=3,
    recipe=Recipe(),
)
STARTED: list[AnyEvent] = [
    JOB,
    JobQueued(priority="normal"),
    JobAttemptStarted(worker=WorkerId("w"), boot="b", resumes=0),
]


def recorded_commit(sequence: int, kind: str, aggregate_id: str, *events: AnyEvent, key: str = "") -> RecordedCommit:
    command_id = CommandId(keyed_command_id(ACTOR, key or f"{aggregate_id} {sequence}"))
    metadata = CommandMetadata(command_id=command_id, actor=ACTOR, at=NOW)
    commit = build_commit(
        kind, aggregate_id, events, expected_revision=StreamRevision(), metadata=metadata, number=sequence
    )
    return RecordedCommit(sequence=sequence, recorded_at=NOW, commit=commit, body=b"")


def tag_commit(sequence: int, tag: str, key: str) -> RecordedCommit:
    return recorded_commit(sequence, "dataset", "ds_1", TagsEdited(images=b"", asserted=(tag,)), key=key)


def test_equal_seeds_give_equal_schedules_and_no_process_dies_too_often() -> None:
    schedule = build_schedule(7, faults=200, seconds=2400)
    assert schedule == build_schedule(7, faults=200, seconds=2400)
    assert schedule != build_schedule(8, faults=200, seconds=2400)
    assert [fault.number for fault in schedule] == list(range(200))
    assert all(0 < one.at < two.at < 2400 for one, two in pairwise(schedule))
    for fault in schedule:
        recent = [
            one
            for one in schedule
            if one.ends_process and one.target == fault.target and 0 <= fault.at - one.at < DEATH_WINDOW_SECONDS
        ]
        assert len(recent) <= MAX_DEATHS_PER_WINDOW
    assert not [fault for fault in build_schedule(7, faults=50, seconds=60, longest=5) if fault.seconds > 5]
    without_disk = build_schedule(7, faults=99, seconds=60, without=frozenset({"disk"}))
    assert not [fault for fault in without_disk if fault.kind == "full"]
    assert {fault.kind for fault in schedule} == DURATIONS.keys()


def test_every_command_is_classified_as_kept_lost_doubled_or_unknown() -> None:
    commits = [
        tag_commit(1, "a", "kept"),
        tag_commit(2, "b", "twice"),
        tag_commit(3, "b", "twice"),
        tag_commit(4, "c", "unanswered"),
    ]
    commands = [
        SentCommand("kept", "tags", "a", sequence=1),
        SentCommand("twice", "tags", "b", sequence=2),
        SentCommand("unanswered", "tags", "c"),
        SentCommand("never-arrived", "tags", "d"),
        SentCommand("gone", "tags", "e", sequence=5),
        SentCommand("elsewhere", "import", "f", sequence=1),
        SentCommand("otherwise", "tags", "g", refusal="409"),
    ]
    counts = check_commands(commands, commits, ACTOR).counts
    assert counts == {
        "kept": 1,
        "doubled": 2,  # the command, and its tag
        "unknown, kept": 1,
        "unknown, not there": 1,
        "lost": 2,
        "refused": 1,
    }


def test_work_that_does_not_end_once_and_as_requested_is_reported() -> None:
    observer = LogObserver()
    ends: dict[str, list[AnyEvent]] = {
        "good": [JobSucceeded(attempt=3, step=1, artifacts=())],
        "requested": [JobCancelled(attempt=3)],
        "unrequested": [JobCancelled(attempt=3)],
        "stuck": [],
        "twice": [JobSucceeded(attempt=3, step=1, artifacts=()), JobSucceeded(attempt=3, step=1, artifacts=())],
        "bad": [JobFailed(attempt=3, code="poison", reason="it died")],
    }
    for job, end in ends.items():
        events = enumerate([*STARTED, *end], start=1)
        observer.apply([recorded_commit(number, "job", job, event) for number, event in events])
    verdict = check_work(ends, observer, {"requested"})
    assert verdict.counts == {"completed": 1, "cancelled as requested": 1, "failed": 2, "stuck": 1, "doubled": 1}
    assert "poison: it died" in " ".join(verdict.errors)
