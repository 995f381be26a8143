"""What a step costs: `OMP_NUM_THREADS=1 python -m benchmarks.engine`.

CPU milliseconds (not wall time: the machine may be shared) of a step of the whole engine on the stand-in base, batch 1,
64 px, rank 4, gradients clipped, beside the least there is: forward and backward of the same denoiser with the same
adapter. Both are measured in turns; medians are printed. Then how long the child takes until it is ready.
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
from trainer import messages
from trainer.demo import pictures
from trainer.demo.stand_in import make_stand_in
from trainer.engine.training import Bases, Training
from trainer.messages import Example, Facts, Ready, Stepped, Train

TURNS, STEPS, WARM_UP = 9, 20, 20


def order(folder: Path) -> Train:
    drawn = pictures.write(folder / "pictures", count=12, seed=0)
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
        base_folder=str(make_stand_in(folder / "base")),
        examples=[
            Example(
                path=str(path),
                digest=sha256(path.read_bytes()).hexdigest(),
                caption=path.with_suffix(".txt").read_text(),
                ordinal=ordinal,
            )
            for ordinal, path in enumerate(drawn)
        ],
        work_folder=str(folder / "work"),
        cache_folder=str(folder / "cache"),
        facts=Facts(adapter_name="x", job_id="x", dataset_name="x", dataset_version=1, base_name="x"),
    )


def cpu_ms(work: Callable[[], object]) -> float:
    started = time.process_time()
    for _ in range(STEPS):
        work()
    return (time.process_time() - started) / STEPS * 1000


def steps(folder: Path) -> tuple[float, float]:
    """Medians of the engine's step and of the bare forward and backward, in CPU milliseconds."""
    asked = order(folder)
    bases = Bases()
    training = Training(asked, bases, {})
    updates = training.updates()
    told = (update for update in updates if isinstance(update, Stepped))
    for _ in range(WARM_UP):
        next(told)
    denoiser = bases.loaded(Path(asked.base_folder), torch.device("cpu"), torch.float32)[0].denoiser
    latents, texts, at = torch.randn(1, 4, 8, 8), torch.randn(1, 77, 32), torch.tensor([500])

    def bare() -> None:
        denoiser(latents, at, texts).sample.square().mean().backward()
        denoiser.zero_grad(set_to_none=True)

    pairs = [(cpu_ms(lambda: next(told)), cpu_ms(bare)) for _ in range(TURNS)]
    updates.close()
    return statistics.median(whole for whole, _ in pairs), statistics.median(least for _, least in pairs)


def ready() -> float:
    """Seconds from starting the child until it says it is ready."""
    started = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, "-m", "trainer.engine"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as child:
        assert child.stdout is not None
        while prefix := child.stdout.read(messages.PREFIX):
            if isinstance(messages.update_in(child.stdout.read(messages.length(prefix))), Ready):
                return time.perf_counter() - started
    raise RuntimeError("the child ended before it was ready")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        whole, least = steps(Path(folder))
    print(
        f"engine step: {whole:.1f} CPU ms (forward and backward alone: {least:.1f}), {torch.get_num_threads()} thread"
    )
    print(f"child ready: {statistics.median(ready() for _ in range(3)):.1f} s")


if __name__ == "__main__":
    main()
