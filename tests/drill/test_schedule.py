"""The fault schedule, the drill's checker and its table: a checker that found nothing would let every drill pass."""

import shutil
import sqlite3
from collections import Counter
from contextlib import closing
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

from catalog.keys import Keys
from contracts.aggregates import AnyEvent
from contracts.commands.base import CommandMetadata
from contracts.commits import RecordedCommit, StreamRevision, build_commit
from contracts.events.datasets import TagsEdited
from contracts.events.image_sets import ImageSet
from contracts.events.jobs import (
    JobAttemptStarted,
    JobCancelled,
    JobCreated,
    JobFailed,
    JobQueued,
    JobSucceeded,
    JobVersionSet,
)
from contracts.ids import CommandId, DatasetId, Digest, ImageId, VersionId, WorkerId, keyed_command_id
from contracts.recipe import Recipe
from tests.damage import flip_bit_in_text
from tests.drill.checker import check_commands, check_work
from tests.drill.client_commands import SentCommand
from tests.drill.forging import ForgedMessages
from tests.drill.losses import Inventory, Loss, Losses, holds_same, named_in_archive
from tests.drill.result import DrillConfig, DrillResult, InjectedFault, format_table
from tests.drill.schedule import (
    DEATH_WINDOW_SECONDS,
    DURATIONS,
    EXTRAS,
    MAX_DEATHS_PER_WINDOW,
    Fault,
    backup_moment,
    build_schedule,
    extra_faults,
)
from tests.drill.work_generator import ACTOR, LogObserver

