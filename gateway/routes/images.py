"""Images, their bytes, tags and captions. Also under the tagging seed's addresses (`/api/images/…`, `/api/tags/`)."""

from typing import Annotated, Any

from litestar import Request, Response, delete, get, patch, put, route
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody, QueryParameter

from contracts import commands, queries
from contracts.commands import Origin, Receipt
from contracts.ids import ImageId
from contracts.queries import History, ImageView, Page, TagCount
from contracts.wire.blobs import Blobs
from gateway.http.answers import builtins, done, listed, narrated, viewed
from gateway.http.asking import IfMatch, Listing, MinSeq, Moment, seen
from gateway.http.files import AN_HOUR, blob_answer, file_answers
from gateway.http.problems import problems
from gateway.owners import Catalog
from gateway.routes.bodies import CaptionBody, ImageCaption, ImageTags, TagsBody, TagsPatch
from gateway.routes.datasets import Prefix, TagFilter

DatasetFilter = Annotated[str | None, QueryParameter(max_length=200, description="Only of this data set (name or id).")]
Original = Annotated[
    bool, QueryParameter(description="The bytes as they were uploaded, as an attachment, instead of the clean picture.")
]


def both(path: str) -> list[str]:
    """Our address and the tagging seed's."""
    return [f"/api/v1{path}", f"/api{path}"]


@get(both("/images"), responses=problems(404))
async def list_images(
    request: Request[Any, Any, Any],
    page: NamedDependency[Listing],
    catalog: NamedDependency[Catalog],
    dataset: DatasetFilter = None,
    tag: TagFilter = None,
) -> Response[Page[ImageView]]:
    """All images, or those of one data set, or with one tag."""
    return listed(request, await catalog.ask(queries.ListImages(dataset=dataset, tag=tag, **page.asked)))


@get(both("/images/{image:str}"), responses=problems(404))
async def get_image(
    image: FromPath[str], catalog: NamedDependency[Catalog], at: NamedDependency[Moment]
) -> Response[ImageView]:
    """One image with its tags, where they come from, its caption and its digests.

    With `at_seq` or `at_time` it is the image as it was then.
    """
    view = await catalog.ask(queries.GetImage(image=ImageId(image), **at.asked))
    return viewed(view, view.etag)


@get("/api/v1/images/{image:str}/history", responses=problems(404))
async def get_image_history(
    image: FromPath[str],
    request: Request[Any, Any, Any],
    page: NamedDependency[Listing],
    catalog: NamedDependency[Catalog],
) -> Response[History]:
    """The story of an image, oldest first: who tagged, captioned or removed it, what models saw, when and why.

    A search is bounded: a piece may have few items, even none, and yet a `next`.
    """
    return narrated(request, await catalog.ask(queries.ListImageHistory(image=ImageId(image), **page.asked)))


@delete("/api/v1/images/{image:str}", status_code=200, responses=problems(404, 409))
async def remove_image(
    image: FromPath[str], origin: NamedDependency[Origin], catalog: NamedDependency[Catalog]
) -> Response[Receipt]:
    """Take an image out of its data set. Versions that hold it stay as they are."""
    return done(await catalog.tell(origin, commands.RemoveImage(image=ImageId(image))))


@route(both("/images/{image:str}/file"), http_method=["GET", "HEAD"], responses=file_answers())
async def get_image_file(
    image: FromPath[str],
    request: Request[Any, Any, Any],
    catalog: NamedDependency[Catalog],
    blobs: NamedDependency[Blobs],
    original: Original = False,
) -> Response[Any]:
    """The picture: upright, sRGB, 8 bits, without metadata."""
    view = await _view(catalog, image)
    if original:
        return await blob_answer(request, blobs, view.source, attach=view.name, keep=AN_HOUR)
    return await blob_answer(request, blobs, view.picture, keep=AN_HOUR)


@route("/api/v1/images/{image:str}/thumbnail", http_method=["GET", "HEAD"], responses=file_answers())
async def get_thumbnail(
    image: FromPath[str],
    request: Request[Any, Any, Any],
    catalog: NamedDependency[Catalog],
    blobs: NamedDependency[Blobs],
) -> Response[Any]:
    """The picture made small."""
    return await blob_answer(request, blobs, (await _view(catalog, image)).thumbnail, keep=AN_HOUR)


