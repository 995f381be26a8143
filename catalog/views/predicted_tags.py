"""Which images have which tags after other predictions count or pass, of a whole data set: computed, then written.

This view comes after `tags`. With the first tags the numbers of tags and the ETags are written: what is computed anew
after a kill no longer finds what they came from.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import msgspec
from pyroaring import BitMap

from catalog.database import Connection
from catalog.domain.effective_tags import Rules
from catalog.views import columns, datasets, pairs, predictions, tag_digits, tag_sets
from catalog.views.batch import CommitBatch, GoOn, Step
from catalog.views.tag_digits import Counted, NumberChange
from catalog.views.tag_sets import DatasetTags, TagChanges
from contracts.events.datasets import RulesSet, ThresholdsSet

TAGS_AT_ONCE = 100
"""Tags whose sets are in memory at once, and written before asking whether to go on."""
PREDICTED: tuple[Counted, ...] = ("any", "model")
"""The sources from which images have more or fewer tags by other predictions."""


TABLES = ""


def apply(connection: Connection, batch: CommitBatch) -> None:
    for toggle in batch.toggles:
        if toggle.dataset_id in batch.repredicted or datasets.has_other_rules(connection, toggle):
            _apply_rules(connection, batch, toggle.dataset_id, toggle.sequence)
    for recorded, _ in batch.events(ThresholdsSet, RulesSet):
        _apply_rules(connection, batch, recorded.commit.aggregate_id, recorded.sequence)


def _apply_rules(connection: Connection, batch: CommitBatch, dataset_id: str, sequence: int) -> None:
    """Other tags are predicted by other rules, or of other runs. An image whose tags change gets a new ETag."""
    old, new = (
        predictions.rules_by_id(connection, datasets.acceptance_at(connection, dataset_id, at))
        for at in (sequence - 1, sequence)
    )
    affected = None if dataset_id in batch.repredicted else pairs.affected_tags(old, new)
    tags = None if affected is None else tuple(sorted(affected))
    batch.steps.append(PredictAgain(dataset_id=dataset_id, sequence=sequence, tags=tags))


@dataclass(frozen=True)
class PredictedTags:
    """All that is to be written of a data set: `parts` by their last tag, ascending.

    `images`: those whose tags change. `digits`: of each source, before and after.
    """

    dataset_id: str
    parts: Sequence[tuple[int, TagChanges]]
    images: BitMap
    digits: Sequence[tuple[Counted, list[BitMap], list[BitMap]]]

    def write(self, connection: Connection, sequence: int, after: int, go_on: GoOn) -> int | None:
        """Write the tags after one, as far as there is time; returns the last of them. None: there are no more."""
        if after < 0:
            for source, digits_before, digits in self.digits:
                tag_digits.save(connection, self.dataset_id, source, digits_before, digits)
            columns.mark_changed(connection, self.dataset_id, self.images, sequence)
        left = [(last, changes) for last, changes in self.parts if last > after]
        for number, (last, changes) in enumerate(left, start=1):
            changes.write(connection)
            if number < len(left) and not go_on():
                return last
        return None


class PredictAgain(Step, frozen=True, kw_only=True):
    """Finds the images of tags by the current predictions and rules; `tags` None: of all.

    `after`: the last tag that is done.
    """

    sequence: int
    tags: tuple[int, ...] | None = None
    after: int = -1

    def plan(self, connection: Connection) -> PredictedTags:
        rules = predictions.rules_by_id(connection, datasets.acceptance_at(connection, self.dataset_id))
        return _compute(connection, self.dataset_id, rules, self.tags, self.after)

    def run(self, connection: Connection, plan: object, go_on: GoOn, /) -> "Step | None":
        assert isinstance(plan, PredictedTags)  # noqa: S101 - made by the method above
        last = plan.write(connection, self.sequence, self.after, go_on)
        return None if last is None else msgspec.structs.replace(self, after=last)


def _compute(
    connection: Connection, dataset_id: str, rules: Rules, tags: Collection[int] | None, after: int
) -> PredictedTags:
    """By the current predictions and these rules, of some tags (None: of all), those after one."""
    known = tag_sets.predicted_tags(connection, dataset_id)
    if tags is not None:
        known &= set(tags)
    passing = predictions.passing_images(connection, dataset_id, rules, tags, known).after(after)
    parts, changed, numbers = list[tuple[int, TagChanges]](), BitMap(), {name: NumberChange() for name in PREDICTED}
    for last, changes in _changes(connection, dataset_id, passing):
        for source, number in numbers.items():
            number.add(changes.by_source[source])
        changed |= changes.images
        changes.by_source.clear()
        parts.append((last, changes))
    before = {source: tag_digits.load_digits(connection, dataset_id, source) for source in numbers}
    digits = [(source, before[source], number.applied_to(before[source])) for source, number in numbers.items()]
    return PredictedTags(dataset_id, parts, changed, digits)


def _changes(
    connection: Connection, dataset_id: str, passing: Iterator[tuple[int, BitMap]]
) -> Iterator[tuple[int, TagChanges]]:
    """Of some tags at a time, each time with the last of them."""
    while some := dict(islice(passing, TAGS_AT_ONCE)):
        tags = DatasetTags(connection, dataset_id)
        tags.load(some)
        for tag, images in some.items():
            tags[tag].predicted = images
        yield max(some), tags.changes()
