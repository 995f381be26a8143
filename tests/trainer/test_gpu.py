"""The engine on a CUDA device: precisions, resuming, and files that load on a CPU. Skipped if there is no device."""

from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline

from tests.trainer.builders import Workbench, last, only
from trainer.engine.device import MemoryMeter
from trainer.engine.training import Training
from trainer.messages import Finished, Planned, Sampled, Stepped

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="gpu: there is none on this machine"),
]


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_the_loss_falls_in_every_precision_and_the_file_loads(bench: Workbench, base: Path, precision: str) -> None:
    request = bench.request(
        device="cuda", precision=precision, length__count=60, data__batch_size=4, adapter__rank=8, adapter__alpha=4.0
    )
    updates = bench.run(request)
    losses = [step.loss for step in only(updates, Stepped)]
    assert last(updates, Planned).device.startswith("cuda")
    assert sum(losses[-15:]) < sum(losses[:15])
    assert Path(last(updates, Sampled).path).stat().st_size > 0
    pipeline = StableDiffusionPipeline.from_pretrained(
        base, local_files_only=True, dtype=torch.float32, safety_checker=None
    )
    pipeline.load_lora_weights(last(updates, Finished).kohya.path)


def test_auto_chooses_cuda_and_bfloat16_if_supported(bench: Workbench) -> None:
    planned = last(bench.run(bench.request(device="auto", precision="auto", length__count=1)), Planned)
    assert planned.device.startswith("cuda")
    assert planned.precision == ("bfloat16" if torch.cuda.is_bf16_supported() else "float32")


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_a_resumed_run_has_nearly_the_losses_of_an_uninterrupted_one(bench: Workbench, precision: str) -> None:
    """Not bit for bit: on a GPU the order of summation varies between runs."""
    changes: dict[str, object] = {"device": "cuda", "precision": precision, "length.count": 20}
    whole = bench.run(bench.request(**changes))
    stopped = Training(bench.request(**changes), bench.bases, {"torch": "x"})
    updates = stopped.updates()
    while stopped.step < 9:
        next(updates)
    saved = stopped.save_checkpoint()
    updates.close()
    assert saved is not None
    rest = bench.run(bench.request(saved.path, **changes))
    expected = [step.loss for step in only(whole, Stepped)][9:]
    assert [step.loss for step in only(rest, Stepped)] == pytest.approx(expected, rel=0.02)


def test_the_memory_of_the_device_is_read_at_most_once_in_an_interval(bench: Workbench) -> None:
    bench.run(bench.request(device="cuda", length__count=1))
    meter = MemoryMeter(interval=60)
    memory = meter.read()
    assert memory is not None
    assert 0 < memory.used < memory.total == torch.cuda.get_device_properties(0).total_memory
    assert meter.read() is None
