"""Historical reads (`at_seq`, `at_time`) and histories: requests, the catalog's queries, and refusals."""

from datetime import UTC, datetime, timedelta

import httpx
import pytest

from contracts.errors import NotFound, Rejected
from contracts.ids import CommandId
from contracts.queries.base import View
from contracts.queries.datasets import GetDataset, GetImage
from contracts.queries.jobs import GetJob
from contracts.queries.log import HistoryEntry, HistoryPage, ListDatasetHistory, ListImageHistory, ListJobHistory
from tests.gateway.conftest import World
from tests.gateway.fake_catalog import AT, dataset, image, job
from tests.gateway.test_http import P, assert_problem

pytestmark = pytest.mark.asyncio(loop_scope="module")
RESOURCES = [
    (f"{P}/jobs/job_1", GetJob, job()),
    (f"{P}/datasets/dog", GetDataset, dataset()),
    (f"{P}/images/img_1", GetImage, image()),
    ("/api/images/img_1", GetImage, image()),
]
ENTRY = HistoryEntry(
    sequence=7,
    index=1,
    type="job.queued",
    aggregate_kind="job",
    aggregate_id="job_1",
    time=AT,
    recorded_at=AT,
    actor="user:ann",
    command_id=CommandId("c1"),
    correlation_id="c1",
    causation_id="c1",
    description="Queued with high priority",
    change={"priority": "high"},
)


@pytest.mark.parametrize(("path", "query", "view"), RESOURCES)
async def test_a_past_state_has_the_same_members_as_the_current_one(
    world: World, path: str, query: type, view: View
) -> None:
    world.catalog.query_results[query] = view
    current = await world.client.get(path)
    past = await world.client.get(path, params={"at_seq": 5})
    assert (past.status_code, past.json().keys()) == (200, current.json().keys())
    assert past.headers["etag"] == current.headers["etag"]
    assert world.catalog.received_queries[-1].at_seq == 5
    at_time = "2026-01-02T03:04:05Z"
    assert (await world.client.get(path, params={"at_time": at_time, "min_seq": 3})).status_code == 200
    assert (world.catalog.received_queries[-1].at_time, world.catalog.received_queries[-1].min_seq) == (AT, 3)


async def test_a_past_state_has_no_live_state(world: World) -> None:
    world.catalog.query_results[GetJob] = job()
    assert (await world.client.get(f"{P}/jobs/job_1")).json()["live"]["waiting"] is not None
    past = await world.client.get(f"{P}/jobs/job_1", params={"at_seq": 5})
    assert past.json()["live"] == {"progress": None, "waiting": None}


async def test_an_invalid_point_in_time_is_refused(world: World) -> None:
    world.catalog.query_results[GetJob] = job()
    path = f"{P}/jobs/job_1"
    future = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    assert_problem(await world.client.get(path, params={"at_seq": 0}), 400, "invalid")
    assert_problem(await world.client.get(path, params={"at_seq": "yesterday"}), 400, "invalid")
    assert_problem(await world.client.get(path, params={"at_time": "2026-01-02T03:04:05"}), 400, "invalid")
    assert_problem(await world.client.get(path, params={"at_time": future}), 422, "rejected")
    assert_problem(await world.client.get(path, params={"at_seq": 5, "wait": 5}), 400, "invalid")
    assert world.catalog.received_queries == []


async def test_errors_of_historical_queries_reach_the_client(world: World) -> None:
    world.catalog.query_results[GetJob] = Rejected("the log ends at 4", head=4)
    body = assert_problem(await world.client.get(f"{P}/jobs/job_1", params={"at_seq": 5}), 422, "rejected")
    assert body["head"] == 4
    world.catalog.query_results[GetJob] = NotFound("there is no job", sequence=3)
    assert_problem(await world.client.get(f"{P}/jobs/job_1", params={"at_seq": 3}), 404, "not-found")


@pytest.mark.parametrize(
    ("path", "query"),
    [
        (f"{P}/jobs/job_1/history", ListJobHistory),
        (f"{P}/images/img_1/history", ListImageHistory),
        (f"{P}/datasets/dog/history", ListDatasetHistory),
    ],
)
async def test_a_history_is_paged(world: World, path: str, query: type) -> None:
    world.catalog.query_results[query] = HistoryPage(items=(ENTRY,), next="further")
    response = await world.client.get(path, params={"limit": 1, "min_seq": 2})
    assert response.json()["items"][0]["description"] == ENTRY.description
    assert (world.catalog.received_queries[-1].limit, world.catalog.received_queries[-1].min_seq) == (1, 2)
    following = httpx.URL(response.links["next"]["url"])
    assert (following.path, dict(following.params)) == (path, {"limit": "1", "min_seq": "2", "cursor": "further"})
    world.catalog.query_results[query] = HistoryPage(items=())
    rest = await world.client.get(following)
    assert (rest.json(), world.catalog.received_queries[-1].cursor) == ({"items": [], "next": None}, "further")


async def test_the_history_of_a_tag_is_queried_by_its_name(world: World) -> None:
    world.catalog.query_results[ListDatasetHistory] = HistoryPage(items=())
    await world.client.get(f"{P}/datasets/dog/history", params={"tag": "a/b?c"})
    query = world.catalog.received_queries[-1]
    assert isinstance(query, ListDatasetHistory)
    assert (query.dataset, query.tag) == ("dog", "a/b?c")
