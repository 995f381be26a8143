"""The query that exports of data sets and of their versions are written from."""

import msgspec

from contracts.filters import Filter
from contracts.ids import Digest, ImageId
from contracts.queries.base import Limit, Page, QueryPage
from contracts.tag_style import DEFAULT_STYLE, TagStyle


class ExportEntry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One image with its texts in plain, and what its training text is made of: tags, caption, and the
    rules of its version (`contracts.training_text`): `template`, `text`, the version of the rules, and `style`.

    `name` is empty if its key was given up. `size` in bytes, of the `source` file; `width` and `height` of the picture
    in pixels. `caption`: the written one, if there is one; `caption_source`: who wrote it (`written`: unknown, because
    it was changed since), else `tags`. `caption_lost`: there is a written one that cannot be read any more.
    `repeats`: how often it is seen in an epoch. `mask`: the blob of its mask, as in `dataset.mask_set`.
    `received`, if it was asked for: the sha256 of the text that it was last imported with, in UTF-8.
    `erased`: of what the version froze nothing is left but its place.
    """

    ordinal: int
    image: ImageId
    picture: Digest
    width: int
    height: int
    template: int
    text: int
    style: TagStyle = DEFAULT_STYLE
    source: Digest | None = None
    size: int = 0
    name: str = ""
    tags: tuple[str, ...] = ()
    caption: str | None = None
    caption_source: str = "tags"
    caption_lost: bool = False
    received: Digest | None = None
    erased: bool = False
    repeats: int = 1
    mask: Digest | None = None


class ReadExport(QueryPage[Page[ExportEntry]], frozen=True, kw_only=True):
    """The images of a data set that a filter selects, or of one of its versions, by ordinal.

    `received`: also of the texts as received, of which a version knows nothing.
    Each page of a data set shows it as it is then; a version never changes, except that images are erased.
    Invalid: a version is filtered. KeyMissing, Lost: a text cannot be read that should be exported.
    """

    dataset: str
    version: int | None = None
    filter: Filter | None = None
    received: bool = False
    limit: Limit = 500
