"""A plain model of a data set: folds its commits the slow way, as of any sequence.

What holds is the last decision among commits that were not undone, and what was erased stays erased.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from catalog.domain.edits import voided_commits
from catalog.domain.image_sets import bitmap_of
from contracts.commits import RecordedCommit
from contracts.events.base import Sealed
from contracts.events.datasets import (
    CaptionSet,
    CommitsUndone,
    DatasetCreated,
    DatasetErased,
    DatasetRenamed,
    ImageAdded,
    ImageErased,
    ImagesRemoved,
    ImagesReviewed,
    RulesSet,
    TagsEdited,
    TagsOrdered,
    ThresholdsSet,
)
from contracts.events.tagging import TaggingPredicted, TaggingRequested
from contracts.ids import ImageId

NOW = 2**62
DEFAULT_THRESHOLD, NO_THRESHOLD = 0.35, 2.0


@dataclass
class PlainImage:
    """What holds of one image. `decided`: the last decision on each tag, in order.

    `predicted`: of each model, when its newest run was requested and what that found.
    """

    decided: dict[str, str] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    predicted: dict[str, tuple[int, Mapping[str, float]]] = field(default_factory=dict)
    order: tuple[str, ...] = ()
    caption: Sealed | None = None
    reviewed: bool = False
    present: bool = False
    threshold: float = DEFAULT_THRESHOLD
    deny: frozenset[str] = frozenset()

    @property
    def confidences(self) -> dict[str, float]:
        """The highest prediction of each tag."""
        best: dict[str, float] = {}
        for tag, probability in (one for _, found in self.predicted.values() for one in found.items()):
            best[tag] = max(best.get(tag, 0.0), probability)
        return best

    @property
    def tags(self) -> tuple[str, ...]:
        """In the order of the caption."""
        passing = [
            (-probability, tag)
            for tag, probability in self.confidences.items()
            if probability > self.threshold and tag not in self.deny and self.decision(tag) == "withdrawn"
        ]
        shown = [*self.having("asserted"), *(tag for _, tag in sorted(passing))]
        first = [tag for tag in self.order if tag in shown]
        return (*first, *(tag for tag in shown if tag not in first))

    def having(self, choice: str) -> list[str]:
        return [tag for tag, made in self.decided.items() if made == choice]

    def decision(self, tag: str) -> str:
        return self.decided.get(tag, "withdrawn")


@dataclass
class PlainDataset:
    """The commits of a data set and its tagging runs."""

    commits: list[RecordedCommit]
    runs: dict[str, tuple[str, int]] = field(default_factory=dict)
    """The model of each tagging run, and when it was requested."""

    def __post_init__(self) -> None:
        for at, run, event in self._events(NOW):
            if isinstance(event, TaggingRequested):
                self.runs[run] = event.model, at

    def _events(self, until: int) -> Iterator[tuple[int, str, Any]]:
        for recorded in self.commits:
            if recorded.sequence <= until:
                for event in recorded.commit.events:
                    yield recorded.sequence, recorded.commit.aggregate_id, event

    def voided(self, until: int = NOW) -> set[int]:
        undos = {at: event.commits for at, _, event in self._events(until) if isinstance(event, CommitsUndone)}
        return set(voided_commits(undos))

    def erased(self, until: int = NOW) -> set[int]:
        return {event.ordinal for _, _, event in self._events(until) if isinstance(event, ImageErased)}

    def ids(self, until: int = NOW) -> dict[int, ImageId]:
        """Of all images that were ever added, by ordinal."""
        added = (event for _, _, event in self._events(until) if isinstance(event, ImageAdded))
        return {event.ordinal: event.image_id for event in added}

    def counting(self, until: int) -> Iterator[tuple[str, Any]]:
        void = self.voided(until)
        undone = {
            run
            for at, _, event in self._events(until)
            if isinstance(event, CommitsUndone) and at not in void
            for run in event.runs
        }
        for at, aggregate_id, event in self._events(until):
            if at not in void and not (isinstance(event, TaggingPredicted) and aggregate_id in undone):
                yield aggregate_id, event

    def name(self, until: int = NOW) -> str:
        counting = (event for _, event in self.counting(until) if isinstance(event, DatasetCreated | DatasetRenamed))
        return [event.name for event in counting][-1]

    def image(self, ordinal: int, until: int = NOW) -> PlainImage | None:
        """None: it is not part of the data set."""
        image = PlainImage()
        for aggregate_id, event in self.counting(until):
            self._fold(image, ordinal, aggregate_id, event)
        gone = ordinal in self.erased(until) or any(isinstance(one, DatasetErased) for *_, one in self._events(until))
        return image if image.present and not gone else None

    def images(self, until: int = NOW) -> dict[int, PlainImage]:
        """Those that are part of the data set."""
        found = {ordinal: self.image(ordinal, until) for ordinal in self.ids(until)}
        return {ordinal: image for ordinal, image in found.items() if image is not None}

    def _fold(self, image: PlainImage, ordinal: int, aggregate_id: str, event: Any) -> None:  # noqa: PLR0912 - an arm for each event
        match event:
            case ImageAdded(ordinal=at) if at == ordinal:
                image.present = True
            case ImagesRemoved(images=images) if ordinal in bitmap_of(images):
                image.present = False
            case TagsEdited(images=images) if ordinal in bitmap_of(images):
                groups = ("asserted", event.asserted), ("rejected", event.rejected), ("withdrawn", event.withdrawn)
                for choice, tag in ((choice, tag) for choice, tags in groups for tag in tags):
                    image.decided.pop(tag, None)
                    image.decided[tag] = choice
                    image.sources[tag] = event.source
            case TaggingPredicted(images=predicted):
                for found in (one for one in predicted if one.ordinal == ordinal):
                    model, requested = self.runs[aggregate_id]
                    if image.predicted.get(model, (0, {}))[0] <= requested:
                        image.predicted[model] = requested, {one.tag: one.probability for one in found.predictions}
            case ThresholdsSet(categories=categories):
                image.threshold = categories.get("general", NO_THRESHOLD)
            case RulesSet(deny=denied):
                image.deny = frozenset(denied)
            case TagsOrdered(ordinal=at, tags=tags) if at == ordinal:
                image.order = tags
            case CaptionSet(ordinal=at, caption=caption) if at == ordinal:
                image.caption = caption
            case ImagesReviewed(images=images, reviewed=reviewed) if ordinal in bitmap_of(images):
                image.reviewed = reviewed
            case _:
                pass
