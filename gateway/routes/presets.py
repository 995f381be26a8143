"""Presets: named recipes."""

from collections import defaultdict
from typing import Any

import msgspec
from litestar import Request, Response, delete, get, post, put
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody

from contracts import commands, queries
from contracts.commands import CommandMetadata, PresetResult
from contracts.queries import Page, PresetView
from contracts.recipe import Recipe, apply_changes
from gateway.clients import CatalogClient
from gateway.http import responses
from gateway.http.problems import problem_responses, response_spec
from gateway.http.request_context import MinSeq, PageRequest
from gateway.http.responses import created, ok, page, single_page, with_etag
from gateway.routes.bodies import (
    ConfigBody,
    PresetBody,
    PresetCategory,
    PresetParameters,
    ResolvedConfig,
    ServiceHealth,
    refuse_reserved_name,
)


@get("/presets", responses=problem_responses())
async def list_presets(
    request: Request[Any, Any, Any], paging: NamedDependency[PageRequest], catalog: NamedDependency[CatalogClient]
) -> Response[Page[PresetView]]:
    """All presets: built-in ones and your own."""
    return page(request, await catalog.query(queries.ListPresets(**paging.query_args)))


@get("/presets/health", responses=problem_responses())
async def presets_health(catalog: NamedDependency[CatalogClient]) -> ServiceHealth:
    """Does the service that owns presets respond?"""
    await catalog.query(queries.GetLog())
    return ServiceHealth(status="healthy", service="presets")


@get("/presets/categories", responses=problem_responses())
async def list_categories(catalog: NamedDependency[CatalogClient], min_seq: MinSeq = 0) -> Page[PresetCategory]:
    """The presets by category (the first 500)."""
    found: dict[str, list[str]] = defaultdict(list)
    for preset in (await catalog.query(queries.ListPresets(limit=500, min_seq=min_seq))).items:
        found[preset.category].append(preset.name)
    return single_page(
        tuple(PresetCategory(name=name, presets=tuple(presets)) for name, presets in sorted(found.items()))
    )


@post("/presets/generate-config", status_code=200, responses=problem_responses(404, 415, 422))
async def generate_config(data: JSONBody[ConfigBody], catalog: NamedDependency[CatalogClient]) -> ResolvedConfig:
    """The complete recipe that results from a data set, a preset and changes. Nothing is stored."""
    dataset = await catalog.query(queries.GetDataset(dataset=data.dataset))
    preset = await catalog.query(queries.GetPreset(name=data.preset))
    recipe = apply_changes(preset.recipe, data.changes)
    return ResolvedConfig(dataset=dataset.name, images=dataset.images, preset=preset.name, recipe=recipe)


@get("/presets/{name:str}", responses=problem_responses(404))
async def get_preset(
    name: FromPath[str], catalog: NamedDependency[CatalogClient], min_seq: MinSeq = 0
) -> Response[PresetView]:
    """One preset with its complete recipe."""
    view = await catalog.query(queries.GetPreset(name=name, min_seq=min_seq))
    return with_etag(view, view.etag)


@get("/presets/{name:str}/parameters", responses=problem_responses(404))
async def get_parameters(
    name: FromPath[str], catalog: NamedDependency[CatalogClient], min_seq: MinSeq = 0
) -> Response[PresetParameters]:
    """The preset's values, and the JSON Schema of their allowed values."""
    view = await catalog.query(queries.GetPreset(name=name, min_seq=min_seq))
    return with_etag(
        PresetParameters(name=view.name, values=view.recipe, json_schema=msgspec.json.schema(Recipe)), view.etag
    )


@put(
    "/presets/{name:str}",
    status_code=200,
    responses={**response_spec(201, PresetResult, "It was saved"), **problem_responses(404, 409, 415, 422)},
)
async def save_preset(
    name: FromPath[str],
    data: JSONBody[PresetBody],
    metadata: NamedDependency[CommandMetadata],
    catalog: NamedDependency[CatalogClient],
) -> Response[PresetResult]:
    """Save a recipe under a name: 201 if it changed something, or 200."""
    command = commands.SavePreset(
        name=refuse_reserved_name(name), changes=data.changes, parent=data.parent, description=data.description
    )
    return created(await catalog.command(metadata, command), responses.url_path("presets", name))


@delete("/presets/{name:str}", status_code=200, responses=problem_responses(404, 409, 422))
async def retire_preset(
    name: FromPath[str], metadata: NamedDependency[CommandMetadata], catalog: NamedDependency[CatalogClient]
) -> Response[PresetResult]:
    """Remove a preset. Jobs have their own copy of the recipe and are not affected."""
    return ok(await catalog.command(metadata, commands.RetirePreset(name=name)))


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
