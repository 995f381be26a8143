"""Queries about data sets and images."""

from datetime import datetime
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from contracts.commands.datasets import EditedTags, TextCounts
from contracts.events.base import Category, ReadAs
from contracts.events.jobs import Artifact
from contracts.filters import Filter, Selection
from contracts.ids import DatasetId, Digest, ImageId, JobId, RunId, VersionId
from contracts.queries.base import AtSequence, Limit, Page, Query, QueryAt, QueryPage, View
from contracts.sorting import Sort
from contracts.subjects import Status
from contracts.tag_style import TagStyle

MAX_ORDINALS = 5_000


class TextSettingsView(View, frozen=True):
    """How the training texts of a data set are written; `style`: its tags. `read_as`: what imported texts are."""

    dataset_id: DatasetId
    dataset: str
    trigger: str
    template: int
    style: TagStyle
    etag: int
    read_as: ReadAs = "auto"


class VersionView(View, frozen=True):
    version: int
    version_id: VersionId
    dataset_id: DatasetId
    dataset: str
    images: int
    manifest: Digest
    trigger: str
    as_of: int
    created_at: datetime
    etag: int
    erased: int = 0
    """Number of its images erased since; if there are any, no new job can train on it."""
    captions_lost: int = 0
    """Number of its images that go with their tags, because the keys of their captions were given up."""


class DatasetView(View, frozen=True):
    """`tagged` counts images with a tag, `captioned` those with a written caption, `refused` skipped files."""

    id: DatasetId
    name: str
    description: str
    images: int
    tagged: int
    captioned: int
    refused: int
    thresholds: dict[Category, float]
    tag_thresholds: dict[str, float]
    denied_tags: tuple[str, ...]
    latest_version: int | None
    cover: ImageId | None
    created_at: datetime
    changed_at: datetime
    etag: int


class TagView(View, frozen=True, omit_defaults=True, gc=False):
    """An effective tag and its source: a person's or an import's decision, or a prediction above the threshold."""

    tag: str
    source: str
    category: Category = "general"
    probability: float | None = None
    run: RunId | None = None
    actor: str | None = None
    sequence: int = 0


class ImageView(View, frozen=True):
    """`caption` is the written caption (of `caption_source`), else the tags joined. `training_text`: what is trained,
    made of trigger, tags and caption as the text settings of the data set say.

    `source` is the digest of the file as received; of a JPEG with `cut`, picture and cut are stored instead of it.
    `repeats`: how often it is seen in an epoch. `mask`: a grey PNG of its size, white where it is to be trained.
    """

    id: ImageId
    dataset_id: DatasetId
    dataset: str
    ordinal: int
    name: str
    format: str
    width: int
    height: int
    size: int
    animated: bool
    picture: Digest
    source: Digest
    thumbnail: Digest
    cut: Digest | None
    tags: tuple[TagView, ...]
    rejected: tuple[str, ...]
    suggestions: tuple[TagView, ...]
    rating: str | None
    caption: str
    training_text: str
    caption_source: str
    created_at: datetime
    etag: int
    erased: bool = False
    """True if its key was destroyed by an erasure that the log does not have, as after a restore: no private texts."""
    reviewed: bool = False
    repeats: int = 1
    mask: Digest | None = None
    key_missing: bool = False
    """True if the key of its private texts is lost although it was not erased: name and caption cannot be read."""


class RefusalView(View, frozen=True):
    name: str
    reason: str
    detail: str
    size: int
    at: datetime
    sequence: int


class TagCount(View, frozen=True):
    tag: str
    images: int


class ListDatasets(QueryPage[Page[DatasetView]], frozen=True):
    pass


class GetDataset(QueryAt[DatasetView], frozen=True):
    """`dataset` is an id, or the current name."""

    dataset: str


class GetTextSettings(Query[TextSettingsView], frozen=True):
    """`dataset` is an id, or the current name."""

    dataset: str


class ListImages(QueryPage[Page[ImageView]], frozen=True):
    """`dataset` none = of all data sets; without `sort` in import order. Invalid: the cursor is of another sort order.

    `tag` = only images with this tag, as the filter of that term. The past (`at_seq`, `at_time`) is that of one data
    set, in import order and without filter; Invalid for anything else. It lacks the images erased since.
    """

    dataset: str | None = None
    tag: str | None = None
    filter: Filter | None = None
    sort: Sort | None = None
    at_seq: AtSequence | None = None
    at_time: datetime | None = None

    @property
    def is_past(self) -> bool:
        return self.at_seq is not None or self.at_time is not None


class GetImage(QueryAt[ImageView], frozen=True):
    image: ImageId


class ImageIdsView(View, frozen=True):
    """Image ids by ordinal."""

    ids: dict[int, ImageId]


class ListImageIds(Query[ImageIdsView], frozen=True):
    """The ids of a data set's images with these ordinals, also of removed and erased ones."""

    dataset: DatasetId
    ordinals: Annotated[tuple[int, ...], Meta(max_length=MAX_ORDINALS)]


