"""Images, their bytes, tags and captions. Also under the tagging seed's paths (`/api/images/…`, `/api/tags/`)."""

from typing import Annotated, Any

from litestar import Request, Response, delete, get, patch, put, route
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody, QueryParameter

from contracts import commands, queries
from contracts.commands import CommandMetadata, ImageResult
from contracts.ids import ImageId
from contracts.queries import HistoryPage, ImageView, Page, TagCount
from contracts.wire.blobs import Blobs
from gateway.clients import CatalogClient
from gateway.http.files import CACHE_ONE_HOUR, blob_response, file_responses
from gateway.http.problems import problem_responses
from gateway.http.request_context import AsOf, IfMatch, MinSeq, PageRequest, parse_if_match
from gateway.http.responses import history_page, ok, page, to_builtins, with_etag
from gateway.routes.bodies import CaptionBody, ImageCaption, ImageTags, TagsBody, TagsPatch
from gateway.routes.datasets import Prefix, TagFilter

DatasetFilter = Annotated[str | None, QueryParameter(max_length=200, description="Only of this data set (name or id).")]
Original = Annotated[
    bool, QueryParameter(description="The bytes as uploaded, as an attachment, instead of the normalized picture.")
]


def with_seed_path(path: str) -> list[str]:
    """Our path and the tagging seed's."""
    return [f"/api/v1{path}", f"/api{path}"]


@get(with_seed_path("/images"), responses=problem_responses(404))
async def list_images(
    request: Request[Any, Any, Any],
    paging: NamedDependency[PageRequest],
    catalog: NamedDependency[CatalogClient],
    dataset: DatasetFilter = None,
    tag: TagFilter = None,
) -> Response[Page[ImageView]]:
    """All images, or those of one data set, or with one tag."""
    return page(request, await catalog.query(queries.ListImages(dataset=dataset, tag=tag, **paging.query_args)))


@get(with_seed_path("/images/{image:str}"), responses=problem_responses(404))
async def get_image(
    image: FromPath[str], catalog: NamedDependency[CatalogClient], as_of: NamedDependency[AsOf]
) -> Response[ImageView]:
    """One image with its tags and their sources, its caption and its digests.

    With `at_seq` or `at_time` its state at that point.
    """
    view = await catalog.query(queries.GetImage(image=ImageId(image), **as_of.query_args))
    return with_etag(view, view.etag)


@get("/api/v1/images/{image:str}/history", responses=problem_responses(404))
async def get_image_history(
    image: FromPath[str],
    request: Request[Any, Any, Any],
    paging: NamedDependency[PageRequest],
    catalog: NamedDependency[CatalogClient],
) -> Response[HistoryPage]:
    """The history of an image, oldest first: who tagged, captioned or removed it, what models predicted, when and why.

    Each request searches a limited part of the log, so a page can be empty although more follow: continue while there
    is a `next`.
    """
    return history_page(
        request, await catalog.query(queries.ListImageHistory(image=ImageId(image), **paging.query_args))
    )


@delete("/api/v1/images/{image:str}", status_code=200, responses=problem_responses(404, 409))
async def remove_image(
    image: FromPath[str], metadata: NamedDependency[CommandMetadata], catalog: NamedDependency[CatalogClient]
) -> Response[ImageResult]:
    """Remove an image from its data set. Versions that contain it stay as they are."""
    return ok(await catalog.command(metadata, commands.RemoveImage(image=ImageId(image))))


@route(with_seed_path("/images/{image:str}/file"), http_method=["GET", "HEAD"], responses=file_responses())
async def get_image_file(
    image: FromPath[str],
    request: Request[Any, Any, Any],
    catalog: NamedDependency[CatalogClient],
    blobs: NamedDependency[Blobs],
    original: Original = False,
) -> Response[Any]:
    """The picture: upright, sRGB, 8 bits, without metadata."""
    view = await _view(catalog, image)
    if original:
        return await blob_response(request, blobs, view.source, attachment_name=view.name, caching=CACHE_ONE_HOUR)
    return await blob_response(request, blobs, view.picture, caching=CACHE_ONE_HOUR)


@route("/api/v1/images/{image:str}/thumbnail", http_method=["GET", "HEAD"], responses=file_responses())
async def get_thumbnail(
    image: FromPath[str],
    request: Request[Any, Any, Any],
    catalog: NamedDependency[CatalogClient],
    blobs: NamedDependency[Blobs],
) -> Response[Any]:
    """A small version of the picture."""
    return await blob_response(request, blobs, (await _view(catalog, image)).thumbnail, caching=CACHE_ONE_HOUR)


