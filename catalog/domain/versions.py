"""The rules of frozen versions: when there is a new one, and what changed between two. Pure."""

from dataclasses import dataclass

from catalog.domain.compose import compose
from catalog.domain.manifest import ManifestLine, ManifestRoot
from contracts.errors import Rejected
from contracts.events.datasets import VersionFrozen
from contracts.ids import Digest, VersionId
from contracts.queries.datasets import ImageChange


@dataclass(frozen=True, kw_only=True)
class FrozenContent:
    """What a version is decided from: the manifest of the data set at log sequence `as_of`, and the version before.

    `keys_given_up`: after the version before, keys of images were.
    """

    root: ManifestRoot
    manifest: Digest
    as_of: int
    latest: VersionFrozen | None
    keys_given_up: bool = False


def freeze(content: FrozenContent, version_id: VersionId) -> VersionFrozen:
    """The version with this content: a new one, or the latest if nothing has changed since.

    A version from before keys were given up is never used again: which of its captions can be read is not known.
    """
    latest, root = content.latest, content.root
    if latest is not None and latest.manifest == content.manifest and not content.keys_given_up:
        return latest
    number = 1 if latest is None else latest.version + 1
    return compose(VersionFrozen, content, root, version=number, version_id=version_id, pages=root.digests)


def refuse_empty(name: str, images: int) -> None:
    """A data set without images is no version."""
    if not images:
        raise Rejected(f"the data set {name!r} is empty; import images first", reason="empty-dataset")


def refuse_erased_images(version: int, erased: int) -> None:
    """A version cannot be trained on once any of its images has been erased."""
    if erased:
        detail = f"{erased} of the images of version {version} were erased for good; freeze another version"
        raise Rejected(detail, reason="images-erased", version=version, erased=erased)


def image_change(before: ManifestLine | None, after: ManifestLine | None) -> ImageChange:
    """What changed of one image between two versions, of which at least one contains it."""
    line = before or after
    assert line is not None  # noqa: S101 - one of the versions contains it
    old, new = _tags(before), _tags(after)
    were, are = frozenset(old), frozenset(new)
    return ImageChange(
        ordinal=line.ordinal,
        image=line.image,
        change="added" if before is None else "removed" if after is None else "changed",
        tags_added=tuple(tag for tag in new if tag not in were),
        tags_removed=tuple(tag for tag in old if tag not in are),
        tags_reordered=[tag for tag in old if tag in are] != [tag for tag in new if tag in were],
        caption_changed=_caption(before) != _caption(after),
        repeats_changed=_repeats(before) != _repeats(after),
        mask_changed=_mask(before) != _mask(after),
    )


def _tags(line: ManifestLine | None) -> tuple[str, ...]:
    return () if line is None else line.tags


def _repeats(line: ManifestLine | None) -> int:
    return 1 if line is None else line.repeats


def _mask(line: ManifestLine | None) -> Digest | None:
    return None if line is None else line.mask


def _caption(line: ManifestLine | None) -> tuple[bytes | None, bool]:
    return (None, False) if line is None else (line.caption, line.caption_lost)