class AffectedLoraView(View, frozen=True):
    """A job that trained on erased images. Its LoRA stays; this says which ones to delete if required."""

    job: JobId
    name: str
    status: Status
    version: int
    steps: int
    artifacts: tuple[Artifact, ...]


class ErasureView(View, frozen=True):
    """What was erased, when, and which jobs had trained on it.

    `images` counts the erased ones. `pending` has a sentence for each place where data of them still exists: a backup
    that is not mounted, a disk that cannot be written. These are retried until nothing is left.
    """

    id: str
    dataset_id: DatasetId
    images: int
    erased_at: datetime
    loras: tuple[AffectedLoraView, ...]
    pending: tuple[str, ...]
    etag: int


class GetErasure(Query[ErasureView], frozen=True):
    """`aggregate_id` is the id of an image, or of a data set that was erased as a whole."""

    aggregate_id: str


class ErasedImage(msgspec.Struct, frozen=True, kw_only=True):
    """An erased image; copies are found by the digest of its picture. `cursor`: the position after it."""

    image: ImageId
    picture: Digest
    cursor: str


class ListErased(QueryPage[Page[ErasedImage]], frozen=True, kw_only=True):
    """All erased images, in the order of erasure; services that keep copies of pictures delete those."""

    limit: Limit = 500


class ListRefusals(QueryPage[Page[RefusalView]], frozen=True):
    dataset: str


class ListTags(QueryPage[Page[TagCount]], frozen=True):
    """Most used first. `prefix` filters by the start of the tag; `filter`: of images that it selects."""

    dataset: str | None = None
    prefix: str = ""
    filter: Filter | None = None


class TagEffect(msgspec.Struct, frozen=True, kw_only=True):
    """What an edit would decide about a tag: for `images` of those selected; of the others that is decided already."""

    tag: str
    decision: Literal["asserted", "rejected", "withdrawn"]
    images: int


class EditExample(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An image, and the tags that something new would be decided about."""

    image: ImageId
    asserted: tuple[str, ...] = ()
    rejected: tuple[str, ...] = ()
    withdrawn: tuple[str, ...] = ()


class EditPreview(View, frozen=True):
    """What an edit of many images would change. Given the same `as_of`, it changes exactly that, or is refused.

    `changed` counts the images with a new decision, `unchanged` the others that are selected; the first of both kinds.
    """

    dataset_id: DatasetId
    dataset: str
    as_of: int
    selected: int
    changed: int
    unchanged: int
    tags: tuple[TagEffect, ...]
    examples: tuple[EditExample, ...]
    unchanged_examples: tuple[ImageId, ...]


class PreviewEdit(Query[EditPreview], frozen=True):
    """What `EditMany` would change now."""

    dataset: str
    selection: Selection
    add: EditedTags = ()
    remove: EditedTags = ()
    withdraw: EditedTags = ()


class TextsPreview(View, frozen=True):
    """What a `ReadTexts` would do. `new_tags`: the first that would get into the log, which is not encrypted."""

    dataset_id: DatasetId
    dataset: str
    counts: TextCounts
    new_tags: tuple[str, ...] = ()
    next: int | None = None


class PreviewTexts(Query[TextsPreview], frozen=True):
    """What `ReadTexts` would do now. Rejected: images that the data set does not have."""

    dataset: str
    selection: Selection
    read_as: ReadAs
    after: Annotated[int, Meta(ge=-1, le=2**32)] = -1


class ListVersions(QueryPage[Page[VersionView]], frozen=True):
    dataset: str


class GetVersion(Query[VersionView], frozen=True):
    dataset: str
    version: int


class ImageChange(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An image that differs between two versions. Tags and caption of one that was added or removed count as changed.

    `tags_reordered`: tags that it has in both versions follow each other differently.
    """

    ordinal: int
    image: ImageId
    change: Literal["added", "removed", "changed"]
    tags_added: tuple[str, ...] = ()
    tags_removed: tuple[str, ...] = ()
    tags_reordered: bool = False
    caption_changed: bool = False
    repeats_changed: bool = False
    mask_changed: bool = False


class DiffVersions(QueryPage[Page[ImageChange]], frozen=True, kw_only=True):
    """The images that differ in `version` from the version `since`, by ordinal."""

    dataset: str
    version: int
    since: int
    limit: Limit = 500


class ManifestEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One image of a frozen version, with its caption in plain text: `written`, else joined from tags.

    `caption_lost`: also from tags, because the written one cannot be read any more. `repeats`, `mask`: as of an image.
    """

    ordinal: int
    image: ImageId
    picture: Digest
    caption: str
    width: int
    height: int
    written: bool = False
    caption_lost: bool = False
    repeats: int = 1
    mask: Digest | None = None


class ReadManifest(QueryPage[Page[ManifestEntry]], frozen=True, kw_only=True):
    """The images a job trains on, with captions in plain text."""

    version_id: VersionId
    limit: Limit = 500
