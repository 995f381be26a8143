"""The rules of frozen versions: when there is a new one, and the text that is trained for an image. Pure."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from catalog.domain.compose import compose
from catalog.domain.manifest import caption_from_tags
from contracts.errors import Rejected
from contracts.events.datasets import VersionFrozen
from contracts.ids import Digest, VersionId


@dataclass(frozen=True, kw_only=True)
class FrozenContent:
    """What a version is decided from: the manifest of the data set at log sequence `as_of`, and the version before."""

    manifest: Digest
    images: int
    as_of: int
    latest: VersionFrozen | None


def freeze(content: FrozenContent, version_id: VersionId, trigger: str) -> VersionFrozen:
    """The version with this content and trigger: a new one, or the latest if nothing has changed since."""
    latest = content.latest
    if latest is not None and (latest.manifest, latest.trigger) == (content.manifest, trigger):
        return latest
    number = 1 if latest is None else latest.version + 1
    return compose(VersionFrozen, content, version=number, version_id=version_id, trigger=trigger)


def build_caption(written: str | None, tags: Sequence[str], trigger: str) -> str:
    """The training text: the written caption or the joined tags, with the trigger in front unless it is there."""
    text = written if written is not None else caption_from_tags(tags)
    if not trigger or any(part.strip() == trigger for part in text.split(",")):
        return text
    # In a sentence the trigger may be a word of it; among tags `cat ears` is not the tag `cat`.
    if written is not None and re.search(rf"(?<!\w){re.escape(trigger)}(?!\w)", written):
        return text
    return f"{trigger}, {text}" if text else trigger


def refuse_erased_images(version: int, erased: int) -> None:
    """A version cannot be trained on once any of its images has been erased."""
    if erased:
        detail = f"{erased} of the images of version {version} were erased for good; freeze another version"
        raise Rejected(detail, reason="images-erased", version=version, erased=erased)
