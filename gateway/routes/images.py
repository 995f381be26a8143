"""Images, their bytes, tags and captions. Also under the tagging seed's paths (`/api/images/…`, `/api/tags/`)."""

from typing import Annotated, Any

import msgspec
from litestar import Response, delete, get, patch, put, route
from litestar.params import FromPath, JSONBody, QueryParameter

from contracts.commands.base import Tags, Text
from contracts.commands.datasets import EditTags, ImageResult, OrderTags, RemoveImage, ReplaceTags, SetCaption
from contracts.errors import BlobMissing, Lost, NotFound
from contracts.ids import ImageId
from contracts.queries.base import Page
from contracts.queries.datasets import GetImage, ImageView, ListImages, ListTags, TagCount, TagView
from contracts.queries.log import HistoryPage, ListImageHistory
from gateway.clients import CatalogClient
from gateway.http.files import CACHE_ONE_HOUR, blob_response, file_responses, source_response
from gateway.http.problems import not_shown_response, problem_responses
from gateway.http.request_context import IfMatch, MinSeq, parse_if_match
from gateway.http.responses import ok, with_etag
from gateway.routes.shared import (
    AnyRequest,
    AsOf,
    Body,
    Catalog,
    DatasetFilter,
    Files,
    ImageFilter,
    Metadata,
    Paging,
    Prefix,
    Selected,
    optional_filter,
)

Original = Annotated[
    bool, QueryParameter(description="The bytes as uploaded, as an attachment, instead of the normalized picture.")
]


class TagsBody(Body, frozen=True):
    """The complete new list of tags."""

    tags: Tags


class TagsPatch(Body, frozen=True):
    """A removed tag is rejected, a withdrawn one left to the models."""

    add: Tags = ()
    remove: Tags = ()
    withdraw: Tags = ()


class CaptionBody(Body, frozen=True):
    caption: Text


class ImageTags(msgspec.Struct, frozen=True, kw_only=True):
    """`tags` as the trainer reads them; `details` give the source of each."""

    image: ImageId
    tags: tuple[str, ...]
    details: tuple[TagView, ...]
    rejected: tuple[str, ...]
    suggestions: tuple[TagView, ...]


class ImageCaption(msgspec.Struct, frozen=True, kw_only=True):
    image: ImageId
    caption: str
    source: str


def with_seed_path(path: str) -> list[str]:
    """Our path and the tagging seed's."""
    return [f"/api/v1{path}", f"/api{path}"]


@get(with_seed_path("/images"), responses=problem_responses(404))
async def list_images(
    paging: Paging, catalog: Catalog, selected: Selected, dataset: DatasetFilter = None
) -> Response[Page[ImageView]]:
    """All images, or those of one data set, or those that a filter selects."""
    query = ListImages(dataset=dataset, **selected.query_args, **paging.query_args)
    return paging.encoded_response(await catalog.list_images(query))


@get(with_seed_path("/images/{image:str}"), responses=problem_responses(404))
async def get_image(image: FromPath[ImageId], catalog: Catalog, as_of: AsOf) -> Response[ImageView]:
    """One image with its tags and their sources, its caption and its digests.

    With `at_seq` or `at_time` its state at that point.
    """
    view = await catalog.query(GetImage(image=image, **as_of.query_args))
    return with_etag(view, view.etag)


@get("/api/v1/images/{image:str}/history", responses=problem_responses(404))
async def get_image_history(image: FromPath[ImageId], paging: Paging, catalog: Catalog) -> Response[HistoryPage]:
    """The history of an image, oldest first: who tagged, captioned or removed it, what models predicted, when and why.

    Each request searches a limited part of the log, so a page can be empty although more follow: continue while there
    is a `next`.
    """
    return paging.response(await catalog.query(ListImageHistory(image=image, **paging.query_args)))


@delete(
    "/api/v1/images/{image:str}",
    status_code=200,
    responses=not_shown_response(ImageResult) | problem_responses(404, 409),
)
async def remove_image(image: FromPath[ImageId], metadata: Metadata, catalog: Catalog) -> Response[ImageResult]:
    """Remove an image from its data set. Versions that contain it stay as they are."""
    return ok(await catalog.command(metadata, RemoveImage(image=image)))


@route(with_seed_path("/images/{image:str}/file"), http_method=["GET", "HEAD"], responses=file_responses())
async def get_image_file(  # noqa: PLR0913, PLR0917 - dependencies
    image: FromPath[ImageId],
    request: AnyRequest,
    catalog: Catalog,
    files: Files,
    original: Original = False,
    min_seq: MinSeq = 0,
) -> Response[Any]:
    """The picture: sRGB, 8 bits, without metadata, but a JPEG may have an EXIF orientation; or the file as received."""
    view = await _view(catalog, image, min_seq)
    if original:
        return await source_response(request, files, view)
    return await blob_response(request, files, view.picture, caching=CACHE_ONE_HOUR)


@route("/api/v1/images/{image:str}/thumbnail", http_method=["GET", "HEAD"], responses=file_responses())
async def get_thumbnail(
    image: FromPath[ImageId], request: AnyRequest, catalog: Catalog, files: Files, min_seq: MinSeq = 0
) -> Response[Any]:
    """A small version of the picture; the picture itself if that was lost."""
    view = await _view(catalog, image, min_seq)
    try:
        return await blob_response(request, files, view.thumbnail, caching=CACHE_ONE_HOUR)
    except (BlobMissing, Lost):
        return await blob_response(request, files, view.picture, caching=CACHE_ONE_HOUR)


