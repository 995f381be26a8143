"""Tagging runs: a model predicts tags for the images of a data set."""

from litestar import Response, get, post
from litestar.params import FromPath, JSONBody

from contracts.commands.base import Name
from contracts.commands.tagging import CancelTagging, RequestTagging, TaggingRunResult
from contracts.filter_text import read_filter
from contracts.filters import AllImages, Matching
from contracts.ids import RunId
from contracts.queries.base import Page
from contracts.queries.tagging import GetTagging, ListTagging
from contracts.subjects import Priority
from gateway.http.problems import problem_responses, response_spec
from gateway.http.request_context import MinSeq
from gateway.http.responses import accepted, created, single_page, with_etag
from gateway.live_views import TaggingRunWithLiveState, add_tagging_live_state
from gateway.routes.shared import Body, Catalog, DatasetFilter, Feed, FilterText, Metadata, Paging
from gateway.tagger_models import TaggerModel, choose_model, offered_models


class TaggingBody(Body, frozen=True):
    """`model`: none for the one that a user has installed. `only_new`: only images that no run of this model has
    processed. `filter`: only images that it selects.
    """

    dataset: str
    model: Name | None = None
    only_new: bool = False
    filter: FilterText | None = None
    priority: Priority = "normal"


@post(
    "/tagging/runs",
    status_code=202,
    responses=response_spec(200, TaggingRunResult, "There is no image to tag") | problem_responses(404, 409, 415, 422),
)
async def request_tagging(
    data: JSONBody[TaggingBody], metadata: Metadata, catalog: Catalog, feed: Feed
) -> Response[TaggingRunResult]:
    """Predict tags for the images of a data set, or for those that a filter selects.

    422 for a model that no connected tagger has (`unknown-model`), or if none is named and it is not clear which one
    is meant (`no-default-model`): the built-in one, which knows only drawings of the demo, is used only by its name.
    """
    command = RequestTagging(
        dataset=data.dataset,
        model=choose_model(data.model, offered_models(feed.presences)),
        selection=AllImages() if data.filter is None else Matching(filter=read_filter(data.filter)),
        only_new=data.only_new,
        priority=data.priority,
    )
    result = await catalog.command(metadata, command)
    return created(result, "tagging", "runs", result.id, status=202)


@get("/tagging/runs", responses=problem_responses(404))
async def list_tagging_runs(
    paging: Paging, catalog: Catalog, feed: Feed, dataset: DatasetFilter = None
) -> Response[Page[TaggingRunWithLiveState]]:
    """All tagging runs, newest first."""
    found = await catalog.query(ListTagging(dataset=dataset, **paging.query_args))
    items = tuple(add_tagging_live_state(feed, view) for view in found.items)
    return paging.response(Page(items=items, total=found.total, next=found.next))


@get("/tagging/runs/{run:str}", responses=problem_responses(404))
async def get_tagging_run(
    run: FromPath[RunId], catalog: Catalog, feed: Feed, min_seq: MinSeq = 0
) -> Response[TaggingRunWithLiveState]:
    """One tagging run: its progress and the exact model."""
    view = await catalog.query(GetTagging(run=run, min_seq=min_seq))
    return with_etag(add_tagging_live_state(feed, view), view.etag)


@post(
    "/tagging/runs/{run:str}/cancel",
    status_code=202,
    responses=response_spec(200, TaggingRunResult, "It was cancelled already") | problem_responses(404, 409),
)
async def cancel_tagging(run: FromPath[RunId], metadata: Metadata, catalog: Catalog) -> Response[TaggingRunResult]:
    """Cancel a tagging run; its predictions so far stay. 200 if it was cancelled already."""
    result = await catalog.command(metadata, CancelTagging(run=run))
    await catalog.wake_worker("tag", run)
    return accepted(result)


@get("/tagging/models", responses=problem_responses())
async def list_tagging_models(feed: Feed) -> Page[TaggerModel]:
    """The models that the connected taggers can load, what they are for, and which is used where none is named."""
    return single_page(offered_models(feed.presences))
