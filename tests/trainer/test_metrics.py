"""The memory of the device: sent by the engine, kept by the trainer, shown as a metric."""

import os
import sys
from pathlib import Path

import torch

from contracts.ids import WorkerId
from contracts.wire.service.bus import Bus
from contracts.wire.service.credentials import Password
from contracts.wire.system.child import PipedChild
from contracts.wire.workers.heartbeat import HeartbeatPublisher
from tests.contracts.test_metrics import samples
from trainer.engine.device import MemoryMeter
from trainer.engine_process import EngineProcess
from trainer.messages import DeviceMemory, Stopped
from trainer.metrics import trainer_metrics
from trainer.settings import Settings
from trainer.warm_engine import WarmEngine

ENGINE = """
import sys
from trainer.engine_pipe import UPDATES
from trainer.messages import DeviceMemory, Stopped
for update in (DeviceMemory(used=1, total=9), DeviceMemory(used=2, total=9), Stopped(step=1, path=None)):
    UPDATES.write(sys.stdout.buffer, update)
sys.stdin.read()
"""
"""A process that speaks like an engine on a GPU."""


async def test_the_last_memory_is_kept_and_shown_until_the_engine_ends(tmp_path: Path) -> None:
    process = EngineProcess(await PipedChild.start((sys.executable, "-c", ENGINE), dict(os.environ)))
    heartbeat = HeartbeatPublisher(service="trainer", worker=WorkerId("w"), state="busy", device="NVIDIA H100")
    engine = WarmEngine({}, heartbeat, _process=process)
    metrics = trainer_metrics(
        Bus("trainer", Password("none")), Settings(cache=tmp_path, work=tmp_path, loras=tmp_path), engine
    )
    try:
        assert await process.next_update() == Stopped(step=1, path=None)
        assert process.memory == DeviceMemory(used=2, total=9)
        found = samples(await metrics.text())
        assert found["loratory_device_memory_used_bytes"] == 2
        assert found["loratory_device_memory_size_bytes"] == 9
        assert (found["loratory_worker_state/busy"], found["loratory_device_info/NVIDIA H100"]) == (1, 1)
    finally:
        await engine.close()
    found = samples(await metrics.text())
    assert "loratory_device_memory_used_bytes" not in found
    assert found["loratory_disk_free_bytes/loras"] > 0


def test_the_memory_is_not_asked_for_before_a_cuda_device_is_in_use() -> None:
    was_in_use = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]  # torch has no types for it
    assert (MemoryMeter().read() is not None) == was_in_use
