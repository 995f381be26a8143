"""Metrics of the trainer: its state as a worker, and the memory of its device."""

from pathlib import Path

from prometheus_client.metrics_core import Metric

from contracts.wire.service.bus import Bus
from contracts.wire.service.metrics import ServiceMetrics, disk_source, gauge
from contracts.wire.workers.metrics import worker_metrics
from trainer.settings import Settings
from trainer.warm_engine import WarmEngine


def trainer_metrics(bus: Bus, settings: Settings, engine: WarmEngine) -> ServiceMetrics:
    folders: dict[str, Path] = {"cache": settings.cache, "work": settings.work, "loras": settings.loras}
    metrics = ServiceMetrics("trainer", bus)
    metrics.add("worker", worker_metrics(engine.heartbeat))
    metrics.add("disk", disk_source(folders))

    async def device_memory() -> list[Metric]:
        memory = engine.device_memory
        used = [] if memory is None else [((), float(memory.used))]
        total = [] if memory is None else [((), float(memory.total))]
        return [
            gauge("loratory_device_memory_used_bytes", "Memory in use on the device, by all programs", (), used),
            gauge("loratory_device_memory_size_bytes", "Memory of the device", (), total),
        ]

    metrics.add("device", device_memory)
    return metrics
