"""Data sets and their images."""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypedDict, Unpack

import msgspec

from contracts.commands.datasets import (
    DatasetResult,
    EditManyResult,
    ImportedFile,
    ReadTextsResult,
    RepeatsResult,
    ReviewResult,
    VersionResult,
)
from contracts.errors import NotFound
from contracts.events.base import ReadAs
from contracts.queries.datasets import (
    DatasetView,
    EditPreview,
    ImageChange,
    ImageView,
    TagCount,
    TextSettingsView,
    VersionView,
)
from contracts.tag_style import DEFAULT_STYLE, TagStyle
from loratory.api.base import Api, PointInTime, SyncApi, path, sync
from loratory.api.uploads import FirstTexts, Uploads
from loratory.export import ExportedFile, ExportOptions, export_parameters, save_export
from loratory.folders.result import LINK_OUTSIDE, ScanResult
from loratory.http import Items
from loratory.image_files import batches, scan_archive, scan_files, scan_folder
from loratory.responses import ErasureResult, ImportSummary, TextsPreview
from loratory.write_texts import WritingOptions, WrittenTexts, write_texts

OnProgress = Callable[[int, int], None]
"""Called with the number of files sent and of all files."""


class TagsOfMany(TypedDict, total=False):
    """An edit of many images: ids, or a filter, or without both all; and the tags."""

    images: Sequence[str] | None
    filter: str | None
    add: Sequence[str]
    remove: Sequence[str]
    withdraw: Sequence[str]


def _selection(images: Sequence[str] | None, filter: str | None) -> dict[str, Any]:
    return {"all": True} if images is None and filter is None else {"images": images, "filter": filter}


def _edit(edit: TagsOfMany) -> dict[str, Any]:
    lists = {name: edit.get(name, ()) for name in ("add", "remove", "withdraw")}
    return _selection(edit.get("images"), edit.get("filter")) | lists


