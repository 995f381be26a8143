"""Tagging runs: a model looks at the images of a data set."""

from collections import defaultdict
from typing import Any

from litestar import Request, Response, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody

from contracts import commands, queries
from contracts.commands import Origin, Receipt
from contracts.ids import RunId, WorkerId
from contracts.queries import Page, TaggingView
from gateway.http import answers
from gateway.http.answers import asked_for, listed, made, viewed, whole
from gateway.http.asking import Listing, MinSeq
from gateway.http.problems import also, problems
from gateway.live import LiveFeed
from gateway.owners import Catalog
from gateway.routes.bodies import TaggerModel, TaggingBody
from gateway.routes.images import DatasetFilter
from gateway.waiting import TaggingNow, tagging_now


@post(
    "/tagging/runs",
    status_code=202,
    responses={**also(200, Receipt, "There is nothing to do"), **problems(404, 409, 415, 422)},
)
async def request_tagging(
    data: JSONBody[TaggingBody], origin: NamedDependency[Origin], catalog: NamedDependency[Catalog]
) -> Response[Receipt]:
    """Have a model look at the images of a data set."""
    wish = commands.RequestTagging(
        dataset=data.dataset, model=data.model, only_new=data.only_new, priority=data.priority
    )
    receipt = await catalog.tell(origin, wish)
    return made(receipt, answers.path("tagging", "runs", receipt.id), status=202)


@get("/tagging/runs", responses=problems(404))
async def list_tagging_runs(
    request: Request[Any, Any, Any],
    page: NamedDependency[Listing],
    catalog: NamedDependency[Catalog],
    feed: NamedDependency[LiveFeed],
    dataset: DatasetFilter = None,
) -> Response[Page[TaggingNow]]:
    """All tagging runs, newest first."""
    found = await catalog.ask(queries.ListTagging(dataset=dataset, **page.asked))
    items = tuple(_now(feed, view) for view in found.items)
    return listed(request, Page(items=items, total=found.total, next=found.next))


@get("/tagging/runs/{run:str}", responses=problems(404))
async def get_tagging_run(
    run: FromPath[str],
    catalog: NamedDependency[Catalog],
    feed: NamedDependency[LiveFeed],
    min_seq: MinSeq = 0,
) -> Response[TaggingNow]:
    """One tagging run: how far it is, and with exactly which model."""
    view = await catalog.ask(queries.GetTagging(run=RunId(run), min_seq=min_seq))
    return viewed(_now(feed, view), view.etag)


@post(
    "/tagging/runs/{run:str}/cancel",
    status_code=202,
    responses={**also(200, Receipt, "It was being stopped already"), **problems(404, 409)},
)
async def cancel_tagging(
    run: FromPath[str], origin: NamedDependency[Origin], catalog: NamedDependency[Catalog]
) -> Response[Receipt]:
    """Stop a tagging run; what it has predicted stays. 200 when it was being stopped already."""
    receipt = await catalog.tell(origin, commands.CancelTagging(run=RunId(run)))
    await catalog.nudge("tag", RunId(run))
    return asked_for(receipt)


@get("/tagging/models", responses=problems())
async def list_tagging_models(feed: NamedDependency[LiveFeed]) -> Page[TaggerModel]:
    """The models that the taggers now connected can load."""
    found: dict[str, list[WorkerId]] = defaultdict(list)
    for presence in feed.presences:
        for model in presence.models:
            found[model].append(presence.worker)
    return whole(tuple(TaggerModel(name=name, workers=tuple(workers)) for name, workers in sorted(found.items())))


def _now(feed: LiveFeed, view: TaggingView) -> TaggingNow:
    return tagging_now(view, feed.progress_of(view.id), feed.presences, feed.without("tagger"))


ROUTES = [request_tagging, list_tagging_runs, get_tagging_run, cancel_tagging, list_tagging_models]
