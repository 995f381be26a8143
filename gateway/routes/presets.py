"""Presets: named recipes."""

from collections import defaultdict
from typing import Any

import msgspec
from litestar import Request, Response, delete, get, post, put
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody

from contracts import commands, queries
from contracts.commands import Origin, Receipt
from contracts.queries import Page, PresetView
from contracts.recipe import Recipe, overlaid
from gateway.http import answers
from gateway.http.answers import done, listed, made, viewed, whole
from gateway.http.asking import Listing, MinSeq
from gateway.http.problems import also, problems
from gateway.owners import Catalog
from gateway.routes.bodies import Category, Config, ConfigBody, Parameters, PresetBody, ServiceHealth, unreserved


@get("/presets", responses=problems())
async def list_presets(
    request: Request[Any, Any, Any], page: NamedDependency[Listing], catalog: NamedDependency[Catalog]
) -> Response[Page[PresetView]]:
    """All presets: those that come with Loratory, and your own."""
    return listed(request, await catalog.ask(queries.ListPresets(**page.asked)))


@get("/presets/health", responses=problems())
async def presets_health(catalog: NamedDependency[Catalog]) -> ServiceHealth:
    """Does the service that owns presets answer?"""
    await catalog.ask(queries.GetLog())
    return ServiceHealth(status="healthy", service="presets")


@get("/presets/categories", responses=problems())
async def list_categories(catalog: NamedDependency[Catalog], min_seq: MinSeq = 0) -> Page[Category]:
    """The presets by category (the first 500)."""
    found: dict[str, list[str]] = defaultdict(list)
    for preset in (await catalog.ask(queries.ListPresets(limit=500, min_seq=min_seq))).items:
        found[preset.category].append(preset.name)
    return whole(tuple(Category(name=name, presets=tuple(presets)) for name, presets in sorted(found.items())))


@post("/presets/generate-config", status_code=200, responses=problems(404, 415, 422))
async def generate_config(data: JSONBody[ConfigBody], catalog: NamedDependency[Catalog]) -> Config:
    """The whole recipe that a data set, a preset and changes make. Nothing is kept."""
    dataset = await catalog.ask(queries.GetDataset(dataset=data.dataset))
    preset = await catalog.ask(queries.GetPreset(name=data.preset))
    recipe = overlaid(preset.recipe, data.changes)
    return Config(dataset=dataset.name, images=dataset.images, preset=preset.name, recipe=recipe)


@get("/presets/{name:str}", responses=problems(404))
async def get_preset(
    name: FromPath[str], catalog: NamedDependency[Catalog], min_seq: MinSeq = 0
) -> Response[PresetView]:
    """One preset with its whole recipe."""
    view = await catalog.ask(queries.GetPreset(name=name, min_seq=min_seq))
    return viewed(view, view.etag)


@get("/presets/{name:str}/parameters", responses=problems(404))
async def get_parameters(
    name: FromPath[str], catalog: NamedDependency[Catalog], min_seq: MinSeq = 0
) -> Response[Parameters]:
    """The preset's values, and what each of them may be (JSON Schema)."""
    view = await catalog.ask(queries.GetPreset(name=name, min_seq=min_seq))
    return viewed(Parameters(name=view.name, values=view.recipe, json_schema=msgspec.json.schema(Recipe)), view.etag)


@put(
    "/presets/{name:str}",
    status_code=200,
    responses={**also(201, Receipt, "It was saved"), **problems(404, 409, 415, 422)},
)
async def save_preset(
    name: FromPath[str],
    data: JSONBody[PresetBody],
    origin: NamedDependency[Origin],
    catalog: NamedDependency[Catalog],
) -> Response[Receipt]:
    """Keep a recipe under a name: 201 when it changed something, 200 when it was so already."""
    wish = commands.SavePreset(
        name=unreserved(name), changes=data.changes, parent=data.parent, description=data.description
    )
    return made(await catalog.tell(origin, wish), answers.path("presets", name))


@delete("/presets/{name:str}", status_code=200, responses=problems(404, 409, 422))
async def retire_preset(
    name: FromPath[str], origin: NamedDependency[Origin], catalog: NamedDependency[Catalog]
) -> Response[Receipt]:
    """Offer a preset no more. Jobs carry their own recipe and do not notice."""
    return done(await catalog.tell(origin, commands.RetirePreset(name=name)))


ROUTES = [
    list_presets,
    presets_health,
    list_categories,
    generate_config,
    get_preset,
    get_parameters,
    save_preset,
    retire_preset,
]