class DatasetApi(Api):
    async def datasets(self) -> list[DatasetView]:
        return [view async for view in self._http.items(path("datasets"), Items[DatasetView])]

    async def dataset(self, dataset: str, **at: Unpack[PointInTime]) -> DatasetView:
        """By name or id; with a log sequence or a time: its state at that point."""
        return await self._http.get(path("datasets", dataset), DatasetView, **at)

    async def create_dataset(self, name: str, description: str = "", *, key: str | None = None) -> DatasetResult:
        body = {"name": name, "description": description}
        return await self._http.post(path("datasets"), DatasetResult, lambda: {"json": body}, key=key)

    async def set_thresholds(self, dataset: str, *, general: float, character: float) -> DatasetResult:
        """Predictions above these probabilities become tags; no model is run again."""
        body = {"general": general, "character": character}
        return await self._http.put(path("datasets", dataset, "thresholds"), DatasetResult, lambda: {"json": body})

    async def text_settings(self, dataset: str) -> TextSettingsView:
        """How the training texts of a data set are written, and how imported texts are read."""
        return await self._http.get(path("datasets", dataset, "text-settings"), TextSettingsView)

    async def set_text_settings(
        self,
        dataset: str,
        *,
        trigger: str = "",
        template: int = 1,
        style: TagStyle = DEFAULT_STYLE,
        read_as: ReadAs = "auto",
    ) -> DatasetResult:
        """Replaces all text settings. `template`: 1, 2 or 3, as docs/texts.md says.

        `read_as`: what texts are in later imports that do not say so; `read_texts` reads those that are there again.
        """
        body = {"trigger": trigger, "template": template, "style": msgspec.to_builtins(style), "read_as": read_as}
        return await self._http.put(path("datasets", dataset, "text-settings"), DatasetResult, lambda: {"json": body})

    async def ensure_dataset(self, name: str) -> DatasetView:
        """The data set with this name, created if it does not exist."""
        try:
            return await self.dataset(name)
        except NotFound:
            await self.create_dataset(name)
            return await self.dataset(name)

    async def images(
        self, dataset: str, *, filter: str | None = None, sort: str | None = None, **at: Unpack[PointInTime]
    ) -> list[ImageView]:
        """Those that a filter selects (`1girl -solo aspect>1.5`), in a sort order (`name`, `-changed`, `conf:hat`).

        Or all that it had at another time, in the order of import.
        """
        pages = self._http.items(path("datasets", dataset, "images"), Items[ImageView], filter=filter, sort=sort, **at)
        return [view async for view in pages]

    async def review(
        self,
        dataset: str,
        *,
        images: Sequence[str] | None = None,
        filter: str | None = None,
        reviewed: bool = True,
        key: str | None = None,
    ) -> ReviewResult:
        """Mark images, those that a filter selects, or without both all as reviewed, or as not reviewed."""
        body = _selection(images, filter) | {"reviewed": reviewed}
        return await self._http.post(
            path("datasets", dataset, "reviewed"), ReviewResult, lambda: {"json": body}, key=key
        )

    async def set_repeats(
        self, dataset: str, repeats: int, *, images: Sequence[str] | None = None, filter: str | None = None
    ) -> RepeatsResult:
        """Set how often images, those that a filter selects, or without both all are seen in an epoch."""
        body = _selection(images, filter) | {"repeats": repeats}
        place = path("datasets", dataset, "repeats")
        return await self._http.put(place, RepeatsResult, lambda: {"json": body})

    async def preview_edit(self, dataset: str, **edit: Unpack[TagsOfMany]) -> EditPreview:
        """What `edit_many` would change."""
        body = _edit(edit)
        return await self._http.post(path("datasets", dataset, "edits", "preview"), EditPreview, lambda: {"json": body})

    async def edit_many(
        self, dataset: str, *, as_of: int | None = None, key: str | None = None, **edit: Unpack[TagsOfMany]
    ) -> EditManyResult:
        """Add, remove and withdraw tags of images, of those that a filter selects, or without both of all.

        `as_of`: that of a preview. Conflict: an image of the data set has changed since.
        """
        body = _edit(edit) | {"as_of": as_of}
        return await self._http.post(
            path("datasets", dataset, "edits"), EditManyResult, lambda: {"json": body}, key=key
        )

    async def preview_texts(
        self, dataset: str, read_as: ReadAs, *, images: Sequence[str] | None = None, filter: str | None = None
    ) -> TextsPreview:
        """What `read_texts` would do."""
        body = _selection(images, filter) | {"read_as": read_as}
        place = path("datasets", dataset, "texts", "read", "preview")
        return await self._http.post(place, TextsPreview, lambda: {"json": body})

    async def read_texts(
        self,
        dataset: str,
        read_as: ReadAs,
        *,
        images: Sequence[str] | None = None,
        filter: str | None = None,
        key: str | None = None,
    ) -> ReadTextsResult:
        """Read the texts that came with images another way: of these, of those that a filter selects, or of all.

        Many take a while; interrupted, it goes on when it is repeated.
        """
        body = _selection(images, filter) | {"read_as": read_as}
        return await self._http.post(
            path("datasets", dataset, "texts", "read"), ReadTextsResult, lambda: {"json": body}, key=key
        )

    async def image(self, image: str, **at: Unpack[PointInTime]) -> ImageView:
        """With a log sequence or a time: its state at that point."""
        return await self._http.get(path("images", image), ImageView, **at)

    async def picture(self, image: str) -> bytes:
        """The image as used for training: upright, sRGB, 8 bits, without metadata."""
        return await self._http.content(path("images", image, "file"))

    async def tags(self, dataset: str) -> list[TagCount]:
        return [view async for view in self._http.items(path("datasets", dataset, "tags"), Items[TagCount])]

    async def versions(self, dataset: str) -> list[VersionView]:
        """The frozen versions of a data set, oldest first."""
        return [view async for view in self._http.items(path("datasets", dataset, "versions"), Items[VersionView])]

    async def freeze(self, dataset: str, trigger: str | None = None, *, key: str | None = None) -> VersionResult:
        """Freeze a data set as it is now; the latest version if nothing has changed since.

        `trigger`: none = that of the data set, empty = no trigger.
        """
        body = {"trigger": trigger}
        return await self._http.post(
            path("datasets", dataset, "versions"), VersionResult, lambda: {"json": body}, key=key
        )

    async def version_diff(self, dataset: str, version: int, since: int) -> list[ImageChange]:
        """The images that were added, removed or changed in a version since another one."""
        place = path("datasets", dataset, "versions", str(version), "diff")
        query: dict[str, Any] = {"from": since}
        return [change async for change in self._http.items(place, Items[ImageChange], **query)]

    async def export(
        self,
        dataset: str,
        to: Path,
        *,
        version: int | None = None,
        force: bool = False,
        on_progress: Callable[[int], None] = lambda _received: None,
        **options: Unpack[ExportOptions],
    ) -> ExportedFile:
        """Save a data set, or a frozen version of it, for other programs; `on_progress(bytes)`.

        `to`: a file, or an existing folder. An existing file is replaced only with `force`.
        """
        of_version = () if version is None else ("versions", str(version))
        place = path("datasets", dataset, *of_version, "export")
        parameters = export_parameters(options)
        return await save_export(self._http, place, to, parameters, force=force, on_progress=on_progress)

    async def write_texts(self, dataset: str, folder: Path, **options: Unpack[WritingOptions]) -> WrittenTexts:
        """Write the training texts, without trigger, beside the pictures of a folder that it was imported from.

        A text file that was changed since it was imported is left as it is.
        """
        return await write_texts(self._http, path("datasets", dataset), folder, options)

    async def import_folder(
        self, dataset: str, folder: Path, *, read_as: ReadAs | None = None, on_progress: OnProgress | None = None
    ) -> ImportSummary:
        """All images under a folder, with what docs/texts.md says of texts beside them; `on_progress(done, total)`.

        `read_as`: what the texts are, or `auto`; if not given, as the text settings of the data set say.
        """
        found = await asyncio.to_thread(scan_folder, folder)
        return await self.import_scanned(dataset, found, read_as=read_as, on_progress=on_progress)

    async def import_archive(
        self, dataset: str, file: Path, *, read_as: ReadAs | None = None, on_progress: OnProgress | None = None
    ) -> ImportSummary:
        """As `import_folder`, of a zip file, which is not unpacked."""
        found = await asyncio.to_thread(scan_archive, file)
        return await self.import_scanned(dataset, found, read_as=read_as, on_progress=on_progress)

    async def import_files(
        self,
        dataset: str,
        files: Sequence[Path],
        *,
        read_as: ReadAs | None = None,
        on_progress: OnProgress | None = None,
    ) -> ImportSummary:
        found = await asyncio.to_thread(scan_files, files)
        return await self.import_scanned(dataset, found, read_as=read_as, on_progress=on_progress)

    async def import_scanned(
        self,
        dataset: str,
        found: ScanResult,
        *,
        read_as: ReadAs | None = None,
        once: FirstTexts | None = None,
        on_progress: OnProgress | None = None,
    ) -> ImportSummary:
        """Files found by `loratory.image_files`. Of equal files with different texts the first text counts.

        `once` remembers the first ones of several imports of one folder.
        """
        files: list[ImportedFile] = []
        uploads = Uploads(
            self._http,
            path("datasets", dataset, "images"),
            read_as,
            list(found.unreadable),
            once or FirstTexts(),
            read_as or (await self.text_settings(dataset)).read_as,
        )
        for batch in batches(found.images):
            files += await uploads.send(batch)
            if on_progress:
                on_progress(len(files), len(found.images))
        return ImportSummary(
            files=tuple(files),
            other_files=found.other_files,
            others=(*found.others, *((name, LINK_OUTSIDE) for name in found.links)),
            outside_links=found.outside_links,
            unmatched=tuple(found.unmatched),
            unreadable=tuple(uploads.unreadable),
            notes=tuple(found.notes),
        )

    async def erase_image(self, image: str, *, key: str | None = None) -> ErasureResult:
        """Permanently erase its bytes, file name and caption everywhere. Irreversible."""
        return await self._http.post_until_shown(path("images", image, "erase"), ErasureResult, key=key)

    async def erase_dataset(self, dataset: str, *, key: str | None = None) -> ErasureResult:
        """Permanently erase all images a data set ever contained; by name or id."""
        return await self._http.post_until_shown(path("datasets", dataset, "erase"), ErasureResult, key=key)


