"""Files on their way in: looked at by the decoder, their bytes put away, then one commit for the whole command."""

import asyncio
import shutil
import tempfile
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import msgspec
import structlog

from catalog.database import Connection
from catalog.domain import datasets as rules
from catalog.domain.datasets import missing
from catalog.ingest.outcomes import Accepted, Outcome, Refused
from catalog.ingest.pool import Decoder
from catalog.keys import CAPTION, NAME, Keys
from catalog.service.desk import Change, Desk
from catalog.service.holds import Holds
from catalog.views import datasets, erasures, images
from catalog.views.datasets import DatasetRow
from catalog.views.images import ImageRow
from contracts.commands import ImportedFile, Origin, Receipt, StagedFile
from contracts.errors import Behind, Gone, NotFound, Unavailable
from contracts.events import CaptionSet, DatasetFact, ImageAdded, ImageRefused
from contracts.ids import Digest, ImageId, derived
from contracts.sealed import seal
from contracts.wire.blobs import Blobs

IMPORTS_AT_ONCE = 4
"""So many commands have their files decoded at once: decoded pictures take room on the disk until put away."""
DRAWER = "import-"

_log = structlog.get_logger()


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
class Known:
    """An image of the data set that shows certain pixels: from before, or of this very import."""

    image: ImageId
    ordinal: int
    captioned: bool
    blobs: frozenset[Digest]


@dataclass
class Entry:
    """What one command adds to a data set, as it is put together file by file. `known` by the digest of the pixels."""

    next_ordinal: int
    known: dict[str, Known]
    keys: dict[ImageId, bytes]
    facts: list[DatasetFact] = field(default_factory=list)
    files: list[ImportedFile] = field(default_factory=list)
    """One for each file of the command, in its order, without the name: that is private, and answers are stored."""
    spare: set[Digest] = field(default_factory=set)
    """Blobs that were put away and that no fact will name."""


@dataclass(frozen=True)
class Imports:
    desk: Desk
    keys: Keys
    blobs: Blobs
    decoder: Decoder
    staging: Path
    holds: Holds = field(default_factory=Holds)
    _turns: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(IMPORTS_AT_ONCE))

    async def bring_in(self, lane: str, ref: str, files: tuple[StagedFile, ...], origin: Origin) -> Receipt:
        """Each file is added, known already, or refused. Decoding comes before the data set's turn.

        The files of the receipt stand in the order of `files`, without names: see `named`.
        """
        spare: set[Digest] = set()
        async with AsyncExitStack() as held:
            async with self._turns:
                with tempfile.TemporaryDirectory(prefix=DRAWER, dir=self.staging) as folder:
                    examined = await self._all_examined(files, Path(folder), origin, held)
            keys = await self.keys.new_keys(one.image for one in examined)
            if len(keys) < len(examined):
                raise Gone("what this very request brought in before was erased; send it as a new one")
            receipt = await self.desk.settle(origin, lane, partial(self._enter, ref, examined, keys, origin, spare))
        await self._put_out(spare)
        return receipt

    async def _all_examined(
        self, files: tuple[StagedFile, ...], folder: Path, origin: Origin, held: AsyncExitStack
    ) -> list[Examined]:
        """Unavailable: a file cannot be read or its bytes not be put away, which says nothing about the picture."""
        try:
            async with asyncio.TaskGroup() as tasks:
                looks = [
                    tasks.create_task(self._examine(number, file, folder, origin, held))
                    for number, file in enumerate(files)
                ]
        except BaseExceptionGroup as group:
            first = group.exceptions[0]
            if isinstance(first, OSError):
                sentence = f"the catalog cannot read or write its files: {first.strerror}"
                raise Unavailable(sentence, service="catalog") from group
            raise first from group
        return [look.result() for look in looks]

    async def _examine(
        self, number: int, file: StagedFile, folder: Path, origin: Origin, held: AsyncExitStack
    ) -> Examined:
        image = ImageId(derived("img", origin.command, str(number)))
        staged = self.staging / file.token
        if not staged.is_file():
            raise NotFound(f"the upload {file.token!r} is not in the staging folder; send it again")
        outcome = await self.decoder.examine(staged, into=folder)
        if isinstance(outcome, Refused):
            return Examined(
                file=file, image=image, outcome=outcome, source=NO_BYTES, picture=NO_BYTES, thumbnail=NO_BYTES
            )
        digests = (outcome.sha256, outcome.picture_sha256, outcome.thumbnail_sha256)
        await held.enter_async_context(self.holds.hold(digests))
        # The bytes stand before any event names them.
        source = await self.blobs.put(staged)
        picture = source if outcome.source_is_picture else await self.blobs.put(outcome.picture_path)
        thumbnail = await self.blobs.put(outcome.thumbnail_path)
        return Examined(file=file, image=image, outcome=outcome, source=source, picture=picture, thumbnail=thumbnail)

    async def _put_out(self, spare: set[Digest]) -> None:
        """Other files of pictures that are there already: nobody would find their bytes again, to erase them."""
        if not spare:
            return
        try:
            async with self.holds.sweep() as held:
                await self.desk.seen()
                needed = await self.desk.store.read(lambda connection: erasures.in_use(connection, spare))
                await self.blobs.delete(spare - needed - held)
        except (OSError, Unavailable, Behind) as error:
            _log.warning("spare_blobs_left", error=str(error))

    async def _enter(
        self,
        ref: str,
        examined: list[Examined],
        keys: dict[ImageId, bytes],
        origin: Origin,
        spare: set[Digest],
    ) -> Receipt:
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
        known = {
            digest: Known(
                twin.id,
                twin.ordinal,
                twin.caption is not None,
                frozenset({twin.source, twin.picture, twin.thumbnail}),
            )
            for digest, twin in twins.items()
        }
        entry = Entry(next_ordinal=row.next_ordinal, known=known, keys=keys)
        for one in examined:
            _enter_one(entry, one)
        spare.clear()  # what an earlier try found, before it lost its race, does not count
        spare.update(entry.spare)
        receipt = Receipt(id=row.id, name=row.name, files=tuple(entry.files))
        if not entry.facts:
            return self.desk.unchanged(receipt)
        return await self.desk.append(Change("dataset", row.id, entry.facts, row.head), origin, receipt)


