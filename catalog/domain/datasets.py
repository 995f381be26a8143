"""The rules of data sets, images, tags and captions. Pure: rows in, facts out."""

import re
import unicodedata
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from pyroaring import BitMap

from catalog.domain.manifest import joined
from contracts.errors import InUse, NotFound, Rejected, StaleVersion
from contracts.events import CaptionSet, Sealed, TagsEdited
from contracts.tags import canonical, delta

RESERVED = frozenset({"health", "prepare", "categories", "generate-config"})
"""Names that are words of the API: a thing called so could not be asked for."""
LONGEST_NAME = 255
"""Characters of a file name that are kept, as file systems do."""
IMPORTED_TAG_BYTES = 16 * 1024
"""So many bytes of tags are taken with one picture: what people write fits, and one file does not fill a commit."""
JOBS_NAMED = 10
COMPLAINTS = 3
"""So many bad tags of a file are told one by one."""


@dataclass(frozen=True, kw_only=True)
class Tagged:
    """What deciding about one image's tags needs: what holds now, what somebody saw, what people decided so far."""

    ordinal: int
    now: tuple[str, ...]
    seen: tuple[str, ...]
    asserted: frozenset[str]
    rejected: frozenset[str]


def clean(name: str) -> str:
    """A name of a data set or a preset as it is kept; Rejected where it cannot be one."""
    kept = " ".join(unicodedata.normalize("NFC", name).split())
    if not kept or any(unicodedata.category(sign)[0] == "C" for sign in kept) or set(kept) & set("/\\?#%"):
        raise Rejected(f"{name!r} cannot be a name: it needs letters, and no / \\ ? # % or unseen characters")
    if kept in (".", "..") or kept.casefold() in RESERVED or kept.startswith(("ds_", "img_", "job_")):
        raise Rejected(f"the name {kept!r} is reserved; choose another", reason="reserved-name")
    return kept


def taken(name: str) -> Rejected:
    return Rejected(f"there is a data set called {name!r} already", reason="name-taken")


def not_in_use(jobs: Sequence[str]) -> None:
    """Pictures are not taken from under a job: InUse names those that wait or train."""
    if jobs:
        named = ", ".join(jobs[:JOBS_NAMED]) + (" and others" if len(jobs) > JOBS_NAMED else "")
        raise InUse(f"jobs wait or train on it: {named}; let them end, or cancel them", jobs=list(jobs[:JOBS_NAMED]))


def whole(version: int, erased: int) -> None:
    """A version some of whose images were erased is nothing to train on any more."""
    if erased:
        sentence = f"{erased} of the images of version {version} were erased for good; freeze another version"
        raise Rejected(sentence, reason="images-erased", version=version, erased=erased)


def seen_once(seen: int | None, *, added: int, current: int) -> None:
    """Could somebody have seen this version of an image? Else StaleVersion."""
    if seen is not None and not added <= seen <= current:
        raise StaleVersion("the image never had that version", current=current)


def label(file_name: str) -> str:
    """A file's name as it is shown: the last part, NFC, without control or bidi signs. It never becomes a path."""
    last = unicodedata.normalize("NFC", file_name).replace("\\", "/").rsplit("/", 1)[-1]
    return "".join(sign for sign in last if unicodedata.category(sign)[0] != "C")[:LONGEST_NAME] or "unnamed"


def one(ordinal: int) -> bytes:
    """A set of one image."""
    return bytes(BitMap([ordinal]).serialize())


def replaced(image: Tagged, proposed: Sequence[str]) -> TagsEdited | None:
    """Somebody who saw `image.seen` wants the list to be `proposed`: what they changed, on top of what is there now."""
    edit = delta(image.seen, [canonical(tag) for tag in proposed])
    return edited(image, add=edit.add, remove=edit.remove)


def edited(image: Tagged, *, add: Sequence[str], remove: Sequence[str]) -> TagsEdited | None:
    """Add and remove: a fact with what was not decided so already, or nothing. Rejected for one tag in both."""
    wanted, unwanted = [canonical(tag) for tag in add], [canonical(tag) for tag in remove]
    both = set(wanted) & set(unwanted)
    if both:
        raise Rejected(f"one edit cannot both add and remove {', '.join(sorted(both))}")
    asserted = tuple(tag for tag in dict.fromkeys(wanted) if tag not in image.asserted)
    rejected = tuple(tag for tag in dict.fromkeys(unwanted) if tag not in image.rejected)
    if not asserted and not rejected:
        return None
    return TagsEdited(images=one(image.ordinal), asserted=asserted, rejected=rejected)


def imported_tags(ordinal: int, tags: Sequence[str]) -> tuple[TagsEdited | None, str | None]:
    """Tags that came with a picture, and what is to be said about those that cannot be tags or are too many."""
    good: dict[str, None] = {}
    complaints: list[str] = []
    room = IMPORTED_TAG_BYTES
    for text in tags:
        try:
            tag = canonical(text)
        except Rejected as error:
            complaints.append(error.detail)
            continue
        room -= 0 if tag in good else len(tag.encode())
        if room < 0:
            complaints.append(f"more than {IMPORTED_TAG_BYTES >> 10} KiB of tags; the rest were not taken")
            break
        good[tag] = None
    fact = TagsEdited(images=one(ordinal), asserted=tuple(good), source="import") if good else None
    return fact, _summed_up(complaints)


def _summed_up(complaints: Sequence[str]) -> str | None:
    more = len(complaints) - COMPLAINTS
    return "; ".join([*complaints[:COMPLAINTS], *([f"and {more} more"] if more > 0 else [])]) or None


def captioned(
    *, ordinal: int, now: Sealed | None, changed_at: int, wanted: Sealed | None, seen: int | None
) -> CaptionSet | None:
    """Captions do not merge: who saw an older one than there is now is refused (StaleVersion).

    Only the caption counts: tags that changed since are no conflict.
    """
    if wanted == now:
        return None
    if seen is not None and changed_at > seen:
        raise StaleVersion("somebody else has changed the caption since you saw it", current=changed_at)
    return CaptionSet(ordinal=ordinal, caption=wanted)


def caption(written: str | None, tags: Sequence[str], trigger: str) -> str:
    """What the trainer reads: the written caption or the tags joined, the trigger in front unless it is there."""
    text = written if written is not None else joined(tags)
    if not trigger or any(part.strip() == trigger for part in text.split(",")):
        return text
    # In a sentence it is there as a word; among tags `cat ears` is not the tag `cat`.
    if written is not None and re.search(rf"(?<!\w){re.escape(trigger)}(?!\w)", written):
        return text
    return f"{trigger}, {text}" if text else trigger


def to_tag(dataset: str, ordinals: Collection[int], covered: Collection[int], *, only_new: bool) -> bytes:
    """The images of a tagging run; Rejected when there are none."""
    if not ordinals:
        raise Rejected(f"the data set {dataset!r} is empty; bring in pictures first", reason="empty-dataset")
    chosen = BitMap(ordinals) - BitMap(covered) if only_new else BitMap(ordinals)
    if not chosen:
        raise Rejected(f"this model has seen every image of {dataset!r} already", reason="nothing-new")
    return bytes(chosen.serialize())


def missing(kind: str, ref: str) -> NotFound:
    return NotFound(f"there is no {kind} {ref!r}")