class SyncDatasetApi(SyncApi):
    datasets = sync(DatasetApi.datasets)
    dataset = sync(DatasetApi.dataset)
    create_dataset = sync(DatasetApi.create_dataset)
    set_thresholds = sync(DatasetApi.set_thresholds)
    text_settings = sync(DatasetApi.text_settings)
    set_text_settings = sync(DatasetApi.set_text_settings)
    ensure_dataset = sync(DatasetApi.ensure_dataset)
    images = sync(DatasetApi.images)
    review = sync(DatasetApi.review)
    set_repeats = sync(DatasetApi.set_repeats)
    preview_edit = sync(DatasetApi.preview_edit)
    edit_many = sync(DatasetApi.edit_many)
    preview_texts = sync(DatasetApi.preview_texts)
    read_texts = sync(DatasetApi.read_texts)
    image = sync(DatasetApi.image)
    picture = sync(DatasetApi.picture)
    tags = sync(DatasetApi.tags)
    versions = sync(DatasetApi.versions)
    freeze = sync(DatasetApi.freeze)
    version_diff = sync(DatasetApi.version_diff)
    export = sync(DatasetApi.export)
    write_texts = sync(DatasetApi.write_texts)
    import_folder = sync(DatasetApi.import_folder)
    import_archive = sync(DatasetApi.import_archive)
    import_files = sync(DatasetApi.import_files)
    import_scanned = sync(DatasetApi.import_scanned)
    erase_image = sync(DatasetApi.erase_image)
    erase_dataset = sync(DatasetApi.erase_dataset)
