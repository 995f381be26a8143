"""Files on their way in: looked at by the decoder, their bytes put away, then one commit for the whole command."""

import asyncio
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from catalog.database import Connection
from catalog.domain import datasets as rules
from catalog.domain.datasets import missing
from catalog.ingest.outcomes import Accepted, Outcome, Refused
from catalog.ingest.pool import Decoder
from catalog.keys import CAPTION, NAME, Keys
from catalog.service.desk import Change, Desk
from catalog.views import datasets, images
from catalog.views.datasets import DatasetRow
from catalog.views.images import ImageRow
from contracts.commands import ImportedFile, Origin, Receipt, StagedFile
from contracts.errors import Gone, NotFound
from contracts.events import CaptionSet, DatasetFact, ImageAdded, ImageRefused
from contracts.ids import Digest, ImageId, derived
from contracts.sealed import seal
from contracts.wire.blobs import Blobs


@dataclass(frozen=True, kw_only=True)
class Examined:
    """A file, what the decoder says of it, and where its bytes lie now."""

    file: StagedFile
    image: ImageId
    outcome: Outcome
    source: Digest
    picture: Digest
    thumbnail: Digest


NO_BYTES = Digest("")


@dataclass
class Entry:
    """What one command adds to a data set, as it is put together file by file."""

    next_ordinal: int
    twins: dict[str, ImageRow]
    keys: dict[ImageId, bytes]
    facts: list[DatasetFact]
    files: list[ImportedFile]
    fresh: dict[str, tuple[ImageId, int]]


@dataclass(frozen=True)
class Imports:
    desk: Desk
    keys: Keys
    blobs: Blobs
    decoder: Decoder
    staging: Path

    async def bring_in(self, lane: str, ref: str, files: tuple[StagedFile, ...], origin: Origin) -> Receipt:
        """Each file is added, known already, or refused. Decoding comes before the data set's turn."""
        before = await self.desk.answered(origin)
        if before is not None:
            return before
        with tempfile.TemporaryDirectory(prefix="import-", dir=self.staging) as folder:
            examined = await asyncio.gather(
                *(self._examine(number, file, Path(folder), origin) for number, file in enumerate(files))
            )
        keys = await self.keys.new_keys(one.image for one in examined)
        return await self.desk.settle(origin, lane, partial(self._enter, ref, examined, keys, origin))

    async def _examine(self, number: int, file: StagedFile, folder: Path, origin: Origin) -> Examined:
        image = ImageId(derived("img", origin.command, str(number)))
        staged = self.staging / file.token
        if not staged.is_file():
            raise NotFound(f"the upload {file.token!r} is not in the staging folder; send it again")
        outcome = await self.decoder.examine(staged, into=folder)
        if isinstance(outcome, Refused):
            return Examined(
                file=file, image=image, outcome=outcome, source=NO_BYTES, picture=NO_BYTES, thumbnail=NO_BYTES
            )
        # The bytes stand before any event names them.
        source = await self.blobs.put(staged)
        picture = source if outcome.source_is_picture else await self.blobs.put(outcome.picture_path)
        thumbnail = await self.blobs.put(outcome.thumbnail_path)
        return Examined(file=file, image=image, outcome=outcome, source=source, picture=picture, thumbnail=thumbnail)

    async def _enter(self, ref: str, examined: list[Examined], keys: dict[ImageId, bytes], origin: Origin) -> Receipt:
        pixels = [one.outcome.pixels_sha256 for one in examined if isinstance(one.outcome, Accepted)]

        def look(connection: Connection) -> tuple[DatasetRow, dict[str, ImageRow]]:
            row = datasets.find(connection, ref)
            if row is None:
                raise missing("data set", ref)
            if row.removed:
                raise Gone(f"the data set {row.name!r} was removed")
            found = {digest: images.twin(connection, row.id, digest) for digest in pixels}
            return row, {digest: twin for digest, twin in found.items() if twin is not None}

        row, twins = await self.desk.store.read(look)
        keys = keys | await self.keys.keys_of([twin.id for twin in twins.values()])
        entry = Entry(next_ordinal=row.next_ordinal, twins=twins, keys=keys, facts=[], files=[], fresh={})
        for one in examined:
            _enter_one(entry, one)
        receipt = Receipt(id=row.id, name=row.name, files=tuple(entry.files))
        if not entry.facts:
            return self.desk.unchanged(receipt)
        return await self.desk.append(Change("dataset", row.id, entry.facts, row.head), origin, receipt)


def _enter_one(entry: Entry, one: Examined) -> None:
    name = rules.label(one.file.name)
    match one.outcome:
        case Refused(reason=reason, sentence=sentence):
            _refuse(entry, one, name, reason, sentence)
        case Accepted(pixels_sha256=pixels) if pixels in entry.twins:
            _known(entry, one, name, entry.twins[pixels])
        case Accepted(pixels_sha256=pixels) if pixels in entry.fresh:
            image, ordinal = entry.fresh[pixels]
            detail = f"shows the same picture as {image}, which came in the same import"
            entry.files.append(
                ImportedFile(name=name, outcome="existing", image=image, ordinal=ordinal, reason="twin", detail=detail)
            )
        case Accepted() as accepted:
            _add(entry, one, name, accepted)


def _refuse(entry: Entry, one: Examined, name: str, reason: str, sentence: str) -> None:
    sealed = seal(entry.keys[one.image], name, NAME)
    entry.facts.append(
        ImageRefused(image_id=one.image, name=sealed, reason=reason, detail=sentence, size=one.file.size)
    )
    entry.files.append(ImportedFile(name=name, outcome="refused", image=one.image, reason=reason, detail=sentence))


def _known(entry: Entry, one: Examined, name: str, twin: ImageRow) -> None:
    """The picture is there; a caption that came with it is taken where nobody has written one."""
    detail = f"shows the same picture as {twin.id}"
    if one.file.caption is not None and twin.id in entry.keys:
        if twin.caption is None:
            sealed = seal(entry.keys[twin.id], one.file.caption, CAPTION)
            entry.facts.append(CaptionSet(ordinal=twin.ordinal, caption=sealed, source="import"))
        else:
            detail += "; the caption that is there was kept"
    entry.files.append(
        ImportedFile(name=name, outcome="existing", image=twin.id, ordinal=twin.ordinal, reason="twin", detail=detail)
    )


def _add(entry: Entry, one: Examined, name: str, accepted: Accepted) -> None:
    ordinal = entry.next_ordinal
    entry.next_ordinal += 1
    entry.fresh[accepted.pixels_sha256] = (one.image, ordinal)
    key = entry.keys[one.image]
    entry.facts.append(
        ImageAdded(
            ordinal=ordinal,
            image_id=one.image,
            source=one.source,
            picture=one.picture,
            thumbnail=one.thumbnail,
            pixels=Digest(accepted.pixels_sha256),
            dhash=accepted.dhash,
            format=accepted.format,
            width=accepted.width,
            height=accepted.height,
            size=accepted.bytes,
            name=seal(key, name, NAME),
            animated=accepted.animated,
        )
    )
    if one.file.caption is not None:
        entry.facts.append(CaptionSet(ordinal=ordinal, caption=seal(key, one.file.caption, CAPTION), source="import"))
    tagged, complaints = rules.imported_tags(ordinal, one.file.tags)
    if tagged is not None:
        entry.facts.append(tagged)
    detail = "; ".join(complaints) or None
    entry.files.append(ImportedFile(name=name, outcome="added", image=one.image, ordinal=ordinal, detail=detail))
