"""A resumed run equals an uninterrupted one, bit for bit on the CPU."""

import json
from pathlib import Path
from typing import get_args

import msgspec
import pytest
from safetensors import safe_open

from contracts.recipe import Optimizer
from tests.trainer.builders import Workbench, last, only
from trainer.engine.checkpoint import BadCheckpoint
from trainer.engine.training import Training
from trainer.messages import Finished, Planned, Sampled, Saved, Stepped, Train

OPTIMIZERS = [kind.__struct_config__.tag for kind in get_args(Optimizer)]
HARD: dict[str, object] = {
    "data.batch_size": 2,
    "data.accumulate": 2,
    "data.repeats": 3,
    "data.shuffle_tags": True,
    "data.caption_dropout": 0.3,
    "adapter.dropout": 0.2,
    "objective.noise_offset": 0.1,
    "objective.min_snr_gamma": 5.0,
}
SCHEDULE: dict[str, object] = {"schedule": {"type": "cosine", "warmup": 3}}
CASES: dict[str, dict[str, object]] = {
    **{f"whole blocks, {name}": {"adapter.layers": "transformer", "optimizer": {"type": name}} for name in OPTIMIZERS},
    "adamw, hard": HARD | SCHEDULE,
    "adafactor, hard": HARD | {"optimizer": {"type": "adafactor"}},
    "whole blocks, preserved": HARD
    | {"data.accumulate": 1, "adapter.layers": "transformer", "preservation": {"prompts": ["a cat", "a dog"]}},
    "checkpointing": {"gradient_checkpointing": True, "adapter.dropout": 0.2},
}


QUICK = "adamw, hard"
"""The hardest case; without `--all` the others are left out."""


@pytest.mark.parametrize(
    "changes",
    [pytest.param(case, marks=[] if name == QUICK else [pytest.mark.slow]) for name, case in CASES.items()],
    ids=CASES.keys(),
)
def test_a_run_resumed_after_seven_steps_equals_the_uninterrupted_one(
    bench: Workbench, changes: dict[str, object]
) -> None:
    whole = bench.run(bench.request(**changes, length__count=11))

    stopped = Training(bench.request(**changes, length__count=11), bench.bases, {"torch": "x"})
    updates = stopped.updates()
    while stopped.step < 7:
        next(updates)
    saved = stopped.save_checkpoint()
    updates.close()
    assert saved is not None
    rest = bench.run(bench.request(saved.path, **changes, length__count=11))

    assert last(rest, Planned).step == 7
    assert [step.step for step in only(rest, Stepped)] == list(range(8, 12))
    losses = [step.loss for step in only(whole, Stepped)]
    assert [step.loss for step in only(rest, Stepped)] == losses[7:]
    files_of = last(whole, Finished).kohya.path, last(rest, Finished).kohya.path
    for ours, theirs in ((last(whole, Saved).path, last(rest, Saved).path), files_of):
        assert Path(ours).read_bytes() == Path(theirs).read_bytes()
    assert Path(last(whole, Sampled).path).read_bytes() == Path(last(rest, Sampled).path).read_bytes()


@pytest.mark.slow
def test_images_with_repeats_are_seen_as_often_and_a_resumed_run_equals_the_uninterrupted_one(
    bench: Workbench,
) -> None:
    """Repeats of 1 and 3: an epoch has 4 exposures, and stops in the middle of the second are exact."""
    examples = [
        msgspec.structs.replace(example, repeats=repeats, has_mask=repeats == 3)
        for example, repeats in zip(bench.examples, (1, 3), strict=False)
    ]

    def request(resume_from: str | None = None) -> Train:
        whole = bench.request(resume_from, length={"type": "epochs", "count": 3})
        return msgspec.structs.replace(whole, examples=examples)

    whole = bench.run(request())
    planned = last(whole, Planned)
    assert (planned.steps, planned.epochs, planned.unused_masks) == (12, 3, 1)
    stopped = Training(request(), bench.bases, {"torch": "x"})
    updates = stopped.updates()
    while stopped.step < 6:
        next(updates)
    saved = stopped.save_checkpoint()
    updates.close()
    assert saved is not None
    rest = bench.run(request(saved.path))
    assert [step.loss for step in only(rest, Stepped)] == [step.loss for step in only(whole, Stepped)][6:]
    files = last(whole, Finished).kohya.path, last(rest, Finished).kohya.path
    assert Path(files[0]).read_bytes() == Path(files[1]).read_bytes()
    with safe_open(files[0], framework="pt") as opened:
        header = opened.metadata()
    assert json.loads(header["ss_dataset_dirs"]) == {
        "1_creatures": {"n_repeats": 1, "img_count": 1},
        "3_creatures": {"n_repeats": 3, "img_count": 1},
    }
    assert json.loads(header["ss_tag_frequency"]).keys() == {"1_creatures", "3_creatures"}
    buckets = json.loads(header["ss_bucket_info"])["buckets"].values()
    assert sum(bucket["count"] for bucket in buckets) == int(header["ss_num_train_images"]) == 4
    assert header["ss_num_batches_per_epoch"] == "4"
    other = msgspec.structs.replace(request(saved.path), examples=bench.examples[:2])
    with pytest.raises(BadCheckpoint):
        bench.run(other)


@pytest.mark.slow
def test_the_same_request_gives_the_same_files_and_another_seed_different_ones(bench: Workbench) -> None:
    one, again, other = (last(bench.run(bench.request(seed=seed)), Finished) for seed in (0, 0, 1))
    for ours, same, different in (
        (one.kohya, again.kohya, other.kohya),
        (one.diffusers, again.diffusers, other.diffusers),
    ):
        assert Path(ours.path).read_bytes() == Path(same.path).read_bytes()
        assert ours.tensors != different.tensors


@pytest.mark.slow
def test_sampling_does_not_change_training(bench: Workbench) -> None:
    few = bench.run(bench.request(adapter__dropout=0.2, length__count=6))
    many = bench.run(
        bench.request(adapter__dropout=0.2, length__count=6, sampling__every=1, sampling__prompts=("a", "b"))
    )
    assert last(few, Finished).kohya.tensors == last(many, Finished).kohya.tensors
    assert [(sample.step, sample.index) for sample in only(many, Sampled)] == [(s, i) for s in range(7) for i in (0, 1)]


@pytest.mark.slow
def test_a_longer_run_can_resume_from_a_shorter_one(bench: Workbench) -> None:
    short = bench.run(bench.request(length__count=3))
    longer = bench.run(bench.request(last(short, Saved).path, length__count=6))
    whole = bench.run(bench.request(length__count=6))
    assert last(longer, Finished).kohya.tensors == last(whole, Finished).kohya.tensors


@pytest.mark.slow
def test_a_run_killed_after_its_last_checkpoint_only_writes_its_files(bench: Workbench) -> None:
    whole = bench.run(bench.request())
    rest = bench.run(bench.request(last(whole, Saved).path))
    assert only(rest, Stepped) == []
    assert last(rest, Sampled).step == 4
    assert last(rest, Finished).kohya.tensors == last(whole, Finished).kohya.tensors
