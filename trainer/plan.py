"""The plan of a run, computed before its first step: pure arithmetic from a recipe and the sizes of its pictures.

Every step's batches and learning rate are functions of the plan and the step number, so a run can resume at any step.
"""

import math
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

import msgspec

from contracts.errors import Rejected
from contracts.recipe import Constant, Cosine, Epochs, Linear, Recipe, Schedule, Steps
from trainer import seeded

Size = tuple[int, int]
"""Width and height in pixels."""

Batch = tuple[int, ...]
"""Manifest indices of the pictures of one forward pass, all from one bucket."""

_MAX_SIDE_FACTOR = 2
"""A bucket's sides are between resolution / 2 and resolution * 2 (aspect 1:4 at most, as with kohya's defaults)."""


MAX_EXPOSURES = 20_000_000
"""Maximum pictures of an epoch, with repeats: the order of an epoch is kept in memory."""


class Bucket(msgspec.Struct, frozen=True):
    """The pictures (manifest indices) that are cropped to one size.

    In a plan, each index is a member as often as its own repeats say.
    """

    size: Size
    members: tuple[int, ...]

    @property
    def pictures(self) -> Counter[int]:
        """The repeats of each picture, by its index."""
        return Counter(self.members)


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """The plan of a run. A step never crosses the end of an epoch, so all epochs have the same number of steps.

    `steps` counts optimizer updates; each uses up to `accumulate` batches of up to `batch_size` pictures.
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
        """Every `sample_every` steps, before the first step (the base alone) and at the end; 0: only at the end."""
        return step == self.steps or (self.sample_every > 0 and step % self.sample_every == 0)

    def epoch_of(self, step: int) -> int:
        """The epoch of a step; both count from 1."""
        return (step - 1) // self.steps_per_epoch + 1

    def batches_of(self, step: int) -> tuple[Batch, ...]:
        """The batches whose gradients are accumulated in this step (counted from 1)."""
        start = (step - 1) % self.steps_per_epoch * self.accumulate
        return epoch_batches(self, self.epoch_of(step))[start : start + self.accumulate]

    def sizes_by_index(self) -> dict[int, Size]:
        """The size each picture is cropped to, by its manifest index."""
        return {member: bucket.size for bucket in self.buckets for member in bucket.members}


def build_plan(recipe: Recipe, sizes: Sequence[Size], repeats: Sequence[int] | None = None) -> Plan:
    """The plan for pictures of these sizes, and repeats of their own: 1 each if none are given.

    Rejected: there are no pictures, no possible buckets, or more than MAX_EXPOSURES.
    """
    if not sizes:
        raise Rejected("the data set version has no pictures to train on")
    data = recipe.data
    repeats = [1] * len(sizes) if repeats is None else repeats
    if (exposures := sum(repeats) * data.repeats) > MAX_EXPOSURES:
        raise Rejected(f"with repeats an epoch has {exposures:,} pictures; it may have {MAX_EXPOSURES:,}")
    buckets = repeat_members(assign_buckets(sizes, bucket_sizes(data.resolution, data.bucket_step)), repeats)
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
    """All sizes a picture may be cropped to: sides multiples of `step`, area at most `resolution` squared."""
    if step > resolution:
        raise Rejected(f"data.bucket_step ({step} px) is larger than data.resolution ({resolution} px)")
    longest = resolution * _MAX_SIDE_FACTOR // step * step
    shortest = max(step, -(-resolution // _MAX_SIDE_FACTOR // step) * step)
    sides = range(shortest, longest + 1, step)
    candidates = [(side, min(longest, resolution**2 // side // step * step)) for side in sides]
    sizes = {(width, height) for width, height in candidates if height >= step}
    return tuple(sorted(sizes | {(height, width) for width, height in sizes}))


def assign_buckets(sizes: Sequence[Size], choices: Sequence[Size]) -> tuple[Bucket, ...]:
    """Put each picture into the bucket with the nearest aspect ratio; on a tie the larger, then the wider one."""

    def distance(picture: Size, bucket: Size) -> tuple[float, int, int]:
        ratio = math.log(picture[0] * bucket[1] / (picture[1] * bucket[0]))
        return round(abs(ratio), 9), -bucket[0] * bucket[1], -bucket[0]

    members: dict[Size, list[int]] = {}
    for index, size in enumerate(sizes):
        members.setdefault(min(choices, key=lambda choice: distance(size, choice)), []).append(index)
    return tuple(Bucket(size, tuple(indices)) for size, indices in sorted(members.items()))


def repeat_members(buckets: Sequence[Bucket], repeats: Sequence[int]) -> tuple[Bucket, ...]:
    """The buckets with each picture as often as its repeats say."""
    return tuple(
        Bucket(bucket.size, tuple(member for member in bucket.members for _ in range(repeats[member])))
        for bucket in buckets
    )


@lru_cache(maxsize=2)
def epoch_batches(plan: Plan, number: int) -> tuple[Batch, ...]:
    """The batches of one epoch, shuffled by (seed, epoch): each member `repeats` times, buckets never mixed."""
    batches: list[Batch] = []
    for bucket in plan.buckets:
        members = seeded.shuffled(bucket.members * plan.repeats, plan.seed, "order", number, *bucket.size)
        starts = range(0, len(members), plan.batch_size)
        batches += [tuple(members[start : start + plan.batch_size]) for start in starts]
    return tuple(seeded.shuffled(batches, plan.seed, "batches", number))


def lr_factor(schedule: Schedule, step: int, steps: int) -> float:
    """The factor on the learning rate at `step` of `steps` (counted from 1): warm-up, then the schedule's curve.

    The curve would reach 0 at the step after the last, and the first step of a warm-up has 1/warmup of the rate, not 0:
    a step with learning rate 0 would be wasted.
    """
    if step <= schedule.warmup:
        return step / schedule.warmup
    progress = (step - schedule.warmup - 1) / max(1, steps - schedule.warmup)
    match schedule:
        case Constant():
            return 1.0
        case Linear():
            return 1.0 - progress
        case Cosine():
            return (1.0 + math.cos(math.pi * progress)) / 2
