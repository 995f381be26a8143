"""Exports of data sets and versions, for other programs."""

from dataclasses import dataclass
from typing import Annotated, Any, TypeAlias

import msgspec
from litestar import Response, get
from litestar.di import NamedDependency, Provide
from litestar.params import FromPath, QueryParameter

from contracts.errors import Invalid, Rejected
from contracts.queries.datasets import GetDataset, GetTextSettings, GetVersion
from contracts.queries.exports import ReadExport
from contracts.tags import canonicalize
from gateway.exports.file_names import safe_name
from gateway.exports.layout import Format, Kohya, Layout, Origin
from gateway.exports.overlay import Overlay, Words, parse_replacements
from gateway.exports.plan import Plan
from gateway.exports.running import Exports
from gateway.http.files import content_disposition, etag_matches
from gateway.http.problems import problem_responses, response_spec
from gateway.http.request_context import MinSeq
from gateway.http.stall_timeout import stream_response
from gateway.routes.shared import AnyRequest, Catalog, ImageFilter, optional_filter

ZIP, LINES = "application/zip", "application/x-ndjson"
AS_OF_HEADER = "Loratory-As-Of"
MAX_CHANGED_TAGS = 1000
OWN_STYLE = "Default: as in the text settings."
MAX_CLASS_CHARACTERS = 100

ExportFormat = Annotated[
    Format,
    QueryParameter(
        description=(
            "`kohya`: a zip file with a folder `N_class` of pictures with `.txt` files for each N, and `dataset.toml` "
            "for sd-scripts; `flat`: the pictures and `.txt` files alone; `imagefolder`: pictures and "
            "`metadata.jsonl`, for Hugging Face Datasets; `manifest`: no pictures, but one line of JSON per image. "
            "Masks are beside their pictures, as `NAME-masklabel.png`."
        ),
    ),
]
Repeats = Annotated[
    int | None, QueryParameter(ge=1, le=10_000, description="Kohya's N, times the repeats of each image. Default: 1.")
]
ClassTokens = Annotated[
    str | None, QueryParameter(name="class", description="Kohya's class. Default: the name of the data set.")
]
TriggerText = Annotated[
    str | None,
    QueryParameter(max_length=100, description="Default: that of the version or the data set; empty: none."),
]
ExcludedTags = Annotated[
    list[str] | None,
    QueryParameter(max_items=MAX_CHANGED_TAGS, description="A tag that is left out; several times for more."),
]
ReplacedTags = Annotated[
    list[str] | None,
    QueryParameter(
        max_items=MAX_CHANGED_TAGS, description="`old=new`: a tag that another one replaces; several times for more."
    ),
]
Escape = Annotated[
    bool | None,
    QueryParameter(
        description=f"Write parentheses in tags as in prompts: `name \\(series\\)`. {OWN_STYLE}",
    ),
]
Separator = Annotated[
    str | None, QueryParameter(min_length=1, max_length=10, description=f"Between two tags. {OWN_STYLE}")
]
WordStyle = Annotated[Words | None, QueryParameter(description=f"How tags of several words are written. {OWN_STYLE}")]


@dataclass(frozen=True)
class ExportRequest:
    """The parameters that all exports share."""

    format: Format
    repeats: int | None
    class_tokens: str | None
    overlay: Overlay
    filter: str | None

    def plan(self, origin: Origin, trigger: str) -> Plan:
        """An empty plan; `trigger`: that of a version or a data set."""
        overlay, layout = self.overlay, Layout(format=self.format)
        if self.format == "kohya":
            class_tokens = self.class_tokens or safe_name(origin.dataset) or "images"
            layout = Layout(format="kohya", kohya=Kohya(repeats=self.repeats or 1, class_tokens=class_tokens))
        own = overlay.trigger
        return Plan(layout=layout, origin=origin, overlay=overlay, trigger=trigger if own is None else own)


Exported: TypeAlias = NamedDependency[ExportRequest]
Exporting: TypeAlias = NamedDependency[Exports]


async def export_request(  # noqa: PLR0913, PLR0917 - the parameters of an export
    format: ExportFormat = "kohya",
    repeats: Repeats = None,
    class_: ClassTokens = None,
    trigger: TriggerText = None,
    exclude: ExcludedTags = None,
    replace: ReplacedTags = None,
    escape: Escape = None,
    separator: Separator = None,
    words: WordStyle = None,
    filter: ImageFilter = None,
) -> ExportRequest:
    """Invalid, Rejected: a parameter is malformed, or has no meaning in this format."""
    if format != "kohya" and (repeats is not None or class_ is not None):
        raise Invalid(f"repeats and class are kohya's; the format {format} has neither")
    for name, text in (("class", class_), ("trigger", trigger), ("separator", separator)):
        if not (text or "").isprintable():
            raise Invalid(f"{name} is text in one line, without control characters")
    if class_ is not None and not (len(class_) <= MAX_CLASS_CHARACTERS and safe_name(class_)):
        raise Rejected(f"the class is part of a folder's name, and has at most {MAX_CLASS_CHARACTERS} characters")
    overlay = Overlay(
        trigger=None if trigger is None else trigger.strip(),
        exclude=tuple(map(canonicalize, exclude or ())),
        replace=parse_replacements(replace or ()),
        escape=escape,
        separator=separator,
        words=words,
    )
    return ExportRequest(format, repeats, class_, overlay, filter)


