"""One state of a data set that a version of it is made from: what there is to do, and then its pages."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import msgspec
from pyroaring import BitMap

from catalog.domain.manifest import EncodedPage
from contracts.events.datasets import TextSettingsSet, VersionFrozen
from contracts.ids import DatasetId


class Unsettled(msgspec.Struct, frozen=True, tag="unsettled"):
    """The snapshot shows a commit of the data set in part, the first of them at `sequence`."""

    sequence: int


class FreezePlan(msgspec.Struct, frozen=True, kw_only=True, tag="plan"):
    """What a snapshot of the log up to `as_of` says of a data set, images as serialized bitmaps of their ordinals.

    `changed`: those that may have changed since the latest version.
    """

    as_of: int
    name: str
    text_settings: TextSettingsSet
    latest: VersionFrozen | None
    live: bytes
    changed: bytes

    def count_changed(self) -> int:
        """The number of images to be read if all pages of the latest version can be used."""
        live = BitMap.deserialize(self.live)
        return len(live if self.latest is None else live & BitMap.deserialize(self.changed))


class PageRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A page to be made: the lines of `base`, without the ordinals in `replaced`, and the images in `read`.

    `uncaptioned`: of these, those whose captions cannot be read any more.
    """

    base: bytes
    replaced: frozenset[int]
    read: tuple[int, ...]
    uncaptioned: frozenset[int]


class PageSource(ABC):
    """A state of a data set, whatever is changed meanwhile."""

    @abstractmethod
    async def plan(self) -> FreezePlan | Unsettled:
        """What is to be done. Called once, and first."""

    @abstractmethod
    async def make(self, request: PageRequest) -> EncodedPage:
        """The page; all 0 if no image is left. Unavailable: it cannot be read now."""


OpenSource = Callable[[DatasetId], AbstractAsyncContextManager[tuple[PageSource, FreezePlan]]]
"""Opens a state that shows no change of the data set in part. Behind: there is none in time. Unavailable."""
