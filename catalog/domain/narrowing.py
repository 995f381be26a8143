"""What of a fact is about one image, or about one tag: the fact cut down to it. Pure."""

import msgspec
from pyroaring import BitMap

from catalog.domain.datasets import one
from contracts.events import (
    AnyFact,
    CaptionSet,
    Commit,
    DatasetErased,
    DatasetRemoved,
    ImageAdded,
    ImageErased,
    ImageRefused,
    ImagesRemoved,
    TaggingPredicted,
    TagsEdited,
    ThresholdsSet,
)

OfImages = ImageAdded | ImageErased | ImageRefused | CaptionSet | TagsEdited | ImagesRemoved | TaggingPredicted
"""Facts about images, each by itself; all others are about a thing as a whole."""


def to_image(fact: AnyFact, ordinal: int) -> AnyFact | None:
    """What it says of one image of its data set; none = it is about others, or about no image."""
    match fact:
        case ImageAdded(ordinal=at) | ImageErased(ordinal=at) | CaptionSet(ordinal=at):
            return fact if at == ordinal else None
        case TagsEdited(images=images) | ImagesRemoved(images=images):
            return msgspec.structs.replace(fact, images=one(ordinal)) if ordinal in BitMap.deserialize(images) else None
        case TaggingPredicted(images=seen):
            mine = tuple(image for image in seen if image.ordinal == ordinal)
            return msgspec.structs.replace(fact, images=mine) if mine else None
        case _:
            return None


def to_tag(fact: AnyFact, tag: str) -> AnyFact | None:
    """What it says of one tag, on whichever images; none = it is about others, or about no tag."""
    match fact:
        case TagsEdited(asserted=asserted, rejected=rejected):
            if tag not in {*asserted, *rejected}:
                return None
            return msgspec.structs.replace(
                fact, asserted=(tag,) if tag in asserted else (), rejected=(tag,) if tag in rejected else ()
            )
        case TaggingPredicted(images=images):
            seen = (
                msgspec.structs.replace(image, predictions=tuple(p for p in image.predictions if p.tag == tag))
                for image in images
            )
            found = tuple(image for image in seen if image.predictions)
            return msgspec.structs.replace(fact, images=found) if found else None
        case _:
            return None


def concerns_all(fact: AnyFact) -> bool:
    """Does it change what tags hold or can be seen, on every image of the data set?"""
    return isinstance(fact, ThresholdsSet | DatasetRemoved | DatasetErased)


def for_image(commit: Commit, ordinal: int) -> Commit:
    """The commit as far as one image depends on it: without what it says of other images."""
    facts = (to_image(fact, ordinal) if isinstance(fact, OfImages) else fact for fact in commit.facts)
    return msgspec.structs.replace(commit, facts=tuple(fact for fact in facts if fact is not None))
