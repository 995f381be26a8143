"""The plan of a drill and its checker: a checker that finds nothing would pass everything."""

from datetime import UTC, datetime
from itertools import pairwise

from contracts.commands import Origin
from contracts.events import (
    AnyFact,
    JobAttemptStarted,
    JobCancelled,
    JobCreated,
    JobFailed,
    JobQueued,
    JobSucceeded,
    Stored,
    TagsEdited,
)
from contracts.ids import CommandId, DatasetId, Digest, VersionId, WorkerId, keyed_command_id
from contracts.recipe import Recipe
from contracts.subjects import Kind
from contracts.wire.log import Head, draw_up
from tests.drill.checker import judged_wishes, judged_works
from tests.drill.schedule import LASTS, MOST_DEATHS, WITHIN, drawn
from tests.drill.wishes import Wish
from tests.drill.works import ACTOR, Watch

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
HELD: list[AnyFact] = [JOB, JobQueued(priority="normal"), JobAttemptStarted(worker=WorkerId("w"), boot="b", resumes=0)]


def stored(sequence: int, kind: Kind, thing: str, *facts: AnyFact, key: str = "") -> Stored:
    origin = Origin(command=CommandId(keyed_command_id(ACTOR, key or f"{thing} {sequence}")), actor=ACTOR, at=NOW)
    commit = draw_up(kind, thing, facts, after=Head(), origin=origin, number=sequence)
    return Stored(sequence=sequence, recorded=NOW, commit=commit, body=b"")


def tagged(sequence: int, tag: str, key: str) -> Stored:
    return stored(sequence, "dataset", "ds_1", TagsEdited(images=b"", asserted=(tag,)), key=key)


def test_the_same_seed_is_the_same_plan_and_nobody_dies_too_often() -> None:
    plan = drawn(7, faults=200, seconds=2400)
    assert plan == drawn(7, faults=200, seconds=2400)
    assert plan != drawn(8, faults=200, seconds=2400)
    assert [fault.number for fault in plan] == list(range(200))
    assert all(0 < one.at < two.at < 2400 for one, two in pairwise(plan))
    for fault in plan:
        near = [one for one in plan if one.deadly and one.target == fault.target and 0 <= fault.at - one.at < WITHIN]
        assert len(near) <= MOST_DEATHS
    assert not [fault for fault in drawn(7, faults=50, seconds=60, longest=5) if fault.seconds > 5]
    assert not [fault for fault in drawn(7, faults=99, seconds=60, without=frozenset({"disk"})) if fault.kind == "full"]
    assert {fault.kind for fault in plan} == LASTS.keys()


def test_every_wish_is_kept_lost_doubled_or_unknown() -> None:
    commits = [tagged(1, "a", "kept"), tagged(2, "b", "twice"), tagged(3, "b", "twice"), tagged(4, "c", "unheard")]
    wishes = [
        Wish("kept", "tags", "a", sequence=1),
        Wish("twice", "tags", "b", sequence=2),
        Wish("unheard", "tags", "c"),
        Wish("unsaid", "tags", "d"),
        Wish("gone", "tags", "e", sequence=5),
        Wish("elsewhere", "import", "f", sequence=1),
        Wish("otherwise", "tags", "g", refused="409"),
    ]
    counts = judged_wishes(wishes, commits, ACTOR).counts
    assert counts == {
        "kept": 1,
        "doubled": 2,  # the wish, and the tag that nobody asked for twice
        "unknown, kept": 1,
        "unknown, not there": 1,
        "lost": 2,
        "refused": 1,
    }


def test_every_piece_of_work_ends_once_and_well_or_is_found() -> None:
    watch = Watch()
    ends: dict[str, list[AnyFact]] = {
        "good": [JobSucceeded(attempt=3, step=1, artifacts=())],
        "asked": [JobCancelled(attempt=3)],
        "unasked": [JobCancelled(attempt=3)],
        "stuck": [],
        "twice": [JobSucceeded(attempt=3, step=1, artifacts=()), JobSucceeded(attempt=3, step=1, artifacts=())],
        "bad": [JobFailed(attempt=3, code="poison", reason="it died")],
    }
    for job, end in ends.items():
        watch.take([stored(number, "job", job, fact) for number, fact in enumerate([*HELD, *end], start=1)])
    verdict = judged_works(ends, watch, {"asked"})
    assert verdict.counts == {"completed": 1, "cancelled as asked": 1, "failed": 2, "stuck": 1, "doubled": 1}
    assert "poison: it died" in " ".join(verdict.wrong)
