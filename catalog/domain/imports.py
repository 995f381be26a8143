"""The rules of imports: each file is added, recognised as a duplicate, or refused. Pure: rows in, events out."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import msgspec

from catalog.domain import received_texts
from catalog.domain.image_sets import image_set
from catalog.domain.received_texts import BY_RULE, ReadBy, TextState
from contracts.commands.datasets import ImportedFile
from contracts.errors import Rejected
from contracts.events.datasets import (
    CaptionSet,
    DatasetEvent,
    ImageAdded,
    ImageRefused,
    MaskSet,
    RepeatsSet,
    TagsEdited,
)
from contracts.ids import Digest, ImageId
from contracts.sealed import CAPTION, seal
from contracts.tags import canonicalize

MAX_IMPORTED_TAG_BYTES = 16 * 1024
"""Maximum bytes of tags imported with one image: ample for real lists, and one file cannot fill a commit."""
MAX_NAMED_PROBLEMS = 3
"""Maximum number of a file's invalid tags that are reported one by one."""
MAX_NAMED_CONFLICTS = 20
"""Maximum number of a file's changes that are listed as not applied."""


@dataclass(frozen=True, kw_only=True)
class ExaminedFile:
    """A file as the event of a refused file, or of a new image whose ordinal is still open; `key` seals its texts.

    `mask`: the blob of its mask; `mask_problem`: why the mask that came with it was not taken.
    """

    event: ImageAdded | ImageRefused
    key: bytes
    caption: str | None = None
    tags: Sequence[str] = ()
    text: str | None = None
    repeats: int | None = None
    mask: Digest | None = None
    mask_problem: str = ""


NoKey = Literal["key-missing", "lost"]
"""The key is missing, and may come back; or its loss was accepted. Both are codes of problems."""
CAPTION_NOT_KEPT: dict[NoKey, str] = {
    "key-missing": "the key of that image is missing, so the caption of this file cannot be stored: bring the key back "
    "with `loratory restore --from BACKUP`, or remove that image, and import the file again",
    "lost": "the key of that image is lost, so the caption of this file cannot be stored: remove that image, and "
    "import the file again",
}
TEXT_NOT_KEPT = "the key of that image is gone, so that its text cannot be stored"


@dataclass(frozen=True, kw_only=True)
class KnownImage:
    """An image of the data set, from before or from this import, that a file with the same pixels duplicates.

    `key` none: its texts cannot be sealed. `no_key`: why, if it was not erased. `text`: what a text that comes with the
    file is compared with; `used_text`: the one that came with an equal file of this import, which counts.
    `repeats`: from before this import.
    """

    image: ImageId
    ordinal: int
    blobs: frozenset[Digest]
    key: bytes | None
    has_caption: bool = False
    no_key: NoKey | None = None
    text: TextState | None = None
    used_text: str | None = None
    repeats: int = 1
    mask: Digest | None = None


@dataclass
class ImportDecision:
    """What one import adds to a data set. `unused_blobs` were stored, and no event names them.

    `files` has one result per file, in order and without the name: names are private, and results are stored.
    `repeats` by ordinal: those that came with a file; of equal files, the last ones.
    """

    read_by: ReadBy = BY_RULE
    events: list[DatasetEvent] = field(default_factory=list)
    files: list[ImportedFile] = field(default_factory=list)
    unused_blobs: set[Digest] = field(default_factory=set)
    repeats: dict[int, int] = field(default_factory=dict)


def decide(
    next_ordinal: int,
    known: Mapping[Digest, KnownImage],
    files: Sequence[ExaminedFile],
    read_by: ReadBy = BY_RULE,
) -> ImportDecision:
    """The events and results of an import into a data set with these images, by the digest of their pixels."""
    decision, ordinal, known = ImportDecision(read_by), next_ordinal, dict(known)
    for file in files:
        match file.event:
            case ImageRefused(image_id=image, reason=reason, detail=detail) as refused:
                decision.events.append(refused)
                decision.files.append(ImportedFile(outcome="refused", image=image, reason=reason, detail=detail))
            case ImageAdded(pixels=pixels) as added if pixels in known:
                known[pixels] = _add_duplicate(decision, file, added, known[pixels])
            case ImageAdded(pixels=pixels) as added:
                known[pixels] = _add(decision, file, msgspec.structs.replace(added, ordinal=ordinal))
                ordinal += 1
    decision.events.extend(_repeats_set(known.values(), decision.repeats))
    return decision


def _repeats_set(images: Iterable[KnownImage], given: Mapping[int, int]) -> list[RepeatsSet]:
    """The events about images whose repeats change."""
    changed: defaultdict[int, list[int]] = defaultdict(list)
    for image in images:
        if (repeats := given.get(image.ordinal, image.repeats)) != image.repeats:
            changed[repeats].append(image.ordinal)
    return [RepeatsSet(images=image_set(ordinals), repeats=repeats) for repeats, ordinals in sorted(changed.items())]


def decide_texts(known: Mapping[ImageId, KnownImage], texts: Mapping[ImageId, str], read_by: ReadBy) -> ImportDecision:
    """The events and results of an import of texts alone: of these images, of which some may not be known any more."""
    decision = ImportDecision(read_by)
    for image, text in texts.items():
        found = known.get(image)
        if found is None or found.key is None:
            reason, detail = ("no-such-image", "the data set has no such image")
            if found is not None and found.no_key is not None:
                reason, detail = found.no_key, TEXT_NOT_KEPT
            decision.files.append(ImportedFile(outcome="refused", image=image, reason=reason, detail=detail))
            continue
        result = ImportedFile(outcome="existing", image=image, ordinal=found.ordinal)
        _, result = _read_text(decision, text, found, result)
        decision.files.append(result)
    return decision


