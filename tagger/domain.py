"""The tagger's rules: what is left to look at, and how answers are packed into commits. Pure."""

from collections.abc import Iterable, Iterator, Sequence

import msgspec

from contracts.errors import Rejected
from contracts.events import AnyFact, ImagePredictions, TaggingModelLoaded, TaggingPredicted, TaggingRequested
from contracts.queries import TaggingImage

FACT_BYTES = 64 * 1024
"""So much of predictions goes into one commit; a third of what a commit may hold."""


def requested(facts: Iterable[tuple[AnyFact, int]]) -> tuple[TaggingRequested, int]:
    """What was asked, and the sequence it stands at."""
    return next((fact, sequence) for fact, sequence in facts if isinstance(fact, TaggingRequested))


def done(facts: Iterable[tuple[AnyFact, int]]) -> dict[int, bool]:
    """The ordinals whose predictions are kept already, with whether the picture was unreadable."""
    return {
        image.ordinal: image.unreadable is not None
        for fact, _ in facts
        if isinstance(fact, TaggingPredicted)
        for image in fact.images
    }


def left(page: Sequence[TaggingImage], kept: dict[int, bool]) -> list[TaggingImage]:
    return [image for image in page if image.ordinal not in kept]


def same_model(facts: Iterable[tuple[AnyFact, int]], loaded: TaggingModelLoaded) -> None:
    """One run is one model: Rejected when its files are others than those of an earlier attempt."""
    before = [fact for fact, _ in facts if isinstance(fact, TaggingModelLoaded)]
    names = (loaded.model, loaded.tags, loaded.preprocessing)
    if before and (before[-1].model, before[-1].tags, before[-1].preprocessing) != names:
        raise Rejected("the model's files have changed since this run began; ask for a new run")


def packed(answers: Iterable[ImagePredictions]) -> Iterator[tuple[ImagePredictions, ...]]:
    """The answers in groups that fit a commit, in order; one that fills a commit alone goes alone."""
    group: list[ImagePredictions] = []
    size = 0
    for answer in answers:
        weight = len(msgspec.json.encode(answer))
        if group and size + weight > FACT_BYTES:
            yield tuple(group)
            group, size = [], 0
        group.append(answer)
        size += weight
    if group:
        yield tuple(group)
