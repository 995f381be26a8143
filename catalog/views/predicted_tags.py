"""Which images have which tags after other predictions count or pass, of a whole data set: computed, then written.

This view comes after `tags`. With the first tags the numbers of tags and the ETags are written: what is computed anew
after a kill no longer finds what they came from.
"""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from itertools import islice, repeat

import msgspec
import numpy as np
from pyroaring import BitMap

from catalog.database import Connection
from catalog.domain.edits import Counted
from catalog.domain.rules import Rules
from catalog.views import columns, datasets, image_predictions, pairs, prediction_parts, tag_digits, tag_sets
from catalog.views.batch import CommitBatch, GoOn, Pairs, Step
from catalog.views.pairs import NO_PAIRS
from catalog.views.tag_digits import NumberChange
from catalog.views.tag_sets import Passing, TagChanges, TagRows, find_predicted
from contracts.events.datasets import RulesSet, ThresholdsSet

TAGS_AT_ONCE = 100
"""Tags whose sets are in memory at once, and written before asking whether to go on."""
PREDICTED: tuple[Counted, ...] = ("any", "model")
"""The sources from which images have more or fewer tags by other predictions, of both the same number."""


TABLES = ""


def apply(connection: Connection, batch: CommitBatch) -> None:
    for toggle in batch.toggles:
        if toggle.dataset_id in batch.repredicted or datasets.has_other_rules(connection, toggle):
            step = PredictAgain if toggle.runs else ApplyRules
            batch.steps.append(step(dataset_id=toggle.dataset_id, sequence=toggle.sequence))
    for recorded, _ in batch.events(ThresholdsSet, RulesSet):
        batch.steps.append(ApplyRules(dataset_id=recorded.commit.aggregate_id, sequence=recorded.sequence))


class PredictedTags(msgspec.Struct, frozen=True, kw_only=True):
    """All that is to be written of a data set: `parts` by their last tag, ascending. Bitmaps are serialized.

    `images`: those whose tags change. `digits`: those of the numbers of tags that change, and how many there are now.
    """

    dataset_id: str
    parts: list[tuple[int, TagRows]]
    images: bytes
    digits: dict[Counted, tuple[dict[int, bytes], int]]

    def write(self, connection: Connection, sequence: int, after: int, go_on: GoOn) -> int | None:
        """Write the tags after one, as far as there is time; returns the last of them. None: there are no more."""
        if after < 0:
            for source, (changed, number) in self.digits.items():
                tag_digits.write(connection, self.dataset_id, source, changed, number)
            columns.mark_changed(connection, self.dataset_id, BitMap.deserialize(self.images), sequence)
        left = [(last, rows) for last, rows in self.parts if last > after]
        for number, (last, rows) in enumerate(left, start=1):
            rows.write(connection)
            if number < len(left) and not go_on():
                return last
        return None


class _ChangePredicted(Step, frozen=True, kw_only=True):
    """Finds the images of tags by the current predictions and rules; an image whose tags change gets a new ETag.

    `after`: the last tag that is done.
    """

    sequence: int
    after: int = -1

    def plan(self, connection: Connection) -> PredictedTags:
        return _compute(connection, self.dataset_id, self.find(connection), self.after)

    @abstractmethod
    def find(self, connection: Connection, /) -> "PassingPairs":
        """What passes now."""

    def run(self, connection: Connection, plan: object, go_on: GoOn, /) -> "Step | None":
        assert isinstance(plan, PredictedTags)  # noqa: S101 - made by the method above
        last = plan.write(connection, self.sequence, self.after, go_on)
        return None if last is None else msgspec.structs.replace(self, after=last)


class ApplyRules(_ChangePredicted, frozen=True, kw_only=True):
    """After the rules were changed: what is predicted as before, and passes by only the old or the new rules."""

    def find(self, connection: Connection) -> "PassingPairs":
        before, after = (_rules_at(connection, self.dataset_id, at) for at in (self.sequence - 1, self.sequence))
        changes = [part.change(before, after) for part in prediction_parts.read_all(connection, self.dataset_id)]
        added, removed = _sorted([one.added for one in changes]), _sorted([one.removed for one in changes])
        return PassingPairs(pairs.tags_of(added, removed), added, removed)


class PredictAgain(_ChangePredicted, frozen=True, kw_only=True):
    """After other predictions count."""

    def find(self, connection: Connection) -> "PassingPairs":
        rules = _rules_at(connection, self.dataset_id, self.sequence)
        found = _sorted([part.passing(rules) for part in prediction_parts.read_all(connection, self.dataset_id)])
        return PassingPairs(pairs.tags_of(found) | tag_sets.predicted_tags(connection, self.dataset_id), found, None)


@dataclass(frozen=True)
class PassingPairs:
    """The pairs, sorted, that pass; `tags`: all that are concerned. `removed`: those that do not; None: all others."""

    tags: AbstractSet[int]
    pairs: Pairs
    removed: Pairs | None

    def by_tag(self, after: int) -> Iterator[Passing]:
        """The tags after one, ascending."""
        tags = sorted(tag for tag in self.tags if tag > after)
        removed = repeat(None) if self.removed is None else pairs.images_by_tag(self.removed, tags)
        return zip(tags, pairs.images_by_tag(self.pairs, tags), removed, strict=False)


def _rules_at(connection: Connection, dataset_id: str, sequence: int) -> Rules:
    return image_predictions.rules_by_id(connection, datasets.acceptance_at(connection, dataset_id, sequence))


def _sorted(parts: Sequence[Pairs]) -> Pairs:
    return np.sort(np.concatenate([NO_PAIRS, *parts]))


def _compute(connection: Connection, dataset_id: str, passing: PassingPairs, after: int) -> PredictedTags:
    """What is to be written of the tags after one."""
    parts, changed, number = list[tuple[int, TagRows]](), BitMap(), NumberChange()
    for last, changes in _changes(connection, dataset_id, passing.by_tag(after)):
        number.add(changes.by_source["any"])
        changed |= changes.images
        parts.append((last, changes.rows))
    before = {source: tag_digits.load_digits(connection, dataset_id, source) for source in PREDICTED}
    digits = {source: (some, number.applied_to(some)) for source, some in before.items()}
    return PredictedTags(
        dataset_id=dataset_id,
        parts=parts,
        images=changed.serialize(),
        digits={source: (tag_digits.changed_digits(some, now), len(now)) for source, (some, now) in digits.items()},
    )


def _changes(connection: Connection, dataset_id: str, passing: Iterator[Passing]) -> Iterator[tuple[int, TagChanges]]:
    """Of some tags at a time, each time with the last of them."""
    while some := list(islice(passing, TAGS_AT_ONCE)):
        yield some[-1][0], find_predicted(connection, dataset_id, some)
