"""Sending the pictures of an import, each with its texts, its repeats and its mask."""

import asyncio
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from contracts.commands.datasets import ImportedFile
from contracts.events.base import ReadAs
from contracts.wire.system.regular_files import FileChanged
from loratory.folders.archive import DamagedMember
from loratory.folders.files import Reader, Source
from loratory.folders.result import ImageFile
from loratory.folders.scan import digest_of
from loratory.folders.texts import NO_TEXTS, to_send
from loratory.http import Http, Items

Part = tuple[str, tuple[str, Reader]]


@dataclass
class FirstTexts:
    """Of equal files of a folder, however many requests and looks it takes, the first text counts."""

    _by_digest: dict[str, ImageFile] = field(default_factory=dict)

    def keep(self, image: ImageFile, unreadable: list[tuple[str, str]]) -> ImageFile:
        """Without its texts, and named in `unreadable`, if an equal file came with others."""
        if image.texts == NO_TEXTS:
            return image
        try:
            digest = image.digest or digest_of(image.source)
        except OSError:
            return image  # it is named when it is to be sent
        first = self._by_digest.get(digest)
        if first is None or first.path == image.path or first.is_gone:
            self._by_digest[digest] = image
        elif first.texts != image.texts:
            reason = f"its text differs from that of {first.name}, which is the same picture and counts"
            unreadable.append((image.name, reason))
            return replace(image, texts=NO_TEXTS)
        return image


@dataclass
class Uploads:
    """The requests of one import. `unreadable`: name and reason of what was not sent, or not used.

    `read_as` none: texts are read as the data set's settings say, which are `default`.
    """

    http: Http
    path: str
    read_as: ReadAs | None
    unreadable: list[tuple[str, str]]
    first: FirstTexts = field(default_factory=FirstTexts)
    default: ReadAs = "auto"

    async def send(self, batch: Sequence[ImageFile]) -> Sequence[ImportedFile]:
        """One request, and another one where a file turns out to be broken, without it."""
        return await self._send(await asyncio.to_thread(self._with_texts_to_send, batch))

    def _with_texts_to_send(self, batch: Sequence[ImageFile]) -> list[ImageFile]:
        texts = (replace(image, texts=to_send(image.texts, self.read_as or self.default)) for image in batch)
        return [self.first.keep(image, self.unreadable) for image in texts]

    async def _send(self, batch: Sequence[ImageFile]) -> Sequence[ImportedFile]:
        try:
            return await self._post(batch)
        except (FileChanged, DamagedMember) as error:
            return await self._send(self._without(batch, error.filename, error.strerror))

    def _without(self, batch: Sequence[ImageFile], label: str, reason: str) -> list[ImageFile]:
        self.unreadable += [(image.name, reason) for image in batch if image.source.label == label]
        rest = [image for image in batch if image.source.label != label]
        return [self._without_mask(image, reason) if _label(image.mask) == label else image for image in rest]

    def _without_mask(self, image: ImageFile, reason: str) -> ImageFile:
        self.unreadable.append((_label(image.mask), f"{reason}, so {image.name} has no mask"))
        return replace(image, mask=None)

    async def _post(self, batch: Sequence[ImageFile]) -> Sequence[ImportedFile]:
        """One request. FileChanged, DamagedMember: a file is not what it was, so the request was not completed."""
        with ExitStack() as opened:
            sent, parts = self._open(batch, opened)
            if not sent:
                return ()
            form = _form(sent, self.read_as)

            def body() -> dict[str, Any]:
                for _, (_, source) in parts:
                    source.seek(0)
                return {"files": parts, "data": form}

            return (await self.http.post(self.path, Items[ImportedFile], body)).items

    def _open(self, batch: Sequence[ImageFile], opened: ExitStack) -> tuple[list[ImageFile], list[Part]]:
        """The pictures that can be opened, and the parts of the form with them and their masks."""
        sent: list[ImageFile] = []
        parts: list[Part] = []
        for image in batch:
            try:
                parts.append(("files", (image.name, opened.enter_context(image.source.open()))))
            except OSError as error:
                self.unreadable.append((image.name, error.strerror or "it cannot be read"))
                continue
            sent.append(self._with_mask(image, parts, opened))
        return sent, parts

    def _with_mask(self, image: ImageFile, parts: list[Part], opened: ExitStack) -> ImageFile:
        """Its mask has the name of the picture, by which they belong together."""
        if image.mask is None:
            return image
        try:
            parts.append(("masks", (image.name, opened.enter_context(image.mask.open()))))
        except OSError as error:
            return self._without_mask(image, error.strerror or "it cannot be read")
        return image


def _form(batch: Sequence[ImageFile], read_as: ReadAs | None) -> dict[str, str]:
    """The fields of the form with a value for each file."""
    fields: dict[str, dict[str, Any]] = {
        "texts": {image.name: image.texts.text for image in batch if image.texts.text is not None},
        "captions": {image.name: image.texts.caption for image in batch if image.texts.caption is not None},
        "tags": {image.name: image.texts.tags for image in batch if image.texts.tags},
        "repeats": {image.name: image.repeats for image in batch if image.repeats is not None},
    }
    form = {name: msgspec.json.encode(values).decode() for name, values in fields.items() if values}
    return form | ({"read_as": read_as} if "texts" in form and read_as is not None else {})


def _label(source: Source | None) -> str:
    return "" if source is None else source.label
