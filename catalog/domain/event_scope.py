"""Restricts events to what they say about one image or one tag. Pure."""

import msgspec

from catalog.domain.image_sets import bitmap_of, image_set
from contracts.aggregates import AnyEvent
from contracts.events.datasets import (
    CommitsUndone,
    DatasetErased,
    DatasetRemoved,
    ImageRefused,
    ImagesRemoved,
    ImagesReviewed,
    RepeatsSet,
    RulesSet,
    TagsEdited,
    ThresholdsSet,
)
from contracts.events.image_sets import OneImageEvent
from contracts.events.tagging import TaggingPredicted

SetEvent = TagsEdited | ImagesRemoved | ImagesReviewed | RepeatsSet | CommitsUndone
ImageEvent = OneImageEvent | ImageRefused | SetEvent | TaggingPredicted
"""Events about individual images; all others are about their aggregate as a whole."""


def scope_to_image(event: AnyEvent, ordinal: int) -> AnyEvent | None:
    """The part of an event that concerns one image of its data set; none if it does not concern it."""
    match event:
        case OneImageEvent(ordinal=at):
            return event if at == ordinal else None
        case (
            TagsEdited(images=images)
            | ImagesRemoved(images=images)
            | ImagesReviewed(images=images)
            | RepeatsSet(images=images)
            | CommitsUndone(images=images)
        ):
            contained = ordinal in bitmap_of(images)
            return msgspec.structs.replace(event, images=image_set([ordinal])) if contained else None
        case TaggingPredicted(images=predicted):
            scoped = tuple(image for image in predicted if image.ordinal == ordinal)
            return msgspec.structs.replace(event, images=scoped) if scoped else None
        case _:
            return None


def scope_to_tag(event: AnyEvent, tag: str) -> AnyEvent | None:
    """The part of an event that concerns one tag, on any image; none if it does not concern it."""
    match event:
        case TagsEdited(asserted=asserted, rejected=rejected, withdrawn=withdrawn):
            if tag not in {*asserted, *rejected, *withdrawn}:
                return None
            parts = {"asserted": asserted, "rejected": rejected, "withdrawn": withdrawn}
            return msgspec.structs.replace(
                event, **{name: (tag,) if tag in tags else () for name, tags in parts.items()}
            )
        case TaggingPredicted(images=images):
            scoped = (
                msgspec.structs.replace(image, predictions=tuple(p for p in image.predictions if p.tag == tag))
                for image in images
            )
            found = tuple(image for image in scoped if image.predictions)
            return msgspec.structs.replace(event, images=found) if found else None
        case _:
            return None


def affects_all_images(event: AnyEvent) -> bool:
    """Whether it changes the effective tags or the visibility of every image of the data set."""
    return isinstance(event, ThresholdsSet | RulesSet | DatasetRemoved | DatasetErased)
