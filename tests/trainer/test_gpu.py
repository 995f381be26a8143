"""The same engine on a CUDA device: precisions, resume, and files that a CPU loads. Skipped where there is none."""

from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline

from tests.trainer.builders import Workbench, last, only
from trainer.engine.training import Training
from trainer.messages import Finished, Planned, Sampled, Stepped

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="gpu: there is none on this machine"),
]


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_it_learns_in_every_precision_and_the_file_loads(bench: Workbench, base: Path, precision: str) -> None:
    order = bench.order(
        device="cuda", precision=precision, length__count=60, data__batch_size=4, adapter__rank=8, adapter__alpha=4.0
    )
    updates = bench.run(order)
    losses = [step.loss for step in only(updates, Stepped)]
    assert last(updates, Planned).device.startswith("cuda")
    assert sum(losses[-15:]) < sum(losses[:15])
    assert Path(last(updates, Sampled).path).stat().st_size > 0
    pipeline = StableDiffusionPipeline.from_pretrained(
        base, local_files_only=True, dtype=torch.float32, safety_checker=None
    )
    pipeline.load_lora_weights(last(updates, Finished).kohya.path)


def test_auto_takes_the_device_and_bfloat16_where_it_has_it(bench: Workbench) -> None:
    planned = last(bench.run(bench.order(device="auto", precision="auto", length__count=1)), Planned)
    assert planned.device.startswith("cuda")
    assert planned.precision == ("bfloat16" if torch.cuda.is_bf16_supported() else "float32")


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_a_resumed_run_goes_on_as_the_run_would_have(bench: Workbench, precision: str) -> None:
    """Kernels that add in any order move last bits on a GPU, so near, not equal."""
    changes: dict[str, object] = {"device": "cuda", "precision": precision, "length.count": 20}
    whole = bench.run(bench.order(**changes))
    stopped = Training(bench.order(**changes), bench.bases, {"torch": "x"})
    updates = stopped.updates()
    while stopped.step < 9:
        next(updates)
    kept = stopped.keep()
    updates.close()
    assert kept is not None
    rest = bench.run(bench.order(**changes, resume_from=kept.path))
    ours = [step.loss for step in only(whole, Stepped)][9:]
    assert [step.loss for step in only(rest, Stepped)] == pytest.approx(ours, rel=0.02)