NOW = datetime(2026, 11, 21, tzinfo=UTC)
JOB = JobCreated(
    name="cats",
    mode="single",
    dataset_id=DatasetId("ds_1"),
    dataset="cats",
    recipe=Recipe(),
)
VERSION_SET = JobVersionSet(version=1, version_id=VersionId("ver_1"), manifest=Digest("0" * 64), images=3)
STARTED: list[AnyEvent] = [
    JOB,
    VERSION_SET,
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
    return recorded_commit(sequence, "dataset", "ds_1", TagsEdited(images=ImageSet(count=1), asserted=(tag,)), key=key)


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


def test_extra_faults_change_no_others_and_what_a_backup_heals_comes_after_it() -> None:
    extras = extra_faults(7, frozenset(EXTRAS), faults=200, seconds=2400)
    assert extras == extra_faults(7, frozenset(EXTRAS), faults=200, seconds=2400)
    assert extras != extra_faults(8, frozenset(EXTRAS), faults=200, seconds=2400)
    assert [fault.number for fault in extras] == list(range(200, 200 + len(extras)))
    assert Counter(fault.target for fault in extras) == {"log": 50, "blobs": 4, "keys": 4}
    backup = backup_moment(7, 2400)
    assert all(backup <= fault.at <= 2400 for fault in extras if fault.target != "log")
    only_keys = [fault for fault in extras if fault.target == "keys"]
    alone = extra_faults(7, frozenset({"keys"}), faults=200, seconds=2400)
    assert [(fault.at, fault.variant) for fault in alone] == [(fault.at, fault.variant) for fault in only_keys]
    assert extra_faults(7, frozenset(), faults=200, seconds=2400) == []


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
        SentCommand("job 1", "job", "h", refusal='410: {"type":"…/problems/lost","image":"img_A"}'),
        SentCommand("job 2", "job", "i", refusal='410: {"type":"…/problems/lost","image":"img_B"}'),
    ]
    counts = check_commands(commands, commits, ACTOR, given_up={"img_A"}).counts
    assert counts == {
        "kept": 1,
        "doubled": 2,  # the command, and its tag
        "unknown, kept": 1,
        "unknown, not there": 1,
        "lost": 2,
        "refused": 2,
        "refused for what was lost": 1,
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


def test_after_an_early_end_only_what_was_read_is_judged() -> None:
    commits = [tag_commit(1, "a", "kept")]
    commands = [SentCommand("kept", "tags", "a", sequence=1), SentCommand("later", "tags", "b", sequence=2)]
    assert check_commands(commands, commits, ACTOR, is_whole=False).counts == {"kept": 1, "not checked": 1}
    observer = LogObserver()
    observer.apply([recorded_commit(number, "job", "j", event) for number, event in enumerate(STARTED, start=1)])
    assert check_work(["j"], observer, set(), is_whole=False).counts == {"not ended yet": 1}


def test_work_that_needs_what_was_lost_may_fail_and_no_other() -> None:
    observer = LogObserver()
    failed = JobFailed(attempt=3, code="missing", reason="its picture is lost")
    for job in ("excused", "other"):
        observer.apply([recorded_commit(n, "job", job, event) for n, event in enumerate([*STARTED, failed], start=1)])
    assert observer.datasets == {"excused": "ds_1", "other": "ds_1"}
    verdict = check_work(["excused", "other"], observer, set(), excused={"excused"})
    assert verdict.counts == {"failed for what was lost": 1, "failed": 1}


def test_what_a_loss_affects_is_found_in_the_log() -> None:
    losses = Losses(found=[Loss("lose blobs", "degraded", frozenset(), frozenset({"ab" * 32}))])
    saved = recorded_commit(1, "job", "job_1", STARTED[0])
    other = recorded_commit(2, "job", "job_2", STARTED[0])
    named = RecordedCommit(sequence=1, recorded_at=NOW, commit=saved.commit, body=b'{"digest":"' + b"ab" * 32 + b'"}')
    assert losses.affected([named, other]) == {"job_1"}
    assert Losses().affected([named, other]) == set()


def test_an_inventory_lists_keys_and_blobs(tmp_path: Path) -> None:
    (tmp_path / "catalog").mkdir()
    with closing(sqlite3.connect(tmp_path / "catalog" / "keys.db", isolation_level=None)) as connection:
        connection.execute("CREATE TABLE key (image_id TEXT, key BLOB)")
        connection.execute("INSERT INTO key VALUES ('img_1', x'00')")
    (tmp_path / "blobs" / "ab").mkdir(parents=True)
    (tmp_path / "blobs" / "ab" / ("ab" * 32)).write_bytes(b"")
    (tmp_path / "blobs" / "ab" / ".0.draft").write_bytes(b"")
    assert Inventory.of(tmp_path) == Inventory(frozenset({"img_1"}), frozenset({"ab" * 32}))


def test_only_what_a_commit_names_is_lost(tmp_path: Path) -> None:
    (tmp_path / "catalog").mkdir()
    with closing(sqlite3.connect(tmp_path / "catalog" / "archive.db", isolation_level=None)) as connection:
        connection.execute("CREATE TABLE entry (body BLOB)")
        connection.execute("INSERT INTO entry VALUES (?)", (b'{"image_id":"img_1"}',))
    assert named_in_archive(tmp_path, frozenset({"img_1", "img_2"})) == {"img_1"}
    assert named_in_archive(tmp_path, frozenset()) == frozenset()


async def test_a_damaged_key_file_is_compared_with_its_copy(tmp_path: Path) -> None:
    intact, damaged = tmp_path / "intact", tmp_path / "damaged"
    async with await Keys.open(intact / "keys.db") as keys:
        created = await keys.create_keys([ImageId("img_1"), ImageId("img_2")])
    shutil.copytree(intact, damaged)
    flip_bit_in_text(damaged / "keys.db", created[ImageId("img_1")])

    assert holds_same(damaged, intact, frozenset({"img_2"}))
    assert not holds_same(damaged, intact, frozenset({"img_1", "img_2"}))

    (damaged / "keys.db").write_bytes(b"no database" * 1000)
    assert not holds_same(damaged, intact, frozenset())
    (damaged / "keys.db").unlink()
    assert not holds_same(damaged, intact, frozenset())


CONFIG = DrillConfig(seed=7, faults=1, seconds=60, writes=0, jobs=0, extras=frozenset(EXTRAS))
BUSY = InjectedFault(Fault(0, 1.0, "nats", "kill", 0, 0.5), 1.0, was_busy=True)


def test_the_table_of_a_drill_that_ended_early_says_so() -> None:
    result = DrillResult(CONFIG, injected=[BUSY], ended_early="StackFailed: it has no room")
    table = format_table(result)
    assert "differences not compared: the drill ended early" in table
    assert table[-2:] == ["  ended early: StackFailed: it has no room", "NOT PASSED"]


def test_the_table_names_what_was_lost_and_what_was_forged() -> None:
    keys = frozenset(f"img_{number}" for number in range(6))
    loss = Loss("damage keys", "catalog: keys.db is damaged", keys, frozenset())
    forged = ForgedMessages(Counter(stored=3, refused=4), {5, 6, 7})
    losses = Losses(backup_at=21.4, found=[loss])
    result = DrillResult(CONFIG, injected=[BUSY], forged=forged, losses=losses)
    table = format_table(result)
    assert "forged          7   refused 4, stored 3" in table
    assert "healed          1   backup at 21 s, given up: 6 keys, 0 blobs" in table
    assert (
        "  damage keys: lost since the backup: 6 keys of images (img_0, img_1, img_2, img_3 and 2 more); "
        "noticed: catalog: keys.db is damaged"
    ) in table
    assert table[-1] == "passed"
    unnoticed = DrillResult(CONFIG, injected=[BUSY], losses=Losses(found=[Loss("lose blobs", "", keys, keys)]))
    assert [failure.partition(":")[0] for failure in unnoticed.failures] == ["not noticed"]
    harmless = Loss("damage keys", "", frozenset(), frozenset(), harmed=False)
    assert harmless.describe().endswith("lost since the backup: nothing; noticed: no, nothing was missing or changed")
    assert not DrillResult(CONFIG, injected=[BUSY], losses=Losses(found=[harmless])).failures
