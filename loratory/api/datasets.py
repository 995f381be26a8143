"""Data sets and their images."""

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypedDict, Unpack

import msgspec

from contracts.commands.datasets import (
    DatasetResult,
    EditManyResult,
    ImportedFile,
    ReadTextsResult,
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
from contracts.wire.system.regular_files import FileChanged, SteadyReader, open_regular
from loratory.api.base import Api, PointInTime, SyncApi, path, sync
from loratory.export import ExportedFile, ExportOptions, export_parameters, save_export
from loratory.http import Items
from loratory.image_files import ImageFile, ScanResult, batches, scan_files, scan_folder
from loratory.responses import ErasureResult, ImportSummary, TextsPreview

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
        """How the training texts of a data set are written."""
        return await self._http.get(path("datasets", dataset, "text-settings"), TextSettingsView)

    async def set_text_settings(
        self, dataset: str, *, trigger: str = "", template: int = 1, style: TagStyle = DEFAULT_STYLE
    ) -> DatasetResult:
        """Replaces all text settings. `template`: 1, 2 or 3, as docs/texts.md says."""
        body = {"trigger": trigger, "template": template, "style": msgspec.to_builtins(style)}
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

    async def import_folder(
        self, dataset: str, folder: Path, *, read_as: ReadAs = "auto", on_progress: OnProgress | None = None
    ) -> ImportSummary:
        """All images under a folder, with texts from `.txt` and `.caption` files; `on_progress(done, total)`.

        `read_as`: what the texts are, or `auto`, as docs/texts.md says.
        """
        found = await asyncio.to_thread(scan_folder, folder)
        return await self.import_scanned(dataset, found, read_as=read_as, on_progress=on_progress)

    async def import_files(
        self, dataset: str, files: Sequence[Path], *, read_as: ReadAs = "auto", on_progress: OnProgress | None = None
    ) -> ImportSummary:
        found = await asyncio.to_thread(scan_files, files)
        return await self.import_scanned(dataset, found, read_as=read_as, on_progress=on_progress)

    async def import_scanned(
        self, dataset: str, found: ScanResult, *, read_as: ReadAs = "auto", on_progress: OnProgress | None = None
    ) -> ImportSummary:
        """Files found by `loratory.image_files`. Of equal files with different texts the first text counts."""
        files: list[ImportedFile] = []
        unreadable = list(found.unreadable)
        once = _TextsOnce(unreadable)
        for batch in batches(found.images):
            files += await self._upload(dataset, await asyncio.to_thread(once.keep, batch), read_as, unreadable)
            if on_progress:
                on_progress(len(files), len(found.images))
        return ImportSummary(
            files=tuple(files),
            other_files=found.other_files,
            outside_links=found.outside_links,
            unmatched=tuple(found.unmatched),
            unreadable=tuple(unreadable),
        )

    async def _upload(
        self, dataset: str, batch: list[ImageFile], read_as: ReadAs, unreadable: list[tuple[str, str]]
    ) -> Sequence[ImportedFile]:
        """One request. Files that cannot be read, or change meanwhile, are added to `unreadable` and skipped."""
        try:
            return await self._upload_unchanged(dataset, batch, read_as, unreadable)
        except FileChanged as error:
            unreadable += [(image.name, error.strerror) for image in batch if str(image.path) == error.filename]
            others = [image for image in batch if str(image.path) != error.filename]
            return await self._upload(dataset, others, read_as, unreadable)

    async def _upload_unchanged(
        self, dataset: str, batch: list[ImageFile], read_as: ReadAs, unreadable: list[tuple[str, str]]
    ) -> Sequence[ImportedFile]:
        """One request. FileChanged: a file shrank, so the request was not completed."""
        parts: list[tuple[str, tuple[str, SteadyReader]]] = []
        texts: dict[str, str] = {}
        with ExitStack() as opened:
            for image in batch:
                try:
                    source = opened.enter_context(open_regular(image.path))
                    if source.size != image.size:
                        raise FileChanged(0, "it changed while it was read")
                    parts.append(("files", (image.name, source)))
                except OSError as error:
                    unreadable.append((image.name, error.strerror or "it cannot be read"))
                    continue
                if image.text is not None:
                    texts[image.name] = image.text
            if not parts:
                return ()

            def body() -> dict[str, Any]:
                for _, (_, source) in parts:
                    source.seek(0)
                form = {"texts": msgspec.json.encode(texts).decode(), "read_as": read_as} if texts else {}
                return {"files": parts, "data": form}

            return (await self._http.post(path("datasets", dataset, "images"), Items[ImportedFile], body)).items

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
    import_folder = sync(DatasetApi.import_folder)
    import_files = sync(DatasetApi.import_files)
    import_scanned = sync(DatasetApi.import_scanned)
    erase_image = sync(DatasetApi.erase_image)
    erase_dataset = sync(DatasetApi.erase_dataset)


@dataclass
class _TextsOnce:
    """Of equal files of one import, however many requests it takes, the first text counts; others are noted."""

    unreadable: list[tuple[str, str]]
    _first: dict[bytes, ImageFile] = field(default_factory=dict)

    def keep(self, batch: Sequence[ImageFile]) -> list[ImageFile]:
        return [image if image.text is None else self._keep(image) for image in batch]

    def _keep(self, image: ImageFile) -> ImageFile:
        try:
            digest = _digest_of(image.path)
        except OSError:
            return image  # it is named when it is to be sent
        first = self._first.setdefault(digest, image)
        if first.text == image.text:
            return image
        reason = f"its text differs from that of {first.name}, which is the same picture and counts"
        self.unreadable.append((image.name, reason))
        return replace(image, text=None)


def _digest_of(path: Path) -> bytes:
    digest = hashlib.sha256()
    with open_regular(path) as content:
        while chunk := content.read(1 << 20):
            digest.update(chunk)
    return digest.digest()
