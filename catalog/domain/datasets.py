"""The rules of data sets, images, tags and captions. Pure: rows in, events out."""

import re
import unicodedata
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from pyroaring import BitMap

from catalog.domain.manifest import caption_from_tags
from contracts.errors import InUse, NotFound, Rejected, StaleVersion
from contracts.events import CaptionSet, Sealed, TagsEdited
from contracts.tags import canonicalize, diff

RESERVED_NAMES = frozenset({"health", "prepare", "categories", "generate-config"})
"""Path segments of the API: a data set or preset of such a name could not be addressed."""
MAX_FILE_NAME_LENGTH = 255
"""Characters of a file name that are kept, the usual limit of file systems."""
MAX_IMPORTED_TAG_BYTES = 16 * 1024
"""Maximum bytes of tags imported with one image: ample for real lists, and one file cannot fill a commit."""
MAX_NAMED_JOBS = 10
MAX_NAMED_PROBLEMS = 3
"""Maximum number of a file's invalid tags that are reported one by one."""


@dataclass(frozen=True, kw_only=True)
class TagEditContext:
    """What a tag edit of one image is decided on: its current tags, those the client saw, and human decisions."""

    ordinal: int
    current: tuple[str, ...]
    base: tuple[str, ...]
    asserted: frozenset[str]
    rejected: frozenset[str]


def normalize_name(name: str) -> str:
    """The stored form of the name of a data set or preset; Rejected if it is not a valid name."""
    normalized = " ".join(unicodedata.normalize("NFC", name).split())
    invalid = set(normalized) & set("/\\?#%") or any(unicodedata.category(char)[0] == "C" for char in normalized)
    if not normalized or invalid:
        raise Rejected(
            f"{name!r} is not a valid name: it must not be empty or contain / \\ ? # % or control characters"
        )
    reserved = normalized in (".", "..") or normalized.casefold() in RESERVED_NAMES
    if reserved or normalized.startswith(("ds_", "img_", "job_")):
        raise Rejected(f"the name {normalized!r} is reserved; choose another", reason="reserved-name")
    return normalized


def name_taken_error(name: str) -> Rejected:
    return Rejected(f"there is a data set called {name!r} already", reason="name-taken")


def refuse_if_in_use(jobs: Sequence[str]) -> None:
    """Images that a job waits for or trains on cannot be erased: InUse names the jobs."""
    if jobs:
        named = ", ".join(jobs[:MAX_NAMED_JOBS]) + (" and others" if len(jobs) > MAX_NAMED_JOBS else "")
        detail = f"jobs wait for or train on it: {named}; let them end, or cancel them"
        raise InUse(detail, jobs=list(jobs[:MAX_NAMED_JOBS]))


def refuse_erased_images(version: int, erased: int) -> None:
    """A version cannot be trained on once any of its images has been erased."""
    if erased:
        detail = f"{erased} of the images of version {version} were erased for good; freeze another version"
        raise Rejected(detail, reason="images-erased", version=version, erased=erased)


def check_if_match(seen: int | None, *, added: int, current: int) -> None:
    """StaleVersion unless the If-Match sequence lies between the image's addition and its current ETag."""
    if seen is not None and not added <= seen <= current:
        raise StaleVersion("the image never had that version", current=current)


def display_name(file_name: str) -> str:
    """A file's name for display: the last path segment, NFC, without control or bidi characters. Never a path."""
    last = unicodedata.normalize("NFC", file_name).replace("\\", "/").rsplit("/", 1)[-1]
    visible = "".join(char for char in last if unicodedata.category(char)[0] != "C")
    return visible[:MAX_FILE_NAME_LENGTH] or "unnamed"


def single(ordinal: int) -> bytes:
    """A serialized set of one image."""
    return bytes(BitMap([ordinal]).serialize())


