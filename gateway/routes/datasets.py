"""Data sets: what is in them, how files come in, what is frozen."""

import hashlib
from collections.abc import Iterator
from typing import Annotated, Any

import msgspec
from litestar import Request, Response, delete, get, patch, post, put
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody, QueryParameter

from contracts import commands, queries
from contracts.commands import FILES_AT_ONCE, WORDS_AT_ONCE, ImportImages, Origin, Receipt, StagedFile
from contracts.ids import CommandId, ImageId, derived
from contracts.queries import DatasetView, History, ImageView, Page, RefusalView, TagCount, VersionView
from gateway.http import answers
from gateway.http.answers import done, listed, made, narrated, viewed, whole
from gateway.http.asking import FORM, TAKES, IdempotencyKey, Listing, MinSeq, Moment, TraceParent, origin_of
from gateway.http.problems import also, problems
from gateway.http.uploads import REQUEST_BYTES, Staging, Upload
from gateway.owners import Catalog
from gateway.routes.bodies import (
    DatasetBody,
    DatasetPatch,
    Imported,
    MadeVersion,
    SamplePrompt,
    ServiceHealth,
    ThresholdsBody,
    VersionBody,
    unreserved,
)

PROMPTS = 10
TagFilter = Annotated[str | None, QueryParameter(max_length=200, description="Only images with this tag.")]
StoryOf = Annotated[str | None, QueryParameter(max_length=200, description="Only what decided where this tag holds.")]
Prefix = Annotated[str, QueryParameter(max_length=200, description="Only tags that start so.")]


@get("/datasets", responses=problems())
async def list_datasets(
    request: Request[Any, Any, Any], page: NamedDependency[Listing], catalog: NamedDependency[Catalog]
) -> Response[Page[DatasetView]]:
    """All data sets that were not removed."""
    return listed(request, await catalog.ask(queries.ListDatasets(**page.asked)))


@post("/datasets", status_code=201, responses={**also(200, Receipt, "It was there already"), **problems(409, 415, 422)})
async def create_dataset(
    data: JSONBody[DatasetBody], origin: NamedDependency[Origin], catalog: NamedDependency[Catalog]
) -> Response[Receipt]:
    """Begin an empty data set under a name of its own."""
    wish = commands.CreateDataset(name=unreserved(data.name), description=data.description)
    receipt = await catalog.tell(origin, wish)
    return made(receipt, answers.path("datasets", receipt.id))


@get("/datasets/health", responses=problems())
async def datasets_health(catalog: NamedDependency[Catalog]) -> ServiceHealth:
    """Does the service that owns data sets answer?"""
    await catalog.ask(queries.GetLog())
    return ServiceHealth(status="healthy", service="datasets")


@get("/datasets/{dataset:str}", responses=problems(404))
async def get_dataset(
    dataset: FromPath[str], catalog: NamedDependency[Catalog], at: NamedDependency[Moment]
) -> Response[DatasetView]:
    """One data set, by id or by the name it has now; with `at_seq` or `at_time` as it was then."""
    view = await catalog.ask(queries.GetDataset(dataset=dataset, **at.asked))
    return viewed(view, view.etag)


@get("/datasets/{dataset:str}/history", responses=problems(404))
async def get_dataset_history(
    dataset: FromPath[str],
    request: Request[Any, Any, Any],
    page: NamedDependency[Listing],
    catalog: NamedDependency[Catalog],
    tag: StoryOf = None,
) -> Response[History]:
    """The story of a data set and its tagging runs, oldest first, or with `tag` of one tag in it.

    Who did what, when and why, in words and in fields. A search is bounded: a piece may have few items, even none, and
    yet a `next`.
    """
    return narrated(request, await catalog.ask(queries.ListDatasetHistory(dataset=dataset, tag=tag, **page.asked)))


@patch("/datasets/{dataset:str}", responses=problems(404, 409, 415, 422))
async def rename_dataset(
    dataset: FromPath[str],
    data: JSONBody[DatasetPatch],
    origin: NamedDependency[Origin],
    catalog: NamedDependency[Catalog],
) -> Response[Receipt]:
    """Give a data set another name."""
    return done(await catalog.tell(origin, commands.RenameDataset(dataset=dataset, name=unreserved(data.name))))