EXPORT_OPTIONS: dict[str, Any] = {
    "dependencies": {"exported": Provide(export_request)},
    "responses": (
        response_spec(200, bytes, "The export", ZIP)
        | response_spec(304, None, "Not modified")
        | problem_responses(404, 409, 413)
    ),
}


@get("/datasets/{dataset:str}/export", **EXPORT_OPTIONS)
async def export_dataset(  # noqa: PLR0913, PLR0917 - what an export is made of
    dataset: FromPath[str],
    request: AnyRequest,
    catalog: Catalog,
    exports: Exporting,
    exported: Exported,
    min_seq: MinSeq = 0,
) -> Response[Any]:
    """Export a data set, or those of its images that a filter selects, for other programs: as a zip file.

    Equal content gives equal bytes. The texts are those that are trained, unless parameters change them, in the
    exported files only. Images are in the order of import, each as it is when it is read; all are read before the first
    byte is sent. Pictures are as stored, but upright: a JPEG that keeps an orientation is turned, as other programs
    ignore it. `export.json` says as of which sequence (`Loratory-As-Of`), and which images were left out because
    they were erased. 409 `blob-missing` if a picture is missing; one that is lost later ends the file before its end.
    """
    filter_, is_manifest = optional_filter(exported.filter), exported.format == "manifest"
    query = ReadExport(dataset=dataset, filter=filter_, received=is_manifest, min_seq=min_seq)
    view = await catalog.query(GetDataset(dataset=dataset, min_seq=min_seq))
    origin = Origin(dataset=view.name, dataset_id=view.id, filter=exported.filter, as_of=view.etag, until=view.etag)
    settings = await catalog.query(GetTextSettings(dataset=view.id, min_seq=min_seq))
    plan = exported.plan(origin, settings.trigger)
    await exports.read(plan, query)
    until = (await catalog.query(GetDataset(dataset=dataset, min_seq=min_seq))).etag
    plan.origin = msgspec.structs.replace(origin, until=until)
    return _response(request, exports, plan)


@get("/datasets/{dataset:str}/versions/{version:int}/export", **EXPORT_OPTIONS)
async def export_version(  # noqa: PLR0913, PLR0917 - what an export is made of
    dataset: FromPath[str],
    version: FromPath[int],
    request: AnyRequest,
    catalog: Catalog,
    exports: Exporting,
    exported: Exported,
    min_seq: MinSeq = 0,
) -> Response[Any]:
    """Export a frozen version, as a data set is exported, with its trigger; without the images erased since."""
    if exported.filter is not None:
        raise Invalid("a version is exported as a whole; a filter selects images of the data set")
    view = await catalog.query(GetVersion(dataset=dataset, version=version, min_seq=min_seq))
    origin = Origin(
        dataset=view.dataset, dataset_id=view.dataset_id, version=version, as_of=view.as_of, until=view.as_of
    )
    plan = exported.plan(origin, view.trigger)
    await exports.read(plan, ReadExport(dataset=dataset, version=version, min_seq=min_seq))
    return _response(request, exports, plan)


def _response(request: AnyRequest, exports: Exports, plan: Plan) -> Response[Any]:
    """304 if the client has it. The ETag is weak: of an image that is erased meanwhile nothing is sent."""
    headers = {"ETag": f'W/"{plan.etag}"', AS_OF_HEADER: str(plan.origin.as_of)}
    if etag_matches(request.headers.get("if-none-match"), f'"{plan.etag}"'):
        return Response(b"", status_code=304, headers=headers)
    is_manifest = plan.layout.format == "manifest"
    response = stream_response(request, exports.stream(plan), LINES if is_manifest else ZIP)
    headers["Content-Disposition"] = content_disposition(_file_name(plan))
    response.headers.update(headers)
    return response


def _file_name(plan: Plan) -> str:
    version = "" if plan.origin.version is None else f"-v{plan.origin.version}"
    name = f"{safe_name(plan.origin.dataset) or 'dataset'}{version}"
    return f"{name}.jsonl" if plan.layout.format == "manifest" else f"{name}-{plan.layout.format}.zip"
