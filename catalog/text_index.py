"""Names and captions in plain text, in memory: they are sealed on disk, so no table can be searched for them.

The index of a data set is built when it is first needed, and holds folded texts only. The projection marks what events
change before the read model shows them, and whoever uses the index reads the marked images again; so a query never
misses a change that its snapshot includes. Erased texts are dropped at once.
"""

import asyncio
import sys
import threading
import unicodedata
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from itertools import islice

import msgspec
import structlog
from pyroaring import BitMap

from catalog.database import Connection
from catalog.domain.image_sets import bitmap_of
from catalog.domain.ordering import NameKeys, natural_key
from catalog.keys import Keys
from catalog.store import Store, checkpoint
from catalog.views import pending, searchable
from catalog.views.searchable import SealedTexts
from contracts.commits import LogEntry, RecordedCommit
from contracts.errors import Rejected
from contracts.events.base import Sealed
from contracts.events.datasets import (
    CaptionSet,
    CommitsUndone,
    DatasetErased,
    DatasetRemoved,
    ImageAdded,
    ImageErased,
)
from contracts.filters import TextField
from contracts.ids import DatasetId, ImageId
from contracts.sealed import CAPTION, NAME, NotOpened, open_sealed

POINTER_BYTES = 8
KEY_POINTER_BYTES = 5 * POINTER_BYTES
"""Of each name in `NameKeys`: two lists and three numbers."""
FEW_IMAGES = 8
"""A search among less than one image in so many looks at them alone."""

_log = structlog.get_logger()


class TextLimits(msgspec.Struct, frozen=True, kw_only=True):
    """`memory` in bytes, of the indexes of all data sets together; `slice`: images read and opened at a time."""

    memory: int = 128 * 2**20
    slice: int = 5_000


DEFAULT_TEXT_LIMITS = TextLimits()