def named(receipt: Receipt, files: tuple[StagedFile, ...]) -> Receipt:
    """The receipt with the files' names, from the command that it answers now or again."""
    told = (
        msgspec.structs.replace(became, name=rules.label(file.name))
        for became, file in zip(receipt.files, files, strict=False)
    )
    return msgspec.structs.replace(receipt, files=tuple(told))


def clear_away(staging: Path) -> None:
    """What imports of a catalog that was killed left behind. Only before this one begins: there is one that writes."""
    for left in staging.glob(f"{DRAWER}*"):
        shutil.rmtree(left, ignore_errors=True)


def _enter_one(entry: Entry, one: Examined) -> None:
    match one.outcome:
        case Refused(reason=reason, sentence=sentence):
            _refuse(entry, one, reason, sentence)
        case Accepted(pixels_sha256=pixels) if pixels in entry.known:
            _recognise(entry, one, entry.known[pixels])
        case Accepted() as accepted:
            _add(entry, one, accepted)


def _refuse(entry: Entry, one: Examined, reason: str, sentence: str) -> None:
    name = _sealed_name(entry, one)
    entry.facts.append(ImageRefused(image_id=one.image, name=name, reason=reason, detail=sentence, size=one.file.size))
    entry.files.append(ImportedFile(outcome="refused", image=one.image, reason=reason, detail=sentence))


def _recognise(entry: Entry, one: Examined, known: Known) -> None:
    """The picture is there; a caption that came with it is taken where there is none."""
    entry.spare.update({one.source, one.picture, one.thumbnail} - known.blobs)
    said = [f"shows the same picture as {known.image}"]
    if one.file.caption is not None and known.captioned:
        said.append("the caption that is there was kept")
    elif one.file.caption is not None and known.image in entry.keys:
        entry.facts.append(_captioned(entry, known, one.file.caption))
    if one.file.tags:
        said.append("the tags that came with it were not taken")
    detail = "; ".join(said)
    entry.files.append(
        ImportedFile(outcome="existing", image=known.image, ordinal=known.ordinal, reason="twin", detail=detail)
    )


def _add(entry: Entry, one: Examined, accepted: Accepted) -> None:
    blobs = frozenset({one.source, one.picture, one.thumbnail})
    new = entry.known[accepted.pixels_sha256] = Known(one.image, entry.next_ordinal, captioned=False, blobs=blobs)
    entry.next_ordinal += 1
    entry.facts.append(
        ImageAdded(
            ordinal=new.ordinal,
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
            name=_sealed_name(entry, one),
            animated=accepted.animated,
        )
    )
    if one.file.caption is not None:
        entry.facts.append(_captioned(entry, new, one.file.caption))
    tagged, detail = rules.imported_tags(new.ordinal, one.file.tags)
    if tagged is not None:
        entry.facts.append(tagged)
    entry.files.append(ImportedFile(outcome="added", image=one.image, ordinal=new.ordinal, detail=detail))


def _captioned(entry: Entry, known: Known, text: str) -> CaptionSet:
    known.captioned = True
    sealed = seal(entry.keys[known.image], text, CAPTION)
    return CaptionSet(ordinal=known.ordinal, caption=sealed, source="import")


def _sealed_name(entry: Entry, one: Examined) -> bytes:
    return seal(entry.keys[one.image], rules.label(one.file.name), NAME)
