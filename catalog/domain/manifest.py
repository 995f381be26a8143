"""A frozen version as bytes: a root blob that lists pages, and pages of one JSON line per image. Pure.

A page holds the images with ordinals `number * PAGE_IMAGES` up to the next page, so an edit changes only the pages of
the images it touches. Equal content gives equal bytes, whatever version it was frozen for: unchanged pages are shared.
"""

from collections.abc import Iterable, Sequence, Set
from itertools import zip_longest
from typing import NamedTuple

import msgspec

from contracts.errors import LoratoryError
from contracts.events.base import Sealed
from contracts.events.datasets import TextSettingsSet
from contracts.ids import Digest, ImageId
from contracts.tag_style import FIRST_STYLE, TagStyle
from contracts.training_text import DEFAULT_TEMPLATE, TEXT_VERSION, require_rule, training_text

PAGE_IMAGES = 1_000
"""Ordinals of a page. Part of the format: pages of two versions are compared and shared by their number."""


class ManifestLine(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One image of a version: `width` and `height` of the picture in pixels, `tags` in order.

    `caption`: the written caption, if there is one, sealed as in the event that set it. `caption_lost`: there is one,
    but its key was given up, so that the image is trained with its tags. `repeats`: how often it is seen in an epoch.
    `mask`: as in `dataset.mask_set`.
    """

    ordinal: int
    image: ImageId
    picture: Digest
    width: int
    height: int
    tags: tuple[str, ...] = ()
    caption: Sealed | None = None
    caption_lost: bool = False
    repeats: int = 1
    mask: Digest | None = None

    def without_caption(self) -> "ManifestLine":
        """The same, of an image whose key was given up."""
        return msgspec.structs.replace(self, caption=None, caption_lost=self.caption is not None)


class ManifestPage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A page as the root lists it: first ordinal, digest of its blob, numbers of images and lost captions."""

    first: int
    images: int
    digest: Digest
    captions_lost: int = 0

    @property
    def number(self) -> int:
        return page_number(self.first)


class EncodedPage(NamedTuple):
    """The bytes of a page, with its first ordinal and the numbers of images and lost captions; all 0 if it is empty."""

    first: int
    images: int
    captions_lost: int
    content: bytes


class ManifestRoot(msgspec.Struct, frozen=True, kw_only=True):
    """What gives a version its texts, and its pages in order.

    `text`: version of the rules of `training_text`. `style`: how tags are written; roots with `text` 1 have none.
    """

    trigger: str
    template: int = DEFAULT_TEMPLATE
    text: int = 1
    style: TagStyle = FIRST_STYLE
    images: int
    pages: tuple[ManifestPage, ...]

    @property
    def digests(self) -> tuple[Digest, ...]:
        return tuple(page.digest for page in self.pages)

    @property
    def captions_lost(self) -> int:
        """The number of images that go with their tags because their captions cannot be read."""
        return sum(page.captions_lost for page in self.pages)

    def text_of(self, line: ManifestLine, caption: str | None) -> str:
        """The training text of an image with this caption in plain text."""
        return training_text(self.trigger, line.tags, caption, self.template, version=self.text, style=self.style)


DifferingPages = tuple[ManifestPage | None, ManifestPage | None]
DifferingLines = tuple[ManifestLine | None, ManifestLine | None]
"""Of two versions, the older one first; None where it has none."""


class BadManifest(LoratoryError):
    """The manifest cannot be read."""

    code = "bad-manifest"


_encode = msgspec.json.Encoder()
_decode_line = msgspec.json.Decoder(ManifestLine)
_LINE_START = b'{"ordinal":'
_CAPTION_LOST = b'"caption_lost":true'  # in no text: there the quotes are escaped
_decode_root = msgspec.json.Decoder(ManifestRoot)


def page_number(ordinal: int) -> int:
    return ordinal // PAGE_IMAGES


def ordinals_of_page(number: int) -> range:
    return range(number * PAGE_IMAGES, (number + 1) * PAGE_IMAGES)


def build_root(settings: TextSettingsSet, pages: Iterable[ManifestPage]) -> ManifestRoot:
    """The root of these pages, with texts as these settings say, by today's rules."""
    listed = tuple(sorted(pages, key=lambda page: page.first))
    images = sum(page.images for page in listed)
    return ManifestRoot(
        trigger=settings.trigger,
        template=settings.template,
        text=TEXT_VERSION,
        style=settings.style,
        images=images,
        pages=listed,
    )


def encode_root(root: ManifestRoot) -> bytes:
    return _encode.encode(root)


def decode_root(content: bytes) -> ManifestRoot:
    """Inverse of `encode_root`. BadManifest: invalid bytes, or of a newer Loratory. Rejected: an unknown template."""
    try:
        root = _decode_root.decode(content)
    except msgspec.DecodeError as error:
        raise BadManifest(f"the manifest cannot be read: {error}") from error
    if not 1 <= root.text <= TEXT_VERSION:
        raise BadManifest(f"the texts of this version follow rules {root.text}, which this Loratory does not know")
    require_rule(root.text, root.template)
    return root


def encode_page(lines: Iterable[ManifestLine]) -> bytes:
    """The bytes of a page, lines in the order of their ordinals; sealed bytes are base64."""
    return replace_images(b"", frozenset(), lines).content


def replace_images(content: bytes, replaced: Set[int], lines: Iterable[ManifestLine]) -> EncodedPage:
    """A page without the images of the `replaced` ordinals, with `lines` instead. Lines that stay are not decoded."""
    kept = {ordinal: line for line in content.splitlines() if (ordinal := _ordinal_of(line)) not in replaced}
    kept |= {line.ordinal: _encode.encode(line) for line in lines}
    ordinals = sorted(kept)
    joined = b"".join(kept[ordinal] + b"\n" for ordinal in ordinals)
    return EncodedPage(ordinals[0] if ordinals else 0, len(ordinals), joined.count(_CAPTION_LOST), joined)


def _ordinal_of(line: bytes) -> int:
    """The first field of an encoded line."""
    start, end = len(_LINE_START), line.find(b",")
    if not line.startswith(_LINE_START) or not line[start:end].isdigit():
        raise BadManifest("the manifest cannot be read: a line does not begin with its ordinal")
    return int(line[start:end])


def decode_page(content: bytes) -> list[ManifestLine]:
    """Inverse of `encode_page`; BadManifest for invalid bytes."""
    return _decode_lines(content.splitlines())


def differing_pages(before: ManifestRoot, after: ManifestRoot) -> dict[int, DifferingPages]:
    """The pages in which two versions differ, by number, ascending."""
    old, new = ({page.number: page for page in root.pages} for root in (before, after))
    numbers = sorted(old.keys() | new.keys())
    return {number: (old.get(number), new.get(number)) for number in numbers if old.get(number) != new.get(number)}


def differing_lines(before: bytes, after: bytes) -> list[DifferingLines]:
    """The lines in which two pages of one number differ, by ordinal. Equal lines are never decoded."""
    aligned = zip_longest(before.splitlines(), after.splitlines(), fillvalue=b"")
    moved = [pair for pair in aligned if pair[0] != pair[1]]  # most lines are equal and in the same place
    old, new = ([pair[side] for pair in moved if pair[side]] for side in (0, 1))
    kept, known = set(old), set(new)
    removed = {line.ordinal: line for line in _decode_lines([line for line in old if line not in known])}
    added = {line.ordinal: line for line in _decode_lines([line for line in new if line not in kept])}
    return [(removed.get(ordinal), added.get(ordinal)) for ordinal in sorted(removed.keys() | added.keys())]


def _decode_lines(lines: Sequence[bytes]) -> list[ManifestLine]:
    try:
        return [_decode_line.decode(line) for line in lines]
    except msgspec.DecodeError as error:
        raise BadManifest(f"the manifest cannot be read: {error}") from error
