"""What a run will do, computed before its first step: pure arithmetic from a recipe and the sizes of its pictures.

Every step's batches and rate are functions of the plan and the step, so the step alone is the place in the run.
"""

import math
from collections.abc import Sequence
from functools import lru_cache

import msgspec

from contracts.errors import Rejected
from contracts.recipe import Constant, Cosine, Epochs, Linear, Recipe, Schedule, Steps
from trainer import chance

Size = tuple[int, int]
"""Width and height in pixels."""

Batch = tuple[int, ...]
"""Places in the manifest of the pictures of one forward pass, all of one bucket."""

_SLIMMEST = 2
"""A bucket's sides lie between resolution / 2 and resolution * 2 (aspect 1:4 at most, as kohya's defaults do)."""


class Bucket(msgspec.Struct, frozen=True):
    """The pictures (places in the manifest) that are cut to one size."""

    size: Size
    members: tuple[int, ...]


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """A run laid out. A step never reaches over the end of an epoch, so epochs have equally many steps.

    `steps` counts optimizer updates; each takes up to `accumulate` batches of up to `batch_size` pictures.
    """

    seed: int
    steps: int
    epochs: int
    batches_per_epoch: int
    steps_per_epoch: int
    batch_size: int
    accumulate: int
    repeats: int
    buckets: tuple[Bucket, ...]
    save_every: int
    sample_every: int

    def saves_at(self, step: int) -> bool:
        return step == self.steps or (step > 0 and step % self.save_every == 0)

    def samples_at(self, step: int) -> bool:
        """Every `sample_every` steps, before the first one (what the base does alone) and at the end; 0: at the end."""
        return step == self.steps or (self.sample_every > 0 and step % self.sample_every == 0)

    def epoch_of(self, step: int) -> int:
        """The epoch step `step` belongs to; both count from 1."""
        return (step - 1) // self.steps_per_epoch + 1

    def batches_of(self, step: int) -> tuple[Batch, ...]:
        """The batches whose gradients make up this step (from 1)."""
        start = (step - 1) % self.steps_per_epoch * self.accumulate
        return epoch(self, self.epoch_of(step))[start : start + self.accumulate]

    def size_of(self) -> dict[int, Size]:
        """The size each picture is cut to, by its place in the manifest."""
        return {member: bucket.size for bucket in self.buckets for member in bucket.members}


def draw_up(recipe: Recipe, sizes: Sequence[Size]) -> Plan:
    """The plan for pictures of these sizes; Rejected if there are none or no bucket can be made."""
    if not sizes:
        raise Rejected("the data set version has no pictures to train on")
    data = recipe.data
    buckets = assign(sizes, bucket_sizes(data.resolution, data.bucket_step))
    batches = sum(-(-len(bucket.members) * data.repeats // data.batch_size) for bucket in buckets)
    steps_per_epoch = -(-batches // data.accumulate)
    match recipe.length:
        case Steps(count=steps):
            epochs = -(-steps // steps_per_epoch)
        case Epochs(count=epochs):
            steps = epochs * steps_per_epoch
    return Plan(
        seed=recipe.seed,
        steps=steps,
        epochs=epochs,
        batches_per_epoch=batches,
        steps_per_epoch=steps_per_epoch,
        batch_size=data.batch_size,
        accumulate=data.accumulate,
        repeats=data.repeats,
        buckets=buckets,
        save_every=recipe.save.every,
        sample_every=recipe.sampling.every,
    )


def bucket_sizes(resolution: int, step: int) -> tuple[Size, ...]:
    """Every size a picture may be cut to: sides multiples of `step`, area at most `resolution` squared."""
    if step > resolution:
        raise Rejected(f"data.bucket_step ({step} px) is larger than data.resolution ({resolution} px)")
    longest = resolution * _SLIMMEST // step * step
    shortest = max(step, -(-resolution // _SLIMMEST // step) * step)
    sides = range(shortest, longest + 1, step)
    wide = [(side, min(longest, resolution**2 // side // step * step)) for side in sides]
    whole = {(width, height) for width, height in wide if height >= step}
    return tuple(sorted(whole | {(height, width) for width, height in whole}))


def assign(sizes: Sequence[Size], choices: Sequence[Size]) -> tuple[Bucket, ...]:
    """Each picture in the bucket whose aspect is nearest (by ratio); of two as near, the larger, then the wider."""

    def distance(picture: Size, bucket: Size) -> tuple[float, int, int]:
        ratio = math.log(picture[0] * bucket[1] / (picture[1] * bucket[0]))
        return round(abs(ratio), 9), -bucket[0] * bucket[1], -bucket[0]

    found: dict[Size, list[int]] = {}
    for place, size in enumerate(sizes):
        found.setdefault(min(choices, key=lambda choice: distance(size, choice)), []).append(place)
    return tuple(Bucket(size, tuple(members)) for size, members in sorted(found.items()))


@lru_cache(maxsize=2)
def epoch(plan: Plan, number: int) -> tuple[Batch, ...]:
    """The batches of one epoch in order: each picture `repeats` times, buckets never mixed, from (seed, epoch)."""
    batches: list[Batch] = []
    for bucket in plan.buckets:
        members = chance.order(bucket.members * plan.repeats, plan.seed, "order", number, *bucket.size)
        starts = range(0, len(members), plan.batch_size)
        batches += [tuple(members[start : start + plan.batch_size]) for start in starts]
    return tuple(chance.order(batches, plan.seed, "batches", number))


def rate_at(schedule: Schedule, step: int, steps: int) -> float:
    """The share of the learning rate in force at `step` of `steps` (from 1): warm-up, then the schedule's curve.

    The curve reaches 0 where the step after the last would be, and the first step of a warm-up has 1/warmup of the
    rate, not none: a step that learns nothing is a step lost.
    """
    if step <= schedule.warmup:
        return step / schedule.warmup
    done = (step - schedule.warmup - 1) / max(1, steps - schedule.warmup)
    match schedule:
        case Constant():
            return 1.0
        case Linear():
            return 1.0 - done
        case Cosine():
            return (1.0 + math.cos(math.pi * done)) / 2