def replace_tags(image: TagEditContext, proposed: Sequence[str]) -> TagsEdited | None:
    """Three-way merge: what changed between `image.base` and `proposed`, applied to the current tags."""
    edit = diff(image.base, [canonicalize(tag) for tag in proposed])
    return edit_tags(image, add=edit.add, remove=edit.remove)


def edit_tags(image: TagEditContext, *, add: Sequence[str], remove: Sequence[str]) -> TagsEdited | None:
    """The event with the new decisions, none if all were made before. Rejected if a tag is both added and removed."""
    to_add, to_remove = [canonicalize(tag) for tag in add], [canonicalize(tag) for tag in remove]
    both = set(to_add) & set(to_remove)
    if both:
        raise Rejected(f"one edit cannot both add and remove {', '.join(sorted(both))}")
    asserted = tuple(tag for tag in dict.fromkeys(to_add) if tag not in image.asserted)
    rejected = tuple(tag for tag in dict.fromkeys(to_remove) if tag not in image.rejected)
    if not asserted and not rejected:
        return None
    return TagsEdited(images=single(image.ordinal), asserted=asserted, rejected=rejected)


def import_tags(ordinal: int, tags: Sequence[str]) -> tuple[TagsEdited | None, str | None]:
    """The event for tags that came with an image, and a message about tags that are invalid or too many."""
    accepted: dict[str, None] = {}
    problems: list[str] = []
    room = MAX_IMPORTED_TAG_BYTES
    for text in tags:
        try:
            tag = canonicalize(text)
        except Rejected as error:
            problems.append(error.detail)
            continue
        room -= 0 if tag in accepted else len(tag.encode())
        if room < 0:
            problems.append(f"more than {MAX_IMPORTED_TAG_BYTES >> 10} KiB of tags; the rest were not imported")
            break
        accepted[tag] = None
    event = TagsEdited(images=single(ordinal), asserted=tuple(accepted), source="import") if accepted else None
    return event, _summarize(problems)


def _summarize(problems: Sequence[str]) -> str | None:
    more = len(problems) - MAX_NAMED_PROBLEMS
    return "; ".join([*problems[:MAX_NAMED_PROBLEMS], *([f"and {more} more"] if more > 0 else [])]) or None


def set_caption(
    *, ordinal: int, current: Sealed | None, changed_at: int, proposed: Sealed | None, seen: int | None
) -> CaptionSet | None:
    """Captions do not merge: StaleVersion if the caption changed (at sequence `changed_at`) after the client saw it.

    Only the caption counts: tags that changed since are no conflict.
    """
    if proposed == current:
        return None
    if seen is not None and changed_at > seen:
        raise StaleVersion("somebody else has changed the caption since you saw it", current=changed_at)
    return CaptionSet(ordinal=ordinal, caption=proposed)


def build_caption(written: str | None, tags: Sequence[str], trigger: str) -> str:
    """The training text: the written caption or the joined tags, with the trigger in front unless it is there."""
    text = written if written is not None else caption_from_tags(tags)
    if not trigger or any(part.strip() == trigger for part in text.split(",")):
        return text
    # In a sentence the trigger may be a word of it; among tags `cat ears` is not the tag `cat`.
    if written is not None and re.search(rf"(?<!\w){re.escape(trigger)}(?!\w)", written):
        return text
    return f"{trigger}, {text}" if text else trigger


def select_images_to_tag(dataset: str, ordinals: Collection[int], covered: Collection[int], *, only_new: bool) -> bytes:
    """The images of a tagging run, serialized; Rejected if there are none."""
    if not ordinals:
        raise Rejected(f"the data set {dataset!r} is empty; import images first", reason="empty-dataset")
    selected = BitMap(ordinals) - BitMap(covered) if only_new else BitMap(ordinals)
    if not selected:
        raise Rejected(f"this model has covered every image of {dataset!r} already", reason="nothing-new")
    return bytes(selected.serialize())


def not_found(kind: str, ref: str) -> NotFound:
    return NotFound(f"there is no {kind} {ref!r}")