@route("/api/v1/images/{image:str}/mask", http_method=["GET", "HEAD"], responses=file_responses())
async def get_mask(
    image: FromPath[ImageId], request: AnyRequest, catalog: Catalog, files: Files, min_seq: MinSeq = 0
) -> Response[Any]:
    """The mask of an image: a grey PNG of the size of the upright picture, white where it is to be trained."""
    view = await _view(catalog, image, min_seq)
    if view.mask is None:
        raise NotFound(f"the image {image!r} has no mask")
    return await blob_response(request, files, view.mask, caching=CACHE_ONE_HOUR)


@get(with_seed_path("/images/{image:str}/tags"), responses=problem_responses(404))
async def get_image_tags(image: FromPath[ImageId], catalog: Catalog, min_seq: MinSeq = 0) -> Response[ImageTags]:
    """The tags of an image, each with its source; its ETag can be used in `If-Match`."""
    view = await _view(catalog, image, min_seq)
    body = ImageTags(
        image=view.id,
        tags=tuple(tag.tag for tag in view.tags),
        details=view.tags,
        rejected=view.rejected,
        suggestions=view.suggestions,
    )
    return with_etag(body, view.etag)


@put(
    with_seed_path("/images/{image:str}/tags"),
    responses=not_shown_response(ImageResult) | problem_responses(404, 409, 412, 415, 422),
)
async def replace_image_tags(
    image: FromPath[ImageId], data: JSONBody[TagsBody], metadata: Metadata, catalog: Catalog, if_match: IfMatch = None
) -> Response[ImageResult]:
    """Replace all tags. With `If-Match`, later edits by others are merged, or 412 if that is not possible."""
    command = ReplaceTags(image=image, tags=data.tags, seen=parse_if_match(if_match))
    return ok(await catalog.command(metadata, command))


@patch(
    "/api/v1/images/{image:str}/tags", responses=not_shown_response(ImageResult) | problem_responses(404, 409, 415, 422)
)
async def edit_image_tags(
    image: FromPath[ImageId], data: JSONBody[TagsPatch], metadata: Metadata, catalog: Catalog
) -> Response[ImageResult]:
    """Add and remove tags. A removed tag counts as rejected: model predictions do not add it again."""
    command = EditTags(image=image, add=data.add, remove=data.remove, withdraw=data.withdraw)
    return ok(await catalog.command(metadata, command))


@put(
    "/api/v1/images/{image:str}/tag-order",
    responses=not_shown_response(ImageResult) | problem_responses(404, 409, 412, 415, 422),
)
async def order_image_tags(
    image: FromPath[ImageId], data: JSONBody[TagsBody], metadata: Metadata, catalog: Catalog, if_match: IfMatch = None
) -> Response[ImageResult]:
    """Set the order of the tags in captions: these first, the others after them. An empty list: the default order."""
    command = OrderTags(image=image, tags=data.tags, seen=parse_if_match(if_match))
    return ok(await catalog.command(metadata, command))


@get("/api/v1/images/{image:str}/caption", responses=problem_responses(404))
async def get_caption(image: FromPath[ImageId], catalog: Catalog, min_seq: MinSeq = 0) -> Response[ImageCaption]:
    """The text used for training: the written caption, or else the joined tags."""
    view = await _view(catalog, image, min_seq)
    return with_etag(ImageCaption(image=view.id, caption=view.caption, source=view.caption_source), view.etag)


@put(
    "/api/v1/images/{image:str}/caption",
    responses=not_shown_response(ImageResult) | problem_responses(404, 409, 412, 415, 422),
)
async def set_caption(
    image: FromPath[ImageId],
    data: JSONBody[CaptionBody],
    metadata: Metadata,
    catalog: Catalog,
    if_match: IfMatch = None,
) -> Response[ImageResult]:
    """Set the caption of an image."""
    command = SetCaption(image=image, caption=data.caption, seen=parse_if_match(if_match))
    return ok(await catalog.command(metadata, command))


@delete(
    "/api/v1/images/{image:str}/caption",
    status_code=200,
    responses=not_shown_response(ImageResult) | problem_responses(404, 409, 412),
)
async def remove_caption(
    image: FromPath[ImageId], metadata: Metadata, catalog: Catalog, if_match: IfMatch = None
) -> Response[ImageResult]:
    """Remove the written caption; the joined tags are used for training again."""
    command = SetCaption(image=image, caption=None, seen=parse_if_match(if_match))
    return ok(await catalog.command(metadata, command))


@get(with_seed_path("/tags"), responses=problem_responses(404))
async def list_tags(
    paging: Paging,
    catalog: Catalog,
    dataset: DatasetFilter = None,
    prefix: Prefix = "",
    filter: ImageFilter = None,
) -> Response[Page[TagCount]]:
    """All tags in use, or those of the images that a filter selects, most used first."""
    query = ListTags(dataset=dataset, prefix=prefix, filter=optional_filter(filter), **paging.query_args)
    return paging.response(await catalog.query(query))


async def _view(catalog: CatalogClient, image: ImageId, min_seq: int = 0) -> ImageView:
    return await catalog.query(GetImage(image=image, min_seq=min_seq))
