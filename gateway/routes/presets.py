"""Presets: named recipes."""

from collections import defaultdict

import msgspec
from litestar import Response, delete, get, post, put
from litestar.params import FromPath, JSONBody

from contracts.commands.base import Description
from contracts.commands.presets import PresetResult, RetirePreset, SavePreset
from contracts.queries.base import Page
from contracts.queries.datasets import GetDataset
from contracts.queries.log import GetLog
from contracts.queries.presets import GetPreset, ListPresets, PresetView
from contracts.recipe import Recipe, apply_changes
from gateway.http.problems import not_shown_response, problem_responses, response_spec
from gateway.http.request_context import MinSeq
from gateway.http.responses import created, ok, single_page, with_etag
from gateway.routes.aliases import DatasetAndPreset, invalid_field
from gateway.routes.shared import Body, Catalog, Metadata, Paging, ServiceHealth, refuse_reserved_name


class PresetBody(Body, frozen=True):
    """The parent's recipe with some fields changed, given as dotted paths (`optimizer.lr`) or nested objects."""

    changes: dict[str, object] = {}
    parent: str | None = None
    description: Description = ""


class ConfigBody(DatasetAndPreset, frozen=True):
    """A data set, a preset, and changes of its recipe."""

    changes: dict[str, object] = {}


class PresetCategory(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    presets: tuple[str, ...]


class PresetParameters(msgspec.Struct, frozen=True, kw_only=True):
    """The preset's values, and the JSON Schema of their allowed values."""

    name: str
    values: Recipe
    json_schema: dict[str, object] = msgspec.field(name="schema")


class ResolvedConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What a job would train: the current data set and the resolved recipe. Nothing is stored."""

    dataset: str
    images: int
    preset: str
    recipe: Recipe


@get("/presets", responses=problem_responses())
async def list_presets(paging: Paging, catalog: Catalog) -> Response[Page[PresetView]]:
    """All presets: built-in ones and your own."""
    return paging.response(await catalog.query(ListPresets(**paging.query_args)))


@get("/presets/health", responses=problem_responses())
async def presets_health(catalog: Catalog) -> ServiceHealth:
    """Does the service that owns presets respond?"""
    await catalog.query(GetLog())
    return ServiceHealth(status="healthy", service="presets")


@get("/presets/categories", responses=problem_responses())
async def list_categories(catalog: Catalog, min_seq: MinSeq = 0) -> Page[PresetCategory]:
    """The presets by category (the first 500)."""
    found: dict[str, list[str]] = defaultdict(list)
    for preset in (await catalog.query(ListPresets(limit=500, min_seq=min_seq))).items:
        found[preset.category].append(preset.name)
    return single_page(
        tuple(PresetCategory(name=name, presets=tuple(presets)) for name, presets in sorted(found.items()))
    )


@post("/presets/generate-config", status_code=200, responses=problem_responses(404, 415, 422))
async def generate_config(data: JSONBody[ConfigBody], catalog: Catalog) -> ResolvedConfig:
    """The complete recipe that results from a data set, a preset and changes. Nothing is stored."""
    if (name := data.preset_ref()) is None:
        raise invalid_field("preset", "name the preset by `preset` or `preset_name`")
    dataset = await catalog.query(GetDataset(dataset=data.dataset_ref()))
    preset = await catalog.query(GetPreset(name=name))
    recipe = apply_changes(preset.recipe, data.changes)
    return ResolvedConfig(dataset=dataset.name, images=dataset.images, preset=preset.name, recipe=recipe)


@get("/presets/{name:str}", responses=problem_responses(404))
async def get_preset(name: FromPath[str], catalog: Catalog, min_seq: MinSeq = 0) -> Response[PresetView]:
    """One preset with its complete recipe."""
    view = await catalog.query(GetPreset(name=name, min_seq=min_seq))
    return with_etag(view, view.etag)


@get("/presets/{name:str}/parameters", responses=problem_responses(404))
async def get_parameters(name: FromPath[str], catalog: Catalog, min_seq: MinSeq = 0) -> Response[PresetParameters]:
    """The preset's values, and the JSON Schema of their allowed values."""
    view = await catalog.query(GetPreset(name=name, min_seq=min_seq))
    return with_etag(
        PresetParameters(name=view.name, values=view.recipe, json_schema=msgspec.json.schema(Recipe)), view.etag
    )


@put(
    "/presets/{name:str}",
    status_code=200,
    responses=response_spec(201, PresetResult, "It was saved")
    | not_shown_response(PresetResult)
    | problem_responses(404, 409, 415, 422),
)
async def save_preset(
    name: FromPath[str], data: JSONBody[PresetBody], metadata: Metadata, catalog: Catalog
) -> Response[PresetResult]:
    """Save a recipe under a name: 201 if it changed something, or 200."""
    command = SavePreset(
        name=refuse_reserved_name(name), changes=data.changes, parent=data.parent, description=data.description
    )
    return created(await catalog.command(metadata, command), "presets", name)


@delete(
    "/presets/{name:str}",
    status_code=200,
    responses=not_shown_response(PresetResult) | problem_responses(404, 409, 422),
)
async def retire_preset(name: FromPath[str], metadata: Metadata, catalog: Catalog) -> Response[PresetResult]:
    """Remove a preset. Jobs have their own copy of the recipe and are not affected."""
    return ok(await catalog.command(metadata, RetirePreset(name=name)))
