"""Tagging beside a bare onnxruntime loop: `python -m benchmarks.tagging [PICTURES] [TURNS] [MODEL]`. Linux.

A real stack imports JPEGs of 512 pixels. Then, in turns, the service tags them all, and a loop over onnxruntime, at its
default settings, is fed from the same stored files by a pool of as many processes, which pad, resize and make the
model's input. `bench`: a network of convolutions with an input of 448 pixels and 6,000 tags that is made here, of
which some 150 of a picture are above `STORED_FLOOR`, as with WD's models; `demo` is the shipped one, of which the work
around the model is most. Ratios are those of the medians; time from the request until the run is shown as ended, CPU
time of the tagger with its child processes.
"""

import asyncio
import itertools
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from statistics import median

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from benchmarks.bigset.stack import cpu_seconds, peak_memory
from benchmarks.ingest import photograph
from contracts.shipped_models import shipped_models
from contracts.wire.blobs.store import LocalBlobs
from loratory.client import AsyncClient
from loratory.services import CORE_SERVICES
from loratory.stack import Stack

DATASET = "bench"
SIZE, TAGS = 448, 6000
CHANNELS = (3, 48, 96, 192, 384)
BASE_LOGIT = -5.3
THRESHOLD = 0.35
START_TIMEOUT_SECONDS = 120.0
WARM_UP = 4


def write_model(folder: Path) -> None:
    """WD's interface: NHWC, BGR, probabilities. About as many operations as a small vision transformer."""
    rng = np.random.default_rng(1)
    nodes = [helper.make_node("Transpose", ["input"], ["x0"], perm=[0, 3, 1, 2])]
    weights = []
    for step, (given, made) in enumerate(itertools.pairwise(CHANNELS)):
        kernel = rng.normal(0, (2 / (9 * given)) ** 0.5, (made, given, 3, 3)).astype(np.float32)
        weights.append(numpy_helper.from_array(kernel / (255 if step == 0 else 1), f"w{step}"))
        nodes += [
            helper.make_node("Conv", [f"x{step}", f"w{step}"], [f"c{step}"], strides=[2, 2], pads=[1, 1, 1, 1]),
            helper.make_node("Relu", [f"c{step}"], [f"x{step + 1}"]),
        ]
    last = len(CHANNELS) - 1
    weights.append(numpy_helper.from_array(rng.normal(0, 0.2, (CHANNELS[-1], TAGS)).astype(np.float32), "mix"))
    weights.append(numpy_helper.from_array(np.full(TAGS, BASE_LOGIT, np.float32), "base"))
    nodes += [
        helper.make_node("ReduceMean", [f"x{last}"], ["mean"], axes=[2, 3], keepdims=0),
        helper.make_node("MatMul", ["mean", "mix"], ["mixed"]),
        helper.make_node("Add", ["mixed", "base"], ["logits"]),
        helper.make_node("Sigmoid", ["logits"], ["output"]),
    ]
    graph = helper.make_graph(
        nodes,
        "bench",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["n", SIZE, SIZE, 3])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["n", TAGS])],
        weights,
    )
    folder.mkdir(parents=True)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(folder / "model.onnx"))
    rows = [f"{number},tag_{number},{9 if number < 4 else 0},1" for number in range(TAGS)]
    (folder / "selected_tags.csv").write_text("\n".join(["tag_id,name,category,count", *rows]) + "\n")