@get(both("/images/{image:str}/tags"), responses=problems(404))
async def get_image_tags(
    image: FromPath[str], catalog: NamedDependency[Catalog], min_seq: MinSeq = 0
) -> Response[ImageTags]:
    """The tags of an image, each with where it comes from; its ETag is what `If-Match` takes."""
    view = await _view(catalog, image, min_seq)
    body = ImageTags(
        image=view.id,
        tags=tuple(tag.tag for tag in view.tags),
        details=builtins(view.tags),
        rejected=view.rejected,
        suggestions=builtins(view.suggestions),
    )
    return viewed(body, view.etag)


@put(both("/images/{image:str}/tags"), responses=problems(404, 409, 412, 415, 422))
async def replace_image_tags(
    image: FromPath[str],
    data: JSONBody[TagsBody],
    origin: NamedDependency[Origin],
    catalog: NamedDependency[Catalog],
    if_match: IfMatch = None,
) -> Response[Receipt]:
    """Say what all the tags are. With `If-Match`, edits that others made since are merged, or 412."""
    wish = commands.ReplaceTags(image=ImageId(image), tags=data.tags, seen=seen(if_match))
    return done(await catalog.tell(origin, wish))


@patch("/api/v1/images/{image:str}/tags", responses=problems(404, 409, 415, 422))
async def edit_image_tags(
    image: FromPath[str],
    data: JSONBody[TagsPatch],
    origin: NamedDependency[Origin],
    catalog: NamedDependency[Catalog],
) -> Response[Receipt]:
    """Add and remove tags. A removed tag is rejected: no model brings it back."""
    wish = commands.EditTags(image=ImageId(image), add=data.add, remove=data.remove)
    return done(await catalog.tell(origin, wish))


@get("/api/v1/images/{image:str}/caption", responses=problems(404))
async def get_caption(
    image: FromPath[str], catalog: NamedDependency[Catalog], min_seq: MinSeq = 0
) -> Response[ImageCaption]:
    """What the trainer reads: the written caption, else the tags joined."""
    view = await _view(catalog, image, min_seq)
    return viewed(ImageCaption(image=view.id, caption=view.caption, source=view.caption_source), view.etag)


@put("/api/v1/images/{image:str}/caption", responses=problems(404, 409, 412, 415, 422))
async def set_caption(
    image: FromPath[str],
    data: JSONBody[CaptionBody],
    origin: NamedDependency[Origin],
    catalog: NamedDependency[Catalog],
    if_match: IfMatch = None,
) -> Response[Receipt]:
    """Write the caption of an image."""
    wish = commands.SetCaption(image=ImageId(image), caption=data.caption, seen=seen(if_match))
    return done(await catalog.tell(origin, wish))


@delete("/api/v1/images/{image:str}/caption", status_code=200, responses=problems(404, 409, 412))
async def remove_caption(
    image: FromPath[str],
    origin: NamedDependency[Origin],
    catalog: NamedDependency[Catalog],
    if_match: IfMatch = None,
) -> Response[Receipt]:
    """Take the written caption back: the trainer reads the tags again."""
    wish = commands.SetCaption(image=ImageId(image), caption=None, seen=seen(if_match))
    return done(await catalog.tell(origin, wish))


@get(both("/tags"), responses=problems(404))
async def list_tags(
    request: Request[Any, Any, Any],
    page: NamedDependency[Listing],
    catalog: NamedDependency[Catalog],
    dataset: DatasetFilter = None,
    prefix: Prefix = "",
) -> Response[Page[TagCount]]:
    """All tags in use, most used first."""
    return listed(request, await catalog.ask(queries.ListTags(dataset=dataset, prefix=prefix, **page.asked)))


async def _view(catalog: Catalog, image: str, min_seq: int = 0) -> ImageView:
    return await catalog.ask(queries.GetImage(image=ImageId(image), min_seq=min_seq))


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
"""With their full addresses: they belong to no one router."""
