"""Cost of a training step: `OMP_NUM_THREADS=1 python -m benchmarks.engine`.

CPU milliseconds (the machine may be shared) per step of the whole engine on the tiny-random base: batch 1,
64 px, rank 4, gradients clipped. Compared with the minimum: forward and backward of the same denoiser with the same
adapter. Both are measured in turns; medians are printed. Then the start-up time of the child process.
"""

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import torch

from contracts.recipe import AdamW, Data, LoRA, Recipe, Sampling, Save, Steps
from demo_world import pictures
from trainer.engine.tiny_random import make_tiny_random
from trainer.engine.training import BaseCache, Training
from trainer.engine_pipe import UPDATES
from trainer.messages import AdapterMetadata, EngineReady, Example, Stepped, Train

TURNS, STEPS, WARM_UP = 9, 20, 20


def build_request(folder: Path) -> Train:
    paths = pictures.write_pictures(folder / "pictures", count=12, seed=0)
    return Train(
        recipe=Recipe(
            adapter=LoRA(rank=4, alpha=4.0),
            optimizer=AdamW(lr=1e-3),
            data=Data(resolution=64, bucket_step=64),
            length=Steps(count=10_000),
            save=Save(every=10_000),
            sampling=Sampling(steps=1),
            device="cpu",
        ),
        base_folder=str(make_tiny_random(folder / "base")),
        examples=[
            Example(
                path=str(path),
                digest=sha256(path.read_bytes()).hexdigest(),
                caption=path.with_suffix(".txt").read_text(),
                ordinal=ordinal,
            )
            for ordinal, path in enumerate(paths)
        ],
        work_folder=str(folder / "work"),
        cache_folder=str(folder / "cache"),
        draft_folder=str(folder / "drafts"),
        metadata=AdapterMetadata(adapter_name="x", job_id="x", dataset_name="x", dataset_version=1, base_name="x"),
    )


def cpu_ms(work: Callable[[], object]) -> float:
    """Mean CPU milliseconds of STEPS calls."""
    started = time.process_time()
    for _ in range(STEPS):
        work()
    return (time.process_time() - started) / STEPS * 1000


def measure_steps(folder: Path) -> tuple[float, float]:
    """Median CPU milliseconds of an engine step, and of forward and backward alone."""
    request = build_request(folder)
    bases = BaseCache()
    training = Training(request, bases, {})
    updates = training.updates()
    training_steps = (update for update in updates if isinstance(update, Stepped))
    for _ in range(WARM_UP):
        next(training_steps)
    denoiser = bases.get(Path(request.base_folder), torch.device("cpu"), torch.float32)[0].denoiser
    latents, embeddings, timestep = torch.randn(1, 4, 8, 8), torch.randn(1, 77, 32), torch.tensor([500])

    def forward_backward() -> None:
        denoiser(latents, timestep, embeddings).sample.square().mean().backward()
        denoiser.zero_grad(set_to_none=True)

    pairs = [(cpu_ms(lambda: next(training_steps)), cpu_ms(forward_backward)) for _ in range(TURNS)]
    updates.close()
    return statistics.median(engine for engine, _ in pairs), statistics.median(minimum for _, minimum in pairs)


def measure_startup() -> float:
    """Seconds from starting the child process until it reports Ready."""
    started = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, "-m", "trainer.engine"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as child:
        assert child.stdout is not None
        while update := UPDATES.read(child.stdout):
            if isinstance(update, EngineReady):
                return time.perf_counter() - started
    raise RuntimeError("the child ended before it was ready")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        engine, minimum = measure_steps(Path(folder))
    threads = torch.get_num_threads()
    print(f"engine step: {engine:.1f} CPU ms (forward and backward alone: {minimum:.1f}), {threads} threads")
    print(f"child process ready after {statistics.median(measure_startup() for _ in range(3)):.1f} s")


if __name__ == "__main__":
    main()