def read_input(path: Path, size: int) -> NDArray[np.float32]:
    with Image.open(path) as image:
        rgb = image.convert("RGB")
    side = max(rgb.size)
    square = Image.new("RGB", (side, side), "white")
    square.paste(rgb, ((side - rgb.width) // 2, (side - rgb.height) // 2))
    resized = square.resize((size, size), Image.Resampling.BICUBIC)
    return np.ascontiguousarray(np.asarray(resized, dtype=np.float32)[None, :, :, ::-1])


def tag_bare(session: ort.InferenceSession, pool: ProcessPoolExecutor, paths: list[Path]) -> int:
    """The number of tags above the threshold."""
    (given,), (made,) = session.get_inputs(), session.get_outputs()
    inputs = pool.map(partial(read_input, size=given.shape[1]), paths, chunksize=4)
    return sum(int((session.run([made.name], {given.name: one})[0] > THRESHOLD).sum()) for one in inputs)


def cpu_with_children(pid: int) -> float:
    """Seconds of a process, all its threads, and its child processes, ended or running."""
    ticks = 0
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, rest = status.read_text().rpartition(")")
        except OSError:
            continue  # it ended meanwhile
        fields = rest.split()
        if int(name.split()[0]) == pid:
            ticks += sum(map(int, fields[11:15]))  # its own, and of children that ended
        elif int(fields[1]) == pid:
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


@contextmanager
def timed(turns: list[tuple[float, float]], cpu_clock: Callable[[], float]) -> Iterator[None]:
    started, used = time.perf_counter(), cpu_clock()
    yield
    turns.append((time.perf_counter() - started, cpu_clock() - used))


async def measure(stack: Stack, client: AsyncClient, model: str, folder: Path, turns: int) -> None:
    images = await client.images(DATASET)
    store, pid = LocalBlobs(stack.data / "blobs"), stack.pid_of("tagger")
    assert pid is not None
    paths = [store.path(image.picture) for image in images]

    async def tag() -> None:
        run = await client.wait_tagging((await client.tag(DATASET, model=model)).id)
        assert run.status == "completed", run

    await tag()  # loads the model
    before = peak_memory(pid)
    session = ort.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    ours: list[tuple[float, float]] = []
    bare: list[tuple[float, float]] = []
    with ProcessPoolExecutor(os.cpu_count() or 1, get_context("spawn")) as pool:
        tag_bare(session, pool, paths[:WARM_UP])
        for _ in range(turns):
            with timed(bare, partial(cpu_with_children, os.getpid())):
                others = sum(cpu_seconds(each) for each in children_of_stack(stack))
                await asyncio.to_thread(tag_bare, session, pool, paths)
            spent = sum(cpu_seconds(each) for each in children_of_stack(stack)) - others
            bare[-1] = bare[-1][0], bare[-1][1] - spent
            with timed(ours, partial(cpu_with_children, pid)):
                await tag()
    print(f"{model}: {len(images)} pictures, medians of {turns} turns, {os.cpu_count()} processes")
    for name, rows in (("bare onnxruntime loop", bare), ("tagging run", ours)):
        (wall, cpu), (bare_wall, bare_cpu) = (tuple(map(median, zip(*each, strict=True))) for each in (rows, bare))
        print(
            f"{name:<24}{wall:7.2f} s, {cpu:6.2f} s of CPU, {len(images) / wall:6.1f} pictures/s "
            f"{bare_wall / wall:6.2f} x bare, {bare_cpu / cpu:5.2f} x bare in CPU time"
        )
    print(f"memory of the tagger: {before:.0f} MB, growth {peak_memory(pid) - before:.0f} MB")


def children_of_stack(stack: Stack) -> list[int]:
    """The services, which are child processes of this one too."""
    return [pid for service in (*CORE_SERVICES, "tagger") if (pid := stack.pid_of(service)) is not None]


async def main(pictures: int, turns: int, model: str) -> None:
    with tempfile.TemporaryDirectory() as created:
        folder = Path(created)
        made = folder / "pictures"
        made.mkdir()
        for seed in range(pictures):
            photograph(512, 384 if seed % 3 else 512, seed).save(made / f"{seed:05}.jpg", quality=90)
        write_model(folder / "data" / "models" / "bench")
        async with Stack(folder / "data", environ={}, port=0, without=("trainer",)) as stack:
            await stack.wait_ready((*CORE_SERVICES, "tagger"), timeout=START_TIMEOUT_SECONDS)
            async with AsyncClient(stack.address) as client:
                await client.create_dataset(DATASET)
                await client.import_folder(DATASET, made)
                models = {**shipped_models("taggers"), "bench": folder / "data" / "models" / "bench"}
                await measure(stack, client, model, models[model], turns)


if __name__ == "__main__":
    pictures, turns, model = (*sys.argv[1:], *("96", "3", "bench")[len(sys.argv) - 1 :])
    asyncio.run(main(int(pictures), int(turns), model))