@get(with_seed_path("/images/{image:str}/tags"), responses=problem_responses(404))
async def get_image_tags(
    image: FromPath[str], catalog: NamedDependency[CatalogClient], min_seq: MinSeq = 0
) -> Response[ImageTags]:
    """The tags of an image, each with its source; its ETag can be used in `If-Match`."""
    view = await _view(catalog, image, min_seq)
    body = ImageTags(
        image=view.id,
        tags=tuple(tag.tag for tag in view.tags),
        details=to_builtins(view.tags),
        rejected=view.rejected,
        suggestions=to_builtins(view.suggestions),
    )
    return with_etag(body, view.etag)


@put(with_seed_path("/images/{image:str}/tags"), responses=problem_responses(404, 409, 412, 415, 422))
async def replace_image_tags(
    image: FromPath[str],
    data: JSONBody[TagsBody],
    metadata: NamedDependency[CommandMetadata],
    catalog: NamedDependency[CatalogClient],
    if_match: IfMatch = None,
) -> Response[ImageResult]:
    """Replace all tags. With `If-Match`, later edits by others are merged, or 412 if that is not possible."""
    command = commands.ReplaceTags(image=ImageId(image), tags=data.tags, seen=parse_if_match(if_match))
    return ok(await catalog.command(metadata, command))


@patch("/api/v1/images/{image:str}/tags", responses=problem_responses(404, 409, 415, 422))
async def edit_image_tags(
    image: FromPath[str],
    data: JSONBody[TagsPatch],
    metadata: NamedDependency[CommandMetadata],
    catalog: NamedDependency[CatalogClient],
) -> Response[ImageResult]:
    """Add and remove tags. A removed tag counts as rejected: model predictions do not add it again."""
    command = commands.EditTags(image=ImageId(image), add=data.add, remove=data.remove)
    return ok(await catalog.command(metadata, command))


@get("/api/v1/images/{image:str}/caption", responses=problem_responses(404))
async def get_caption(
    image: FromPath[str], catalog: NamedDependency[CatalogClient], min_seq: MinSeq = 0
) -> Response[ImageCaption]:
    """The text used for training: the written caption, or else the joined tags."""
    view = await _view(catalog, image, min_seq)
    return with_etag(ImageCaption(image=view.id, caption=view.caption, source=view.caption_source), view.etag)


@put("/api/v1/images/{image:str}/caption", responses=problem_responses(404, 409, 412, 415, 422))
async def set_caption(
    image: FromPath[str],
    data: JSONBody[CaptionBody],
    metadata: NamedDependency[CommandMetadata],
    catalog: NamedDependency[CatalogClient],
    if_match: IfMatch = None,
) -> Response[ImageResult]:
    """Set the caption of an image."""
    command = commands.SetCaption(image=ImageId(image), caption=data.caption, seen=parse_if_match(if_match))
    return ok(await catalog.command(metadata, command))


@delete("/api/v1/images/{image:str}/caption", status_code=200, responses=problem_responses(404, 409, 412))
async def remove_caption(
    image: FromPath[str],
    metadata: NamedDependency[CommandMetadata],
    catalog: NamedDependency[CatalogClient],
    if_match: IfMatch = None,
) -> Response[ImageResult]:
    """Remove the written caption; the joined tags are used for training again."""
    command = commands.SetCaption(image=ImageId(image), caption=None, seen=parse_if_match(if_match))
    return ok(await catalog.command(metadata, command))


@get(with_seed_path("/tags"), responses=problem_responses(404))
async def list_tags(
    request: Request[Any, Any, Any],
    paging: NamedDependency[PageRequest],
    catalog: NamedDependency[CatalogClient],
    dataset: DatasetFilter = None,
    prefix: Prefix = "",
) -> Response[Page[TagCount]]:
    """All tags in use, most used first."""
    return page(request, await catalog.query(queries.ListTags(dataset=dataset, prefix=prefix, **paging.query_args)))


async def _view(catalog: CatalogClient, image: str, min_seq: int = 0) -> ImageView:
    return await catalog.query(queries.GetImage(image=ImageId(image), min_seq=min_seq))


ROUTES = [
    list_images,
    get_image,
    get_image_history,
    remove_image,
    get_image_file,
    get_thumbnail,
    get_image_tags,
    replace_image_tags,
    edit_image_tags,
    get_caption,
    set_caption,
    remove_caption,
    list_tags,
]
"""With full paths, as they have two prefixes."""
