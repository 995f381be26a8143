"""The effective tags of images, now and as of a sequence: from edits, predictions, rules and orders."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from catalog.database import MAX_SEQUENCE, Connection
from catalog.domain.edits import latest_choices, tags_of
from catalog.domain.effective_tags import (
    Decision,
    Decisions,
    EffectiveTags,
    Runs,
    TagState,
    decisions_of,
    derive_effective_tags,
    derive_tag_state,
    in_caption_order,
)
from catalog.domain.image_sets import bitmap_of
from catalog.domain.rules import Rules
from catalog.views import datasets, image_predictions, ranking, texts
from catalog.views import tag_names as names
from catalog.views.edits import edits_after, edits_of
from catalog.views.tag_names import Names
from contracts.commits import RecordedCommit
from contracts.events.datasets import ImageAdded, TagsEdited


@dataclass(frozen=True)
class _Known:
    """What the effective tags of some images are derived from, by ordinal: tags by id, and the names of all of them."""

    rules: Rules
    decisions: Mapping[int, Decisions]
    predictions: Mapping[int, Runs]
    orders: Mapping[int, Sequence[int]]
    names: Names

    def effective_tags(self, ordinal: int) -> EffectiveTags:
        return derive_effective_tags(*self._of(ordinal))

    def tag_state(self, ordinal: int) -> TagState:
        return derive_tag_state(*self._of(ordinal))

    def _of(self, ordinal: int) -> tuple[Decisions, Runs, Rules, Names, Sequence[int]]:
        predicted, order = self.predictions.get(ordinal, ()), self.orders.get(ordinal, ())
        return self.decisions[ordinal], predicted, self.rules, self.names, order


def _load(connection: Connection, dataset_id: str, ordinals: Sequence[int], as_of: int | None, known: Names) -> _Known:
    if as_of is None:
        until, acceptance = MAX_SEQUENCE, datasets.current_acceptance(connection, dataset_id)
    else:
        until, acceptance = as_of, datasets.acceptance_at(connection, dataset_id, as_of)
    edits = edits_of(connection, dataset_id, ordinals, until)
    predicted = image_predictions.load_current(connection, dataset_id, ordinals, until)
    tags = tags_of(edits.values())
    for runs in predicted.values():
        for run in runs:
            tags.update([found[0] for found in run])
    return _Known(
        rules=image_predictions.rules_by_id(connection, acceptance),
        decisions={ordinal: decisions_of(some) for ordinal, some in edits.items()},
        predictions=predicted,
        orders=_orders(connection, dataset_id, ordinals, until),
        names=names.add_names(connection, tags, known),
    )


def _orders(
    connection: Connection, dataset_id: str, ordinals: Sequence[int], until: int = MAX_SEQUENCE
) -> dict[int, list[int]]:
    """The order of the tags of these images, where one was set, of the tags that the log has named."""
    orders = texts.orders(connection, dataset_id, ordinals, until)
    ids = names.ids_of(connection, {tag for order in orders.values() for tag in order}) if orders else {}
    return {ordinal: [ids[tag] for tag in order if tag in ids] for ordinal, order in orders.items()}


def effective_tags(
    connection: Connection,
    dataset_id: str,
    ordinals: Sequence[int],
    as_of: int | None = None,
    known: Names | None = None,
) -> dict[int, EffectiveTags]:
    """The effective tags by ordinal, now or as of a sequence of the log (edits, runs and thresholds alike).

    `known` gets the names that are read for it.
    """
    loaded = _load(connection, dataset_id, ordinals, as_of, {} if known is None else known)
    return {ordinal: loaded.effective_tags(ordinal) for ordinal in ordinals}


def shown_tags(
    connection: Connection, dataset_id: str, ordinals: Sequence[int], known: Names
) -> dict[int, tuple[str, ...]]:
    """The names of the effective tags now, for many images at a time; `known` gets the names that are read for it."""
    predicted = image_predictions.current_rows(connection, dataset_id, ordinals)
    edits = edits_of(connection, dataset_id, ordinals)
    named = names.add_names(connection, tags_of(edits.values()) | ranking.tags_in(predicted), known)
    rules = image_predictions.rules_by_id(connection, datasets.acceptance_at(connection, dataset_id))
    ranked = ranking.ranked(predicted, rules, named)
    orders = _orders(connection, dataset_id, ordinals)

    def names_of(ordinal: int) -> tuple[str, ...]:
        shown = in_caption_order(latest_choices(edits[ordinal]), ranked.get(ordinal, ()), orders.get(ordinal, ()))
        return tuple(map(named.__getitem__, shown))

    return {ordinal: names_of(ordinal) for ordinal in ordinals}


def tag_names(connection: Connection, dataset_id: str, ordinal: int, as_of: int | None = None) -> tuple[str, ...]:
    """The effective tags of one image; with `as_of` those that a client with this ETag saw."""
    return effective_tags(connection, dataset_id, [ordinal], as_of)[ordinal].names


def state_of(connection: Connection, dataset_id: str, ordinal: int) -> TagState:
    return _load(connection, dataset_id, [ordinal], None, {}).tag_state(ordinal)


def states_of(connection: Connection, dataset_id: str, ordinals: Sequence[int]) -> dict[int, TagState]:
    """The same of many images."""
    loaded = _load(connection, dataset_id, ordinals, None, {})
    return {ordinal: loaded.tag_state(ordinal) for ordinal in ordinals}


def decided(
    connection: Connection, dataset_id: str, ordinals: Sequence[int]
) -> tuple[dict[int, dict[str, Decision]], dict[int, frozenset[str]]]:
    """The decisions that hold on the tags of these images, in the order they were made.

    And the tags that persons left to the models again.
    """
    edits = edits_of(connection, dataset_id, ordinals)
    named = names.add_names(connection, tags_of(edits.values()), {})
    held = {ordinal: decisions_of(some) for ordinal, some in edits.items()}
    withdrawn = {
        ordinal: frozenset(named[tag] for edit in some if edit.source == "person" for tag in edit.withdrawn)
        for ordinal, some in edits.items()
    }
    return {ordinal: {named[tag]: one for tag, one in some.items()} for ordinal, some in held.items()}, withdrawn


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
