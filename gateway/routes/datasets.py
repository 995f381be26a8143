"""Data sets: contents, settings, versions."""

from typing import Annotated, Literal

import msgspec
from litestar import Response, delete, get, patch, post, put
from litestar.params import FromPath, JSONBody, QueryParameter
from msgspec import Meta

from contracts.commands.base import Description, Name, Probability, Tag, Tags, Trigger
from contracts.commands.datasets import (
    CreateDataset,
    DatasetResult,
    FreezeVersion,
    RemoveDataset,
    RenameDataset,
    SetRules,
    SetTextSettings,
    SetThresholds,
    Undo,
    UndoResult,
    VersionResult,
)
from contracts.events.base import ReadAs
from contracts.ids import Digest, ImageId, RunId
from contracts.queries.base import Page
from contracts.queries.datasets import (
    DatasetView,
    DiffVersions,
    GetDataset,
    GetTextSettings,
    GetVersion,
    ImageChange,
    ImageView,
    ListDatasets,
    ListImages,
    ListRefusals,
    ListTags,
    ListVersions,
    RefusalView,
    TagCount,
    TextSettingsView,
    VersionView,
)
from contracts.queries.log import GetLog, HistoryPage, ListDatasetHistory
from contracts.tag_style import DEFAULT_STYLE, TagStyle
from gateway.http.problems import not_shown_response, problem_responses, response_spec
from gateway.http.request_context import MinSeq
from gateway.http.responses import created, ok, single_page, with_etag
from gateway.routes.shared import (
    AsOf,
    Body,
    Catalog,
    ImageFilter,
    Metadata,
    Paging,
    Prefix,
    Selected,
    ServiceHealth,
    optional_filter,
    refuse_reserved_name,
)

MAX_SAMPLE_PROMPTS = 10
Since = Annotated[int, QueryParameter(name="from", ge=1, description="The number of the version to compare it with.")]
HistoryTag = Annotated[str | None, QueryParameter(max_length=200, description="Only events about this tag.")]


class DatasetBody(Body, frozen=True):
    name: Name
    description: Description = ""


class DatasetPatch(Body, frozen=True):
    name: Name


class ThresholdsBody(Body, frozen=True):
    """Predictions above these probabilities become tags, unless a person decided otherwise.

    `tags`: thresholds of single tags, whatever their category.
    """

    general: Probability
    character: Probability
    tags: Annotated[dict[Tag, Probability], Meta(max_length=1000)] = {}


class RulesBody(Body, frozen=True):
    """`deny`: tags that models never add."""

    deny: Tags = ()


class TextSettingsBody(Body, frozen=True):
    """How training texts are written; what is left out has its default.

    `trigger`: of versions and jobs that have none of their own. `template`: 1 = the trigger, then the caption, or the
    tags where there is none; 2 = trigger, tags, caption; 3 = trigger, caption, tags. `style`: of tags; one that a
    pattern of `keep` matches keeps its underscores. `read_as`: what texts beside pictures are in imports that do not
    say so, `auto`, `tags` or `caption`.
    """

    trigger: Trigger = ""
    template: int = 1
    style: TagStyle = DEFAULT_STYLE
    read_as: ReadAs = "auto"


class UndoBody(Body, frozen=True):
    """What to undo: a commit of the data set, by its sequence, or the predictions of a tagging run."""

    commit: Annotated[int, Meta(ge=1)] | None = None
    run: RunId | None = None


class VersionBody(Body, frozen=True):
    """`trigger`: that of the data set if it is left out; an empty one is none."""

    trigger: Trigger | None = None


class DatasetFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file as it was received: `path` in the folder that it came from, `digest` and `size` of its bytes, which `href`
    gives, and the `text` that is trained with it."""

    path: str
    image: ImageId
    format: str
    width: int
    height: int
    size: int
    digest: Digest
    href: str
    text: str


class SamplePrompt(msgspec.Struct, frozen=True, kw_only=True):
    image: ImageId
    prompt: str


@get("/datasets", responses=problem_responses())
async def list_datasets(paging: Paging, catalog: Catalog) -> Response[Page[DatasetView]]:
    """All data sets, without removed ones."""
    return paging.response(await catalog.query(ListDatasets(**paging.query_args)))


@post(
    "/datasets",
    status_code=201,
    responses=response_spec(200, DatasetResult, "It existed already")
    | not_shown_response(DatasetResult)
    | problem_responses(409, 415, 422),
)
async def create_dataset(data: JSONBody[DatasetBody], metadata: Metadata, catalog: Catalog) -> Response[DatasetResult]:
    """Create an empty data set with a unique name."""
    command = CreateDataset(name=refuse_reserved_name(data.name), description=data.description)
    result = await catalog.command(metadata, command)
    return created(result, "datasets", result.id)


@get("/datasets/health", responses=problem_responses())
async def datasets_health(catalog: Catalog) -> ServiceHealth:
    """Does the service that owns data sets respond?"""
    await catalog.query(GetLog())
    return ServiceHealth(status="healthy", service="datasets")


@get("/datasets/{dataset:str}", responses=problem_responses(404))
async def get_dataset(dataset: FromPath[str], catalog: Catalog, as_of: AsOf) -> Response[DatasetView]:
    """One data set, by id or current name; with `at_seq` or `at_time` its state at that point."""
    view = await catalog.query(GetDataset(dataset=dataset, **as_of.query_args))
    return with_etag(view, view.etag)


@get("/datasets/{dataset:str}/history", responses=problem_responses(404))
async def get_dataset_history(
    dataset: FromPath[str], paging: Paging, catalog: Catalog, tag: HistoryTag = None
) -> Response[HistoryPage]:
    """The history of a data set and its tagging runs, oldest first; with `tag` that of one tag in it.

    Who did what, when and why, each with a description. Each request searches a limited part of the log, so a page can
    be empty although more follow: continue while there is a `next`.
    """
    return paging.response(await catalog.query(ListDatasetHistory(dataset=dataset, tag=tag, **paging.query_args)))


@patch("/datasets/{dataset:str}", responses=not_shown_response(DatasetResult) | problem_responses(404, 409, 415, 422))
async def rename_dataset(
    dataset: FromPath[str], data: JSONBody[DatasetPatch], metadata: Metadata, catalog: Catalog
) -> Response[DatasetResult]:
    """Rename a data set."""
    return ok(await catalog.command(metadata, RenameDataset(dataset=dataset, name=refuse_reserved_name(data.name))))


@delete(
    "/datasets/{dataset:str}",
    status_code=200,
    responses=not_shown_response(DatasetResult) | problem_responses(404, 409, 422),
)
async def remove_dataset(dataset: FromPath[str], metadata: Metadata, catalog: Catalog) -> Response[DatasetResult]:
    """Remove a data set. Its versions, and the jobs and LoRAs trained on it, stay."""
    return ok(await catalog.command(metadata, RemoveDataset(dataset=dataset)))


@get("/datasets/{dataset:str}/images", responses=problem_responses(404))
async def list_dataset_images(
    dataset: FromPath[str], paging: Paging, catalog: Catalog, selected: Selected, as_of: AsOf
) -> Response[Page[ImageView]]:
    """The images of a data set, in the order of import or another one.

    With `at_seq` or `at_time` those that it had at that point, in the order of import and without `filter` and `sort`.
    Images that were erased since are not listed.
    """
    query = ListImages(dataset=dataset, **selected.query_args, **as_of.query_args | paging.query_args)
    return paging.encoded_response(await catalog.list_images(query))


@get("/datasets/{dataset:str}/files", responses=problem_responses(404))
async def list_dataset_files(
    dataset: FromPath[str], paging: Paging, catalog: Catalog, selected: Selected
) -> Response[Page[DatasetFile]]:
    """The pictures of a data set as the files they were, each with its text, in the order of import or another one."""
    found = await catalog.query(ListImages(dataset=dataset, **selected.query_args, **paging.query_args))
    items = tuple(
        DatasetFile(
            path=image.name,
            image=image.id,
            format=image.format,
            width=image.width,
            height=image.height,
            size=image.size,
            digest=image.source,
            href=f"/api/v1/images/{image.id}/file?original=true",
            text=image.training_text,
        )
        for image in found.items
    )
    return paging.response(Page(items=items, total=found.total, next=found.next))


@get("/datasets/{dataset:str}/refusals", responses=problem_responses(404))
async def list_refusals(dataset: FromPath[str], paging: Paging, catalog: Catalog) -> Response[Page[RefusalView]]:
    """Refused files, with the reasons."""
    return paging.response(await catalog.query(ListRefusals(dataset=dataset, **paging.query_args)))


@get("/datasets/{dataset:str}/tags", responses=problem_responses(404))
async def list_dataset_tags(
    dataset: FromPath[str], paging: Paging, catalog: Catalog, prefix: Prefix = "", filter: ImageFilter = None
) -> Response[Page[TagCount]]:
    """The tags of a data set, or of those of its images that a filter selects, most used first."""
    query = ListTags(dataset=dataset, prefix=prefix, filter=optional_filter(filter), **paging.query_args)
    return paging.response(await catalog.query(query))


@put(
    "/datasets/{dataset:str}/thresholds",
    responses=not_shown_response(DatasetResult) | problem_responses(404, 409, 415, 422),
)
async def set_thresholds(
    dataset: FromPath[str], data: JSONBody[ThresholdsBody], metadata: Metadata, catalog: Catalog
) -> Response[DatasetResult]:
    """Set the probabilities from which predictions become tags. No model is run again."""
    categories: dict[Literal["general", "character"], float] = {"general": data.general, "character": data.character}
    command = SetThresholds(dataset=dataset, categories=categories, tags=data.tags)
    return ok(await catalog.command(metadata, command))


@put(
    "/datasets/{dataset:str}/rules",
    responses=not_shown_response(DatasetResult) | problem_responses(404, 409, 415, 422),
)
async def set_rules(
    dataset: FromPath[str], data: JSONBody[RulesBody], metadata: Metadata, catalog: Catalog
) -> Response[DatasetResult]:
    """Set which tags models never add."""
    return ok(await catalog.command(metadata, SetRules(dataset=dataset, deny=data.deny)))


@get("/datasets/{dataset:str}/text-settings", responses=problem_responses(404))
async def get_text_settings(
    dataset: FromPath[str], catalog: Catalog, min_seq: MinSeq = 0
) -> Response[TextSettingsView]:
    """How the training texts of a data set are written, and how imported texts are read."""
    view = await catalog.query(GetTextSettings(dataset=dataset, min_seq=min_seq))
    return with_etag(view, view.etag)


@put(
    "/datasets/{dataset:str}/text-settings",
    responses=not_shown_response(DatasetResult) | problem_responses(404, 409, 415, 422),
)
async def set_text_settings(
    dataset: FromPath[str], data: JSONBody[TextSettingsBody], metadata: Metadata, catalog: Catalog
) -> Response[DatasetResult]:
    """Set how the training texts are written, now and in later versions. Those that were frozen keep theirs.

    And how later imports read texts (`read_as`): the texts of images that are there are not read again by this, but by
    `POST /api/v1/datasets/{dataset}/texts/read`.
    """
    command = SetTextSettings(
        dataset=dataset, trigger=data.trigger, template=data.template, style=data.style, read_as=data.read_as
    )
    return ok(await catalog.command(metadata, command))


@post(
    "/datasets/{dataset:str}/undo",
    status_code=200,
    responses=not_shown_response(UndoResult) | problem_responses(404, 409, 415, 422),
)
async def undo(
    dataset: FromPath[str], data: JSONBody[UndoBody], metadata: Metadata, catalog: Catalog
) -> Response[UndoResult]:
    """Undo a commit or a tagging run: what it decided no longer counts, what was decided since stays.

    A commit that imported images stands for its whole import. Undoing an undo brings back what it undid.
    """
    return ok(await catalog.command(metadata, Undo(dataset=dataset, commit=data.commit, run=data.run)))


@post(
    "/datasets/{dataset:str}/versions",
    status_code=201,
    responses=response_spec(200, VersionResult, "It was frozen before")
    | not_shown_response(VersionResult)
    | problem_responses(404, 409, 415, 422),
)
async def freeze_version(
    dataset: FromPath[str], data: JSONBody[VersionBody], metadata: Metadata, catalog: Catalog
) -> Response[VersionResult]:
    """Freeze the current content: 201, or 200 if the same content with the same trigger was frozen before."""
    result = await catalog.command(metadata, FreezeVersion(dataset=dataset, trigger=data.trigger))
    return created(result, "datasets", dataset, "versions", result.version)


@get("/datasets/{dataset:str}/versions", responses=problem_responses(404))
async def list_versions(dataset: FromPath[str], paging: Paging, catalog: Catalog) -> Response[Page[VersionView]]:
    """The frozen versions of a data set."""
    return paging.response(await catalog.query(ListVersions(dataset=dataset, **paging.query_args)))


@get("/datasets/{dataset:str}/versions/{version:int}", responses=problem_responses(404))
async def get_version(
    dataset: FromPath[str], version: FromPath[int], catalog: Catalog, min_seq: MinSeq = 0
) -> Response[VersionView]:
    """One frozen version, by its number."""
    view = await catalog.query(GetVersion(dataset=dataset, version=version, min_seq=min_seq))
    return with_etag(view, view.etag)


@get("/datasets/{dataset:str}/versions/{version:int}/diff", responses=problem_responses(404))
async def diff_versions(
    dataset: FromPath[str], version: FromPath[int], since: Since, paging: Paging, catalog: Catalog
) -> Response[Page[ImageChange]]:
    """The images that were added, removed or changed since another version, in the order of import."""
    query = DiffVersions(dataset=dataset, version=version, since=since, **paging.query_args)
    return paging.response(await catalog.query(query))


@get("/datasets/{dataset:str}/sample-prompts", responses=problem_responses(404))
async def sample_prompts(dataset: FromPath[str], catalog: Catalog, min_seq: MinSeq = 0) -> Page[SamplePrompt]:
    """Suggested sample prompts: the first ten different training texts of the data set."""
    images = (await catalog.query(ListImages(dataset=dataset, min_seq=min_seq))).items
    first: dict[str, ImageId] = {}
    for image in images:
        if image.training_text:
            first.setdefault(image.training_text, image.id)
    prompts = [SamplePrompt(image=image, prompt=text) for text, image in first.items()]
    return single_page(tuple(prompts[:MAX_SAMPLE_PROMPTS]))
