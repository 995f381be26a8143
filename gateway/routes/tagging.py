"""Tagging runs: a model predicts tags for the images of a data set."""

from collections import defaultdict
from typing import Any

from litestar import Request, Response, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody

from contracts import commands, queries
from contracts.commands import CommandMetadata, TaggingRunResult
from contracts.ids import RunId, WorkerId
from contracts.queries import Page, TaggingView
from gateway.clients import CatalogClient
from gateway.http import responses
from gateway.http.problems import problem_responses, response_spec
from gateway.http.request_context import MinSeq, PageRequest
from gateway.http.responses import accepted, created, page, single_page, with_etag
from gateway.live import LiveFeed
from gateway.live_views import TaggingRunWithLiveState, add_tagging_live_state
from gateway.routes.bodies import TaggerModel, TaggingBody
from gateway.routes.images import DatasetFilter


@post(
    "/tagging/runs",
    status_code=202,
    responses={
        **response_spec(200, TaggingRunResult, "There is no image to tag"),
        **problem_responses(404, 409, 415, 422),
    },
)
async def request_tagging(
    data: JSONBody[TaggingBody], metadata: NamedDependency[CommandMetadata], catalog: NamedDependency[CatalogClient]
) -> Response[TaggingRunResult]:
    """Predict tags for the images of a data set."""
    command = commands.RequestTagging(
        dataset=data.dataset, model=data.model, only_new=data.only_new, priority=data.priority
    )
    result = await catalog.command(metadata, command)
    return created(result, responses.url_path("tagging", "runs", result.id), status=202)


@get("/tagging/runs", responses=problem_responses(404))
async def list_tagging_runs(
    request: Request[Any, Any, Any],
    paging: NamedDependency[PageRequest],
    catalog: NamedDependency[CatalogClient],
    feed: NamedDependency[LiveFeed],
    dataset: DatasetFilter = None,
) -> Response[Page[TaggingRunWithLiveState]]:
    """All tagging runs, newest first."""
    found = await catalog.query(queries.ListTagging(dataset=dataset, **paging.query_args))
    items = tuple(_with_live_state(feed, view) for view in found.items)
    return page(request, Page(items=items, total=found.total, next=found.next))


@get("/tagging/runs/{run:str}", responses=problem_responses(404))
async def get_tagging_run(
    run: FromPath[str],
    catalog: NamedDependency[CatalogClient],
    feed: NamedDependency[LiveFeed],
    min_seq: MinSeq = 0,
) -> Response[TaggingRunWithLiveState]:
    """One tagging run: its progress and the exact model."""
    view = await catalog.query(queries.GetTagging(run=RunId(run), min_seq=min_seq))
    return with_etag(_with_live_state(feed, view), view.etag)


@post(
    "/tagging/runs/{run:str}/cancel",
    status_code=202,
    responses={**response_spec(200, TaggingRunResult, "It was cancelled already"), **problem_responses(404, 409)},
)
async def cancel_tagging(
    run: FromPath[str], metadata: NamedDependency[CommandMetadata], catalog: NamedDependency[CatalogClient]
) -> Response[TaggingRunResult]:
    """Cancel a tagging run; its predictions so far stay. 200 if it was cancelled already."""
    result = await catalog.command(metadata, commands.CancelTagging(run=RunId(run)))
    await catalog.wake_worker("tag", RunId(run))
    return accepted(result)


@get("/tagging/models", responses=problem_responses())
async def list_tagging_models(feed: NamedDependency[LiveFeed]) -> Page[TaggerModel]:
    """The models that the connected taggers can load."""
    found: dict[str, list[WorkerId]] = defaultdict(list)
    for presence in feed.presences:
        for model in presence.models:
            found[model].append(presence.worker)
    return single_page(tuple(TaggerModel(name=name, workers=tuple(workers)) for name, workers in sorted(found.items())))


def _with_live_state(feed: LiveFeed, view: TaggingView) -> TaggingRunWithLiveState:
    return add_tagging_live_state(view, feed.progress_of(view.id), feed.presences, feed.absent_since("tagger"))


ROUTES = [request_tagging, list_tagging_runs, get_tagging_run, cancel_tagging, list_tagging_models]
