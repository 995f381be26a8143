"""Imports: pictures with what came with them, and texts of pictures that are there already."""

import hashlib
from collections.abc import Iterator
from typing import Annotated

import msgspec
from litestar import Response, post
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody
from msgspec import Meta

from contracts.commands.base import CommandMetadata, Text
from contracts.commands.datasets import (
    MAX_FILES_PER_IMPORT,
    MAX_TEXT_BYTES_PER_IMPORT,
    MAX_TEXTS_PER_IMPORT,
    ImportedFile,
    ImportImages,
    ImportResult,
    ImportTexts,
    StagedFile,
)
from contracts.events.base import ReadAs
from contracts.ids import CommandId, ImageId, derived
from contracts.queries.datasets import (
    GetDataset,
)
from gateway.clients import CatalogClient
from gateway.http.problems import not_shown_response, problem_responses, response_spec
from gateway.http.request_context import CONTENT_TYPE_OPT, FORM, IdempotencyKey, TraceParent, build_metadata
from gateway.http.responses import SEQUENCE_HEADER, ok
from gateway.http.uploads import MAX_REQUEST_BYTES, Staging, Upload
from gateway.routes.shared import (
    AnyRequest,
    Body,
    Catalog,
    Metadata,
)


class TextsBody(Body, frozen=True):
    """Image id → text as it stands beside the image's file; `read_as` says how to read it.

    If it is not given, texts are read as the text settings of the data set say.
    """

    texts: Annotated[dict[ImageId, Text], Meta(min_length=1, max_length=MAX_TEXTS_PER_IMPORT)]
    read_as: ReadAs | None = None


class UploadResult(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of each file, in the order of the form; those that could not be taken in come last.

    `unmatched`: names in `captions`, `tags`, `texts`, `repeats` and `masks` that no file has. `shown` is false if what
    was added is in the log, but reads without `min_seq` may not include it yet.
    """

    items: tuple[ImportedFile, ...]
    sequence: int
    shown: bool = True
    unmatched: tuple[str, ...] = ()


@post(
    "/datasets/{dataset:str}/images",
    status_code=200,
    request_max_body_size=MAX_REQUEST_BYTES,
    opt={CONTENT_TYPE_OPT: FORM},
    responses=(
        response_spec(201, UploadResult, "At least one file was added")
        | not_shown_response(UploadResult)
        | problem_responses(404, 413, 415, 422, 507)
    ),
)
async def import_images(  # noqa: PLR0913, PLR0917 - the parts of an upload
    dataset: FromPath[str],
    request: AnyRequest,
    catalog: Catalog,
    staging: NamedDependency[Staging],
    idempotency_key: IdempotencyKey = None,
    traceparent: TraceParent = None,
) -> Response[UploadResult]:
    """Import images: 200, or 201 if at least one was added (202 if that is not shown yet).

    A form with files in `files` (at most 1000, of 64 MiB each and 2 GiB together), whose names are their paths inside a
    folder and become those of the images, and optionally the JSON objects `captions` (file name → caption), `tags`
    (file name → list of tags), `texts` (file name → text as it stands beside the file; `read_as` says how to read it:
    `auto`, `tags` or `caption`, if not given as in the text settings) and `repeats` (file name → how often it is seen
    in an epoch). `masks`: files with the names of the pictures they are masks of, which count among the 1000.
    Each file is added, already there (`existing`) or refused, independently of the others. Of a picture that is there,
    what its text changed since the last import is applied, never over a person's decision: see `conflicts`; repeats
    and mask are replaced.
    """
    if idempotency_key is None:
        # Fail before receiving files for an unknown data set; a repeated request is answered even after its removal.
        await catalog.query(GetDataset(dataset=dataset))
    async with staging.receive(request) as upload:
        metadata = build_metadata(request, idempotency_key, _fingerprint(request, upload), traceparent)
        results = await _import_in_batches(catalog, metadata, dataset, upload)
    files = [file for result in results for file in result.files] + upload.refused
    sequence = max((result.sequence for result in results), default=0)
    shown = all(result.shown for result in results)
    status = 202 if not shown else 201 if any(file.outcome == "added" for file in files) else 200
    headers = {SEQUENCE_HEADER: str(sequence)} if sequence else {}
    body = UploadResult(items=tuple(files), sequence=sequence, shown=shown, unmatched=tuple(upload.unmatched))
    return Response(body, status_code=status, headers=headers)


@post(
    "/datasets/{dataset:str}/texts",
    status_code=200,
    responses=not_shown_response(ImportResult) | problem_responses(404, 413, 415, 422),
)
async def import_texts(
    dataset: FromPath[str], data: JSONBody[TextsBody], metadata: Metadata, catalog: Catalog
) -> Response[ImportResult]:
    """Import the texts that stand beside images which are there already, without their files: at most 200, of 48 KiB.

    As when the files are imported again: what a text changed since the last import is applied, never over a person's
    decision; see `conflicts`. A text that says what its image says already, as one that was written back does, changes
    nothing, but is what the next import is compared with.
    """
    command = ImportTexts(dataset=dataset, texts=data.texts, read_as=data.read_as)
    return ok(await catalog.command(metadata, command))


async def _import_in_batches(
    catalog: CatalogClient, metadata: CommandMetadata, dataset: str, upload: Upload
) -> list[ImportResult]:
    """One import command per commit-sized group of files, each with its own command id, so that retrying is safe.

    The first command has the request's own id, so the reuse of its idempotency key by another request is detected.
    """
    results = []
    for number, batch in enumerate(split_into_batches(upload.files)):
        command_id = CommandId(derived("k", metadata.command_id, str(number))) if number else metadata.command_id
        batch_metadata = msgspec.structs.replace(metadata, command_id=command_id)
        command = ImportImages(dataset=dataset, files=batch, read_as=upload.read_as)
        results.append(await catalog.command_with_retry(batch_metadata, command))
    return results


def split_into_batches(files: list[StagedFile]) -> Iterator[tuple[StagedFile, ...]]:
    """Batches that fit one import command; a file whose texts alone exceed MAX_TEXT_BYTES_PER_IMPORT is a batch.

    Its name counts as one of them: it may be a long path.
    """
    batch: list[StagedFile] = []
    text_bytes = 0
    for file in files:
        file_text_bytes = len("".join((file.name, file.caption or "", file.text or "", *file.tags)).encode())
        if batch and (len(batch) == MAX_FILES_PER_IMPORT or text_bytes + file_text_bytes > MAX_TEXT_BYTES_PER_IMPORT):
            yield tuple(batch)
            batch, text_bytes = [], 0
        batch.append(file)
        text_bytes += file_text_bytes
    if batch:
        yield tuple(batch)


def _fingerprint(request: AnyRequest, upload: Upload) -> str:
    """The hash of the request's content. Not of its body: a repeated form has another boundary, but the same files."""
    content = {
        "request": f"{request.method} {request.url.path}",
        "files": [_content_of(file) for file in upload.files],
        "read_as": upload.read_as,
        "refused": [file.name for file in upload.refused],
    }
    return hashlib.sha256(msgspec.json.encode(content)).hexdigest()


def _content_of(file: StagedFile) -> tuple[object, ...]:
    mask = None if file.mask is None else file.mask.digest
    return file.name, file.digest, file.caption, file.tags, file.text, file.repeats, mask
