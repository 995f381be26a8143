"""The rules of undo: which commits can be undone, and what goes with them. Pure: commits and rows in, event out."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from pyroaring import BitMap

from catalog.domain.image_sets import bitmap_of, image_set
from contracts.commits import RecordedCommit
from contracts.errors import IllegalTransition, NotFound, Rejected
from contracts.events.base import Event
from contracts.events.datasets import (
    CaptionSet,
    CommitsUndone,
    DatasetRenamed,
    ImageAdded,
    ImageRefused,
    ImagesRemoved,
    ImagesReviewed,
    MaskSet,
    RepeatsSet,
    RulesSet,
    TagsEdited,
    TagsOrdered,
    TextReceived,
    TextSettingsSet,
    ThresholdsSet,
)
from contracts.events.image_sets import ImageSetEvent, OneImageEvent
from contracts.ids import RunId
from contracts.wording import count

UNDOABLE = (
    *(TagsEdited, TagsOrdered, CaptionSet, TextReceived, ThresholdsSet, RulesSet, TextSettingsSet, DatasetRenamed),
    *(RepeatsSet, MaskSet, ImagesRemoved, ImagesReviewed, ImageAdded, ImageRefused, CommitsUndone),
)
"""Not: creating, removing or erasing a data set, erasing an image, freezing a version."""


@dataclass(frozen=True, kw_only=True)
class UndoState:
    """What an undo is decided from.

    `commits`: the one named and those undone with it. `voided`: the commits that do not count already, by the undo that
    is the reason. `run`, `run_images`: the tagging run that is named, and its images. `taken`: whether the name that
    the data set gets back belongs to another one by now.
    """

    commits: Sequence[RecordedCommit] = ()
    voided: Mapping[int, int]
    run: RunId | None = None
    run_images: BitMap | None = None
    run_undone: int = 0
    taken: str = ""


def decide(state: UndoState) -> CommitsUndone:
    """NotFound, Rejected: there is nothing that can be undone. IllegalTransition: it does not count already."""
    if state.taken:
        raise Rejected(f"there is a data set called {state.taken!r} already; rename one first", reason="name-taken")
    if state.run is not None:
        if state.run_undone:
            raise _undone_before(state.run_undone)
        images = state.run_images or BitMap()
        summary = f"the predictions of a tagging run for {count(len(images), 'image')}"
        return CommitsUndone(runs=(state.run,), images=image_set(images), summary=summary)
    if not state.commits:
        raise NotFound("the data set has no such commit")
    for recorded in state.commits:
        _refuse(recorded, state.voided)
    return CommitsUndone(
        commits=tuple(recorded.sequence for recorded in state.commits),
        images=image_set(images_of(state.commits)),
        summary=summary_of(state.commits),
    )


def _refuse(recorded: RecordedCommit, voided: Mapping[int, int]) -> None:
    for event in recorded.commit.events:
        if not isinstance(event, UNDOABLE):
            raise Rejected(f"this cannot be undone: {event.describe()}", reason="not-undoable")
    if recorded.sequence in voided:
        raise _undone_before(voided[recorded.sequence])


def _undone_before(undo: int) -> IllegalTransition:
    return IllegalTransition(f"it was undone before, by commit {undo}; undo that one to bring it back", undo=undo)


def images_of(commits: Collection[RecordedCommit]) -> BitMap:
    """The images that commits are about."""
    found = BitMap()
    for event in (event for recorded in commits for event in recorded.commit.events):
        match event:
            case ImageSetEvent(images=images):
                found |= bitmap_of(images)
            case OneImageEvent(ordinal=ordinal):
                found.add(ordinal)
            case _:
                pass
    return found


def summary_of(commits: Sequence[RecordedCommit]) -> str:
    """What is undone, as a part of a sentence and without private text."""
    events: list[Event] = [event for recorded in commits for event in recorded.commit.events]
    added = sum(isinstance(event, ImageAdded) for event in events)
    read = {event.ordinal for event in events if isinstance(event, TextReceived)}
    if not added and len(read) > 1:
        return f"the reading of {count(len(read), 'text')}"
    if added > 1 or len(commits) > 1:
        return f"the import of {count(added, 'image')}"
    first = events[0].describe()
    return first[0].lower() + first[1:]
