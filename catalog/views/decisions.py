"""The effective tags of images, now and as of a sequence: from edits, predictions, rules and orders."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from catalog.database import MAX_SEQUENCE, Connection
from catalog.domain.edits import choices, latest_choices, tags_of
from catalog.domain.effective_tags import (
    Decision,
    EffectiveTags,
    ModelPredictions,
    TagState,
    derive_effective_tags,
    derive_tag_state,
    in_caption_order,
)
from catalog.domain.image_sets import bitmap_of
from catalog.views import datasets, predictions, ranking, texts
from catalog.views import tag_names as names
from catalog.views.edits import edits_after, edits_of
from catalog.views.tag_names import Names
from contracts.commits import RecordedCommit
from contracts.events.datasets import ImageAdded, TagsEdited
from contracts.tags import Acceptance


@dataclass(frozen=True)
class _Known:
    """What the effective tags of some images are derived from, by ordinal, and the rules of their data set."""

    rules: Acceptance
    decisions: Mapping[int, Sequence[Decision]]
    predictions: Mapping[int, Sequence[ModelPredictions]]
    orders: Mapping[int, Sequence[str]]

    def effective_tags(self, ordinal: int) -> EffectiveTags:
        predicted, order = self.predictions.get(ordinal, ()), self.orders.get(ordinal, ())
        return derive_effective_tags(self.decisions[ordinal], predicted, self.rules, order)


def _load(connection: Connection, dataset_id: str, ordinals: Sequence[int], as_of: int | None = None) -> _Known:
    if as_of is None:
        until, rules = MAX_SEQUENCE, datasets.current_acceptance(connection, dataset_id)
    else:
        until, rules = as_of, datasets.acceptance_at(connection, dataset_id, as_of)
    return _Known(
        rules=rules,
        decisions=decisions_of(connection, dataset_id, ordinals, until),
        predictions=predictions.load_current(connection, dataset_id, ordinals, until),
        orders=texts.orders(connection, dataset_id, ordinals, until),
    )


def effective_tags(
    connection: Connection, dataset_id: str, ordinals: Sequence[int], as_of: int | None = None
) -> dict[int, EffectiveTags]:
    """The effective tags by ordinal, now or as of a sequence of the log (edits, runs and thresholds alike)."""
    known = _load(connection, dataset_id, ordinals, as_of)
    return {ordinal: known.effective_tags(ordinal) for ordinal in ordinals}


def shown_tags(
    connection: Connection, dataset_id: str, ordinals: Sequence[int], known: Names
) -> dict[int, tuple[str, ...]]:
    """The names of the effective tags now, for many images at a time; `known` gets the names that are read for it."""
    predicted = predictions.current_rows(connection, dataset_id, ordinals)
    edits = edits_of(connection, dataset_id, ordinals)
    named = names.add_names(connection, tags_of(edits.values()) | ranking.tags_in(predicted), known)
    rules = predictions.rules_by_id(connection, datasets.acceptance_at(connection, dataset_id))
    ranked = ranking.ranked(predicted, rules, named)
    orders = texts.orders(connection, dataset_id, ordinals)

    ids = names.ids_of(connection, {tag for order in orders.values() for tag in order}) if orders else {}

    def names_of(ordinal: int) -> tuple[str, ...]:
        order = [ids[tag] for tag in orders.get(ordinal, ()) if tag in ids]
        shown = in_caption_order(latest_choices(edits[ordinal]), ranked.get(ordinal, ()), order)
        return tuple(map(named.__getitem__, shown))

    return {ordinal: names_of(ordinal) for ordinal in ordinals}


def tag_names(connection: Connection, dataset_id: str, ordinal: int, as_of: int | None = None) -> tuple[str, ...]:
    """The effective tags of one image; with `as_of` those that a client with this ETag saw."""
    return effective_tags(connection, dataset_id, [ordinal], as_of)[ordinal].names


def state_of(connection: Connection, dataset_id: str, ordinal: int) -> TagState:
    known = _load(connection, dataset_id, [ordinal])
    predicted, order = known.predictions.get(ordinal, ()), known.orders.get(ordinal, ())
    return derive_tag_state(known.decisions[ordinal], predicted, known.rules, order)


def decisions_of(
    connection: Connection, dataset_id: str, ordinals: Sequence[int], until: int = MAX_SEQUENCE
) -> dict[int, list[Decision]]:
    """The decisions that hold, by ordinal, oldest first, as of a sequence."""
    edits = edits_of(connection, dataset_id, ordinals, until)
    named = names.names_of(connection, {tag for some in edits.values() for edit in some for tag in edit.tags})
    return {
        ordinal: [
            Decision(tag=named[tag], choice=choice, source=edit.source, actor=edit.actor, sequence=edit.sequence)
            for edit in some
            for tag, choice in choices(edit)
        ]
        for ordinal, some in edits.items()
    }


def later_commits(connection: Connection, dataset_id: str, commits: Iterable[RecordedCommit]) -> tuple[int, ...]:
    """The commits after these that decided about the same tags of the same images, and count.

    None for imports: what was decided about images that go out with one is kept with them.
    """
    found: set[int] = set()
    for recorded in commits:
        events = () if _is_import(recorded) else recorded.commit.events
        for event in (event for event in events if isinstance(event, TagsEdited)):
            ids = set(names.ids_of(connection, (*event.asserted, *event.rejected, *event.withdrawn)).values())
            images = bitmap_of(event.images)
            later = edits_after(connection, dataset_id, images, recorded.sequence)
            found |= {edit.sequence for edit, edited in later if ids & {*edit.tags} and edited & images}
    return tuple(sorted(found))


def _is_import(recorded: RecordedCommit) -> bool:
    return any(isinstance(event, ImageAdded) for event in recorded.commit.events)