@delete("/datasets/{dataset:str}", status_code=200, responses=problems(404, 409, 422))
async def remove_dataset(
    dataset: FromPath[str], origin: NamedDependency[Origin], catalog: NamedDependency[Catalog]
) -> Response[Receipt]:
    """Take a data set off the list. Its versions, and jobs and LoRAs made from it, stay."""
    return done(await catalog.tell(origin, commands.RemoveDataset(dataset=dataset)))


@post(
    "/datasets/{dataset:str}/images",
    status_code=200,
    request_max_body_size=REQUEST_BYTES,
    opt={TAKES: FORM},
    responses={**also(201, Imported, "At least one file was added"), **problems(404, 413, 415, 422, 507)},
)
async def import_images(  # noqa: PLR0913, PLR0917 - what an upload is made of
    dataset: FromPath[str],
    request: Request[Any, Any, Any],
    catalog: NamedDependency[Catalog],
    staging: NamedDependency[Staging],
    idempotency_key: IdempotencyKey = None,
    traceparent: TraceParent = None,
) -> Response[Imported]:
    """Bring pictures in: 200, or 201 when at least one was added.

    A form with files in `files` (at most 1000, of 64 MiB each and 2 GiB together) and, if wanted, the JSON objects
    `captions` (file name → caption) and `tags` (file name → list of tags). Each file is added, known already
    (`existing`) or refused by itself.
    """
    if idempotency_key is None:
        # Nothing is received for nowhere. But what was done before is answered, also where the data set is gone since.
        await catalog.ask(queries.GetDataset(dataset=dataset))
    async with staging.received(request) as upload:
        origin = origin_of(request, idempotency_key, _fingerprint(request, upload), traceparent)
        receipts = await _told(catalog, origin, dataset, upload.with_words())
    files = [file for receipt in receipts for file in receipt.files] + upload.refused
    sequence = max((receipt.sequence for receipt in receipts), default=0)
    status = 201 if any(file.outcome == "added" for file in files) else 200
    headers = {answers.SEQUENCE: str(sequence)} if sequence else {}
    return Response(Imported(items=tuple(files), sequence=sequence), status_code=status, headers=headers)


async def _told(catalog: Catalog, origin: Origin, dataset: str, files: list[StagedFile]) -> list[Receipt]:
    """One command for so many files as make a commit; each has an id of its own, so that sending again is harmless.

    The first has the request's own: so its key is known when it comes with another request.
    """
    receipts = []
    for number, some in enumerate(_parts(files)):
        command = CommandId(derived("k", origin.command, str(number))) if number else origin.command
        part = msgspec.structs.replace(origin, command=command)
        receipts.append(await catalog.tell_patiently(part, ImportImages(dataset=dataset, files=some)))
    return receipts


def _parts(files: list[StagedFile]) -> Iterator[tuple[StagedFile, ...]]:
    """At most FILES_AT_ONCE files and WORDS_AT_ONCE bytes of captions and tags; a file with more words goes alone."""
    part: list[StagedFile] = []
    words = 0
    for file in files:
        more = len("".join((file.caption or "", *file.tags)).encode())
        if part and (len(part) == FILES_AT_ONCE or words + more > WORDS_AT_ONCE):
            yield tuple(part)
            part, words = [], 0
        part.append(file)
        words += more
    if part:
        yield tuple(part)


def _fingerprint(request: Request[Any, Any, Any], upload: Upload) -> str:
    """The hash of the request as it was meant: a form sent again has another boundary, but the same files."""
    meant = {
        "asked": f"{request.method} {request.url.path}",
        "files": [(file.name, file.digest, file.caption, file.tags) for file in upload.with_words()],
        "refused": [file.name for file in upload.refused],
    }
    return hashlib.sha256(msgspec.json.encode(meant)).hexdigest()


@get("/datasets/{dataset:str}/images", responses=problems(404))
async def list_dataset_images(
    dataset: FromPath[str],
    request: Request[Any, Any, Any],
    page: NamedDependency[Listing],
    catalog: NamedDependency[Catalog],
    tag: TagFilter = None,
) -> Response[Page[ImageView]]:
    """The images of a data set, in the order they came in."""
    return listed(request, await catalog.ask(queries.ListImages(dataset=dataset, tag=tag, **page.asked)))