def _add(decision: ImportDecision, file: ExaminedFile, added: ImageAdded) -> KnownImage:
    state = TextState(ordinal=added.ordinal)
    new = KnownImage(image=added.image_id, ordinal=added.ordinal, blobs=_blobs(added), key=file.key, text=state)
    decision.events.append(added)
    if file.caption is not None:
        new = _set_caption(decision, new, file.key, file.caption)
    tagged, problems = import_tags(added.ordinal, file.tags)
    if tagged is not None:
        decision.events.append(tagged)
    result = ImportedFile(outcome="added", image=new.image, ordinal=new.ordinal, detail=_summarize(problems))
    new, result = _read_text(decision, file.text, new, result)
    new, result = _set_repeats_and_mask(decision, file, new, result)
    decision.files.append(result)
    return new


def _add_duplicate(decision: ImportDecision, file: ExaminedFile, added: ImageAdded, known: KnownImage) -> KnownImage:
    """The picture exists already: no new image, but its caption is used where the image has none, and its text is read.

    Refused where a text would be lost, because the image has lost its key.
    """
    decision.unused_blobs.update(_blobs(added) - known.blobs)
    remarks = [f"shows the same picture as {known.image}"]
    if (file.caption is not None or file.text) and known.no_key is not None:
        detail = f"{remarks[0]}; {CAPTION_NOT_KEPT[known.no_key]}"
        refused = ImportedFile(outcome="refused", image=known.image, reason=known.no_key, detail=detail)
        decision.files.append(refused)
        if file.mask is not None:
            decision.unused_blobs.add(file.mask)
        return known
    if file.caption is not None and known.has_caption:
        remarks.append("the existing caption was kept")
    elif file.caption is not None and known.key is not None:
        known = _set_caption(decision, known, known.key, file.caption)
    if file.tags:
        remarks.append("the tags of the file were ignored")
    detail = "; ".join(remarks)
    result = ImportedFile(outcome="existing", image=known.image, ordinal=known.ordinal, reason="twin", detail=detail)
    known, result = _read_text(decision, file.text, known, result)
    known, result = _set_repeats_and_mask(decision, file, known, result)
    decision.files.append(result)
    return known


def _set_repeats_and_mask(
    decision: ImportDecision, file: ExaminedFile, known: KnownImage, result: ImportedFile
) -> tuple[KnownImage, ImportedFile]:
    """Mask and repeats are not merged as texts are: what comes with a file takes the place of what was there."""
    if file.repeats is not None:
        decision.repeats[known.ordinal] = file.repeats
    if file.mask_problem:
        detail = _join(result.detail, f"the mask was not taken: {file.mask_problem}")
        return known, msgspec.structs.replace(result, mask="refused", detail=detail)
    if file.mask is None:
        return known, result
    if file.mask != known.mask:
        decision.events.append(MaskSet(ordinal=known.ordinal, mask=file.mask))
    return replace(known, mask=file.mask), msgspec.structs.replace(result, mask="taken")


def _read_text(
    decision: ImportDecision, text: str | None, known: KnownImage, result: ImportedFile
) -> tuple[KnownImage, ImportedFile]:
    """Of equal files in one import the text of the first counts."""
    if text is None or text == known.used_text or known.key is None or known.text is None:
        return known, result
    if known.used_text is not None:
        remark = "an equal file of this import came with another text, which counts"
        return known, msgspec.structs.replace(result, detail=_join(result.detail, remark))
    reading = received_texts.read(known.text, text, decision.read_by, known.key)
    decided = received_texts.decide(known.text, text, reading, known.key)
    decision.events.extend(decided.events)
    result = msgspec.structs.replace(
        result,
        text=reading.kind,
        detail=_join(result.detail, _summarize(reading.problems)),
        conflicts=tuple(decided.conflicts[:MAX_NAMED_CONFLICTS]),
    )
    return replace(known, used_text=text), result


def _join(*parts: str | None) -> str | None:
    return "; ".join(part for part in parts if part) or None


def _set_caption(decision: ImportDecision, image: KnownImage, key: bytes, text: str) -> KnownImage:
    decision.events.append(CaptionSet(ordinal=image.ordinal, caption=seal(key, text, CAPTION), source="import"))
    return replace(image, has_caption=True)


def _blobs(added: ImageAdded) -> frozenset[Digest]:
    return frozenset({added.cut or added.source, added.picture, added.thumbnail})


def import_tags(ordinal: int, tags: Sequence[str]) -> tuple[TagsEdited | None, list[str]]:
    """The event for tags that came with an image, and what is wrong with tags that are invalid or too many."""
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
    event = TagsEdited(images=image_set([ordinal]), asserted=tuple(accepted), source="import") if accepted else None
    return event, problems


def _summarize(problems: Sequence[str]) -> str | None:
    more = len(problems) - MAX_NAMED_PROBLEMS
    return "; ".join([*problems[:MAX_NAMED_PROBLEMS], *([f"and {more} more"] if more > 0 else [])]) or None