class DatasetTexts:
    """Folded names and captions by ordinal, empty where there are none; used by several threads."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.captions: list[str] = []
        self._text_bytes = 0
        self._key_bytes = 0
        self.marks: dict[int, int] = {}
        """The images that changed since they were read, and the sequence of the change."""
        self.is_complete = False
        self._erased = BitMap()
        self._name_keys: NameKeys | None = None
        self._names_changed = 0
        self._changing = threading.Lock()

    @property
    def bytes(self) -> int:
        """The memory it takes, without that of small objects."""
        return self._text_bytes + self._key_bytes

    def put(self, ordinal: int, name: str, caption: str) -> None:
        """Texts as people wrote them; those of erased images are ignored."""
        with self._changing:
            if ordinal not in self._erased:
                self._put(ordinal, fold(name), fold(caption))

    def erase(self, ordinal: int) -> None:
        """Forget the texts of an image, now and whatever a build that is under way has read before."""
        with self._changing:
            self._erased.add(ordinal)
            self._put(ordinal, "", "")

    def search(self, text: str, field: TextField, images: BitMap) -> BitMap:
        """Those of these images that contain the text, in upper or lower case."""
        folded = fold(text)
        found = BitMap()
        if field != "caption":
            found |= _search(self.names, folded, images)
        if field != "name":
            found |= _search(self.captions, folded, images - found)
        return found

    def name_keys(self) -> NameKeys:
        """The names in their natural order, computed again after a name has changed."""
        with self._changing:
            known, names, version = self._name_keys, list(self.names), self._names_changed
        if known is not None:
            return known
        keys = NameKeys([natural_key(name) for name in names])  # not under the lock, which the event loop takes too
        with self._changing:
            if version == self._names_changed:
                self._name_keys = keys
                self._key_bytes = sum(map(_size, keys.by_ordinal)) + KEY_POINTER_BYTES * len(names)
        return keys

    def _put(self, ordinal: int, name: str, caption: str) -> None:
        missing = ordinal + 1 - len(self.names)
        if missing > 0:
            self.names.extend([""] * missing)
            self.captions.extend([""] * missing)
            self._text_bytes += 2 * POINTER_BYTES * missing
        if name != self.names[ordinal]:
            self._name_keys, self._key_bytes = None, 0
            self._names_changed += 1
        for texts, text in ((self.names, name), (self.captions, caption)):
            self._text_bytes += _size(text) - _size(texts[ordinal])
            texts[ordinal] = text


class TextIndexes:
    """The indexes of the data sets that were used last, within a limit of memory."""

    def __init__(self, store: Store, keys: Keys, limits: TextLimits) -> None:
        self._store, self._keys, self._limits = store, keys, limits
        self._texts: OrderedDict[str, DatasetTexts] = OrderedDict()
        """By data set, the one used last at the end; also one that is being built."""
        self._building = asyncio.Lock()
        store.before_apply.append(self._mark_all)

    @property
    def bytes(self) -> int:
        """The memory that all indexes take."""
        return sum(texts.bytes for texts in self._texts.values())

    async def of(self, dataset_id: DatasetId) -> DatasetTexts:
        """The index of a data set, as new as the read model. Rejected: it does not fit in the memory allowed."""
        async with self._building:
            texts = self._texts.setdefault(dataset_id, DatasetTexts())
            self._texts.move_to_end(dataset_id)
            try:
                if not texts.is_complete:
                    await self._build(dataset_id, texts)
                await self._refresh(dataset_id, texts)
            except BaseException:
                self._texts.pop(dataset_id, None)
                raise
            return texts

    def _mark_all(self, entries: Iterable[LogEntry]) -> None:
        """Note what these entries change, before the read model shows them."""
        for entry in entries:
            if isinstance(entry, RecordedCommit) and entry.commit.aggregate_id in self._texts:
                self._mark(entry)

    def _mark(self, recorded: RecordedCommit) -> None:
        texts = self._texts[recorded.commit.aggregate_id]
        for event in recorded.commit.events:
            match event:
                case ImageAdded(ordinal=ordinal) | CaptionSet(ordinal=ordinal):
                    texts.marks[ordinal] = recorded.sequence
                case CommitsUndone(images=images):  # perhaps of a caption
                    texts.marks |= dict.fromkeys(bitmap_of(images), recorded.sequence)
                case ImageErased(ordinal=ordinal):
                    texts.erase(ordinal)
                case DatasetRemoved() | DatasetErased():
                    for ordinal in range(len(texts.names)):  # a query may still hold it
                        texts.erase(ordinal)
                    self._texts.pop(recorded.commit.aggregate_id, None)
                    return
                case _:
                    pass

    async def _build(self, dataset_id: DatasetId, texts: DatasetTexts) -> None:
        after = -1

        def read(connection: Connection) -> list[SealedTexts]:
            return searchable.page(connection, dataset_id, after, self._limits.slice)

        while rows := await self._store.read(read):
            await self._open(dataset_id, texts, rows)
            after = rows[-1].ordinal
        texts.is_complete = True

    async def _refresh(self, dataset_id: DatasetId, texts: DatasetTexts) -> None:
        """Read what was marked again; a mark that the snapshot does not include yet stays."""
        marked = dict(texts.marks)
        pending = iter(sorted(marked))
        while ordinals := list(islice(pending, self._limits.slice)):
            shown, rows = await self._store.read(lambda connection: _reread(connection, dataset_id, ordinals))
            await self._open(dataset_id, texts, rows)
            for ordinal in ordinals:
                if marked[ordinal] <= shown and texts.marks.get(ordinal) == marked[ordinal]:
                    del texts.marks[ordinal]

    async def _open(self, dataset_id: DatasetId, texts: DatasetTexts, rows: Sequence[SealedTexts]) -> None:
        keys = await self._keys.keys_of(row.id for row in rows)
        await asyncio.to_thread(_put_all, texts, rows, keys)
        others = [one for one in self._texts if one != dataset_id]
        while others and self.bytes > self._limits.memory:
            del self._texts[others.pop(0)]
        if texts.bytes > self._limits.memory:
            megabytes = self._limits.memory // 10**6
            raise Rejected(
                f"the names and captions of this data set take more than {megabytes} MB of memory, the limit of "
                "LORATORY_TEXT_INDEX_BYTES of the catalog; raise it to search them or sort by name",
                reason="text-index-limit",
            )


def fold(text: str) -> str:
    """Equal for texts that differ in upper and lower case only, or in the encoding of accents."""
    if text.isascii():
        return text.lower()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())


def _search(texts: list[str], folded: str, images: BitMap) -> BitMap:
    if len(images) * FEW_IMAGES < len(texts):
        return BitMap([at for at in images if at < len(texts) and folded in texts[at]])
    return BitMap([at for at, text in enumerate(texts) if folded in text]) & images


def _reread(connection: Connection, dataset_id: DatasetId, ordinals: Sequence[int]) -> tuple[int, list[SealedTexts]]:
    """The sequence up to which the snapshot shows the data set, and the texts in it."""
    first = pending.first_of_dataset(connection, dataset_id)
    shown = checkpoint(connection).sequence if first is None else first - 1
    return shown, searchable.of_images(connection, dataset_id, ordinals)


def _put_all(texts: DatasetTexts, rows: Sequence[SealedTexts], keys: dict[ImageId, bytes]) -> None:
    for row in rows:
        key = keys.get(row.id)
        caption = "" if row.caption is None else _opened(key, row.id, row.caption, CAPTION)
        texts.put(row.ordinal, _opened(key, row.id, row.name, NAME), caption)


def _opened(key: bytes | None, image: ImageId, sealed: Sealed, context: str) -> str:
    """The plain text; empty without a key, and for damaged bytes, which make no other image unsearchable."""
    try:
        return "" if key is None else open_sealed(key, sealed, context)
    except NotOpened:
        _log.warning("text_not_opened", image=image, field=context)
        return ""


def _size(text: str) -> int:
    return sys.getsizeof(text) if text else 0
