"""As of when: what a request may say about the past, what is asked of the catalog for it, and what is refused."""

from datetime import UTC, datetime, timedelta

import httpx
import pytest

from contracts import queries
from contracts.errors import NotFound, Rejected
from contracts.ids import CommandId
from contracts.queries import GetDataset, GetImage, GetJob, Happening, History
from tests.gateway.conftest import World
from tests.gateway.stand_in import AT, dataset, image, job
from tests.gateway.test_http import P, assert_problem

THINGS = [
    (f"{P}/jobs/job_1", GetJob, job()),
    (f"{P}/datasets/dog", GetDataset, dataset()),
    (f"{P}/images/img_1", GetImage, image()),
    ("/api/images/img_1", GetImage, image()),
]
TOLD = Happening(
    sequence=7,
    index=1,
    type="job.queued",
    kind="job",
    thing="job_1",
    time=AT,
    recorded=AT,
    actor="user:ann",
    command=CommandId("c1"),
    correlation="c1",
    causation="c1",
    words="it was queued with high priority",
    change={"priority": "high"},
)


@pytest.mark.parametrize(("path", "query", "view"), THINGS)
async def test_a_thing_as_it_was_has_the_shape_it_has_now(
    world: World, path: str, query: type, view: queries.View
) -> None:
    world.catalog.answers[query] = view
    now = await world.client.get(path)
    was = await world.client.get(path, params={"at_seq": 5})
    assert (was.status_code, was.json().keys()) == (200, now.json().keys())
    assert was.headers["etag"] == now.headers["etag"]
    assert world.catalog.asked[-1].at_seq == 5
    at_time = "2026-01-02T03:04:05Z"
    assert (await world.client.get(path, params={"at_time": at_time, "min_seq": 3})).status_code == 200
    assert (world.catalog.asked[-1].at_time, world.catalog.asked[-1].min_seq) == (AT, 3)


async def test_what_is_only_true_now_is_not_told_of_the_past(world: World) -> None:
    world.catalog.answers[GetJob] = job()
    assert (await world.client.get(f"{P}/jobs/job_1")).json()["live"]["waiting"] is not None
    was = await world.client.get(f"{P}/jobs/job_1", params={"at_seq": 5})
    assert was.json()["live"] == {"progress": None, "waiting": None}


async def test_a_moment_that_is_none_is_refused(world: World) -> None:
    world.catalog.answers[GetJob] = job()
    path = f"{P}/jobs/job_1"
    future = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    assert_problem(await world.client.get(path, params={"at_seq": 0}), 400, "invalid")
    assert_problem(await world.client.get(path, params={"at_seq": "yesterday"}), 400, "invalid")
    assert_problem(await world.client.get(path, params={"at_time": "2026-01-02T03:04:05"}), 400, "invalid")
    assert_problem(await world.client.get(path, params={"at_time": future}), 422, "rejected")
    assert_problem(await world.client.get(path, params={"at_seq": 5, "wait": 5}), 400, "invalid")
    assert world.catalog.asked == []


async def test_what_the_catalog_refuses_about_the_past_reaches_the_client(world: World) -> None:
    world.catalog.answers[GetJob] = Rejected("the log ends at 4", head=4)
    body = assert_problem(await world.client.get(f"{P}/jobs/job_1", params={"at_seq": 5}), 422, "rejected")
    assert body["head"] == 4
    world.catalog.answers[GetJob] = NotFound("there is no job", sequence=3)
    assert_problem(await world.client.get(f"{P}/jobs/job_1", params={"at_seq": 3}), 404, "not-found")


@pytest.mark.parametrize(
    ("path", "query"),
    [
        (f"{P}/jobs/job_1/history", queries.ListJobHistory),
        (f"{P}/images/img_1/history", queries.ListImageHistory),
        (f"{P}/datasets/dog/history", queries.ListDatasetHistory),
    ],
)
async def test_a_story_comes_in_pieces(world: World, path: str, query: type) -> None:
    world.catalog.answers[query] = History(items=(TOLD,), next="further")
    answer = await world.client.get(path, params={"limit": 1, "min_seq": 2})
    assert answer.json()["items"][0]["words"] == TOLD.words
    assert (world.catalog.asked[-1].limit, world.catalog.asked[-1].min_seq) == (1, 2)
    following = httpx.URL(answer.links["next"]["url"])
    assert (following.path, dict(following.params)) == (path, {"limit": "1", "min_seq": "2", "cursor": "further"})
    world.catalog.answers[query] = History(items=())
    rest = await world.client.get(following)
    assert (rest.json(), world.catalog.asked[-1].cursor) == ({"items": [], "next": None}, "further")


async def test_the_story_of_a_tag_is_asked_for_by_its_name(world: World) -> None:
    world.catalog.answers[queries.ListDatasetHistory] = History(items=())
    await world.client.get(f"{P}/datasets/dog/history", params={"tag": "a/b?c"})
    asked = world.catalog.asked[-1]
    assert isinstance(asked, queries.ListDatasetHistory)
    assert (asked.dataset, asked.tag) == ("dog", "a/b?c")
