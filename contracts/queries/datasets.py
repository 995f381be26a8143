"""Questions about data sets and images."""

from datetime import datetime

import msgspec

from contracts.events import Artifact, Category
from contracts.ids import DatasetId, Digest, ImageId, JobId, RunId, VersionId
from contracts.jobs import Status
from contracts.queries.asking import Limit, Page, Query, QueryAt, View


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
    """So many of its images were erased since: no new job can train on it."""


class DatasetView(View, frozen=True):
    """`tagged` counts images with a tag, `captioned` those with a written caption, `refused` files not taken."""

    id: DatasetId
    name: str
    description: str
    images: int
    tagged: int
    captioned: int
    refused: int
    general_threshold: float
    character_threshold: float
    latest_version: int | None
    cover: ImageId | None
    created_at: datetime
    changed_at: datetime
    etag: int


class TagView(View, frozen=True, omit_defaults=True):
    """A tag that holds, and why: decided by a person or an import, or seen by a model above the threshold."""

    tag: str
    source: str
    category: Category = "general"
    probability: float | None = None
    run: RunId | None = None
    actor: str | None = None
    sequence: int = 0


class ImageView(View, frozen=True):
    """`caption` is what the trainer would read now: the written one (of `caption_source`), else the tags joined."""

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
    tags: tuple[TagView, ...]
    rejected: tuple[str, ...]
    suggestions: tuple[TagView, ...]
    rating: str | None
    caption: str
    caption_source: str
    created_at: datetime
    etag: int
    erased: bool = False
    """It is how it was then; what was private of it is gone, for it was erased since."""


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


class ListDatasets(Query[Page[DatasetView]], frozen=True):
    cursor: str | None = None
    limit: Limit = 100


class GetDataset(QueryAt[DatasetView], frozen=True):
    """`dataset` is an id, or the name it has now."""

    dataset: str


class ListImages(Query[Page[ImageView]], frozen=True):
    """In the order they came in. `dataset` none = of all data sets; `tag` = only those that have it."""

    dataset: str | None = None
    tag: str | None = None
    cursor: str | None = None
    limit: Limit = 100


class GetImage(QueryAt[ImageView], frozen=True):
    image: ImageId


class SawView(View, frozen=True):
    """A job that trained on what was erased. Its LoRA stays; who wants it gone as well finds it by this."""

    job: JobId
    name: str
    status: Status
    version: int
    steps: int
    artifacts: tuple[Artifact, ...]


class ErasureView(View, frozen=True):
    """What was erased, when, and who had seen it.

    `images` counts those erased, `left` says in a sentence each where something of them still lies: a backup that is
    not here, a disk that cannot be written. They are tried again until nothing is left.
    """

    id: str
    dataset_id: DatasetId
    images: int
    erased_at: datetime
    loras: tuple[SawView, ...]
    left: tuple[str, ...]
    etag: int


class GetErasure(Query[ErasureView], frozen=True):
    """`thing` is the id of an image, or of a data set that was erased as a whole."""

    thing: str


class ErasedImage(msgspec.Struct, frozen=True, kw_only=True):
    """An erased image, by what copies of it are found: the digest of its picture. `cursor`: the place after it."""

    image: ImageId
    picture: Digest
    cursor: str


class ListErased(Query[Page[ErasedImage]], frozen=True):
    """All erased images, in the order they were erased: for those who keep copies of pictures."""

    cursor: str | None = None
    limit: Limit = 500


class ListRefusals(Query[Page[RefusalView]], frozen=True):
    dataset: str
    cursor: str | None = None
    limit: Limit = 100


class ListTags(Query[Page[TagCount]], frozen=True):
    """Most used first. `prefix` narrows by how the tag starts."""

    dataset: str | None = None
    prefix: str = ""
    cursor: str | None = None
    limit: Limit = 100


class ListVersions(Query[Page[VersionView]], frozen=True):
    dataset: str
    cursor: str | None = None
    limit: Limit = 100


class GetVersion(Query[VersionView], frozen=True):
    dataset: str
    version: int


class ManifestEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a frozen version, its caption in plain text: `written` by somebody, else joined from tags."""

    ordinal: int
    image: ImageId
    picture: Digest
    caption: str
    width: int
    height: int
    written: bool = False


class ReadManifest(Query[Page[ManifestEntry]], frozen=True):
    """What a job trains on, for those who may read captions."""

    version_id: VersionId
    cursor: str | None = None
    limit: Limit = 500