@get("/datasets/{dataset:str}/refusals", responses=problems(404))
async def list_refusals(
    dataset: FromPath[str],
    request: Request[Any, Any, Any],
    page: NamedDependency[Listing],
    catalog: NamedDependency[Catalog],
) -> Response[Page[RefusalView]]:
    """Files that were not taken, and why."""
    return listed(request, await catalog.ask(queries.ListRefusals(dataset=dataset, **page.asked)))


@get("/datasets/{dataset:str}/tags", responses=problems(404))
async def list_dataset_tags(
    dataset: FromPath[str],
    request: Request[Any, Any, Any],
    page: NamedDependency[Listing],
    catalog: NamedDependency[Catalog],
    prefix: Prefix = "",
) -> Response[Page[TagCount]]:
    """The tags of a data set, most used first."""
    return listed(request, await catalog.ask(queries.ListTags(dataset=dataset, prefix=prefix, **page.asked)))


@put("/datasets/{dataset:str}/thresholds", responses=problems(404, 409, 415, 422))
async def set_thresholds(
    dataset: FromPath[str],
    data: JSONBody[ThresholdsBody],
    origin: NamedDependency[Origin],
    catalog: NamedDependency[Catalog],
) -> Response[Receipt]:
    """Say from which probability on a prediction is a tag. No model runs again for it."""
    wish = commands.SetThresholds(dataset=dataset, general=data.general, character=data.character)
    return done(await catalog.tell(origin, wish))


@post(
    "/datasets/{dataset:str}/versions",
    status_code=201,
    responses={**also(200, MadeVersion, "This was frozen already"), **problems(404, 409, 415, 422)},
)
async def freeze_version(
    dataset: FromPath[str],
    data: JSONBody[VersionBody],
    origin: NamedDependency[Origin],
    catalog: NamedDependency[Catalog],
) -> Response[MadeVersion]:
    """Freeze what is there now: 201, or 200 when the same content with the same trigger was frozen before."""
    receipt = await catalog.tell(origin, commands.FreezeVersion(dataset=dataset, trigger=data.trigger))
    version = receipt.version or 0
    body = MadeVersion(id=receipt.id, version=version, changed=receipt.changed, sequence=receipt.sequence)
    where = answers.ROOT + answers.path("datasets", dataset, "versions", version)
    headers = {answers.SEQUENCE: str(receipt.sequence), "Location": where}
    return Response(body, status_code=201 if receipt.changed else 200, headers=headers)


@get("/datasets/{dataset:str}/versions", responses=problems(404))
async def list_versions(
    dataset: FromPath[str],
    request: Request[Any, Any, Any],
    page: NamedDependency[Listing],
    catalog: NamedDependency[Catalog],
) -> Response[Page[VersionView]]:
    """The frozen versions of a data set."""
    return listed(request, await catalog.ask(queries.ListVersions(dataset=dataset, **page.asked)))


@get("/datasets/{dataset:str}/versions/{version:int}", responses=problems(404))
async def get_version(
    dataset: FromPath[str], version: FromPath[int], catalog: NamedDependency[Catalog], min_seq: MinSeq = 0
) -> Response[VersionView]:
    """One frozen version, by its number."""
    view = await catalog.ask(queries.GetVersion(dataset=dataset, version=version, min_seq=min_seq))
    return viewed(view, view.etag)


@get("/datasets/{dataset:str}/sample-prompts", responses=problems(404))
async def sample_prompts(
    dataset: FromPath[str], catalog: NamedDependency[Catalog], min_seq: MinSeq = 0
) -> Page[SamplePrompt]:
    """Prompts worth rendering: the first ten different captions of the data set."""
    images = (await catalog.ask(queries.ListImages(dataset=dataset, min_seq=min_seq))).items
    first: dict[str, ImageId] = {}
    for image in images:
        if image.caption:
            first.setdefault(image.caption, image.id)
    prompts = [SamplePrompt(image=image, prompt=caption) for caption, image in first.items()]
    return whole(tuple(prompts[:PROMPTS]))


ROUTES = [
    list_datasets,
    create_dataset,
    datasets_health,
    get_dataset,
    get_dataset_history,
    rename_dataset,
    remove_dataset,
    import_images,
    list_dataset_images,
    list_refusals,
    list_dataset_tags,
    set_thresholds,
    freeze_version,
    list_versions,
    get_version,
    sample_prompts,
]
