"""Metrics of a worker: its state, and the device it computes on."""

from typing import get_args

from prometheus_client.metrics_core import Metric

from contracts.wire.service.metrics import Source, gauge
from contracts.wire.workers.heartbeat import HeartbeatPublisher, WorkerState


def worker_metrics(heartbeat: HeartbeatPublisher) -> Source:
    async def collect() -> list[Metric]:
        states = [((state,), float(state == heartbeat.state)) for state in get_args(WorkerState)]
        devices = [((heartbeat.device,), 1.0)] if heartbeat.device else []
        return [
            gauge("loratory_worker_state", "1 for the state that the worker is in", ["state"], states),
            gauge("loratory_device_info", "1 for the device that the worker computes on", ["device"], devices),
        ]

    return collect
