"""Metrics of a service, in the text format of Prometheus: what all services have, and what a service adds.

A scrape calls each source, which may ask the bus or a database; no label has a value for each job, image or request.
"""

import asyncio
import shutil
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric

from contracts.errors import LoratoryError
from contracts.retry import Outage
from contracts.wire.service.bus import Bus

SECONDS_BUCKETS = (0.002, 0.005, 0.02, 0.1, 0.5, 2.0, 10.0, 60.0)
SOURCE_TIMEOUT_SECONDS = 5.0
SOURCE_ERRORS = (LoratoryError, OSError, TimeoutError)
"""Errors of a source that leave out its metrics; the others are shown."""

Samples = Iterable[tuple[Sequence[str], float]]
"""Values of the labels, and the value."""
Source = Callable[[], Awaitable[Iterable[Metric]]]


def gauge(name: str, description: str, labels: Sequence[str], samples: Samples) -> Metric:
    family = GaugeMetricFamily(name, description, labels=labels)
    for values, value in samples:
        family.add_metric(values, value)
    return family


def counter(name: str, description: str, labels: Sequence[str], samples: Samples) -> Metric:
    """`name` without its `_total`."""
    family = CounterMetricFamily(name, description, labels=labels)
    for values, value in samples:
        family.add_metric(values, value)
    return family


class ServiceMetrics:
    """The metrics of one service, in a registry of its own, so that several in one process do not share any."""

    def __init__(self, service: str, bus: Bus) -> None:
        self.service = service
        self.registry = CollectorRegistry()
        self._bus = bus
        self._sources: list[tuple[Source, Outage]] = []
        ProcessCollector(registry=self.registry)
        build = Gauge("loratory_build_info", "Version of Loratory", ["service", "version"], registry=self.registry)
        build.labels(service, version("loratory")).set(1)
        self._requests = {
            kind: (
                Counter(f"loratory_{plural}", f"{plural.capitalize()} answered", [kind, "outcome"], registry=None),
                Histogram(
                    *(f"loratory_{kind}_seconds", f"Time to answer a {kind}", [kind]),
                    buckets=SECONDS_BUCKETS,
                    registry=None,
                ),
            )
            for kind, plural in (("command", "commands"), ("query", "queries"))
        }

    def observe(self, kind: str, name: str, outcome: str, seconds: float) -> None:
        """Counts a request: the argument of `contracts.wire.service.requests.Service`."""
        answered, duration = self._requests[kind]
        answered.labels(name, outcome).inc()
        duration.labels(name).observe(seconds)

    def serves_requests(self) -> None:
        """Shows commands and queries: for a service that answers any."""
        for metrics in self._requests.values():
            for metric in metrics:
                self.registry.register(metric)

    def add(self, name: str, source: Source) -> None:
        """`name` is logged when its metrics cannot be collected."""
        self._sources.append((source, Outage(f"{name}_metrics_not_collected")))

    async def text(self) -> bytes:
        found = await asyncio.gather(*(_collect(source, outage) for source, outage in self._sources))
        families = [*_bus_metrics(self._bus), *(family for part in found for family in part)]
        return generate_latest(self.registry) + generate_latest(_Collected(families))


class _Collected:
    """Metrics that were collected before, as a collector of prometheus-client."""

    def __init__(self, families: Sequence[Metric]) -> None:
        self._families = families

    def collect(self) -> Sequence[Metric]:
        return self._families


async def _collect(source: Source, outage: Outage) -> list[Metric]:
    try:
        async with asyncio.timeout(SOURCE_TIMEOUT_SECONDS):
            found = list(await source())
    except SOURCE_ERRORS as error:
        outage.begun(error)
        return []
    outage.ended()
    return found


def _bus_metrics(bus: Bus) -> list[Metric]:
    errors = [((kind,), float(count)) for kind, count in sorted(bus.error_counts.items())]
    return [
        gauge("loratory_bus_connected", "1 while NATS is connected", (), [((), float(bus.is_connected))]),
        counter("loratory_bus_reconnects", "Connections to NATS after the first", (), [((), bus.stats["reconnects"])]),
        counter("loratory_bus_errors", "Errors of the connection to NATS", ["kind"], errors),
    ]


def disk_source(folders: Mapping[str, Path]) -> Source:
    """Free and used space of the disks of these folders, by the name of the setting."""

    def read() -> list[Metric]:
        usage = {name: shutil.disk_usage(folder) for name, folder in folders.items() if folder.exists()}
        free = [((name,), float(disk.free)) for name, disk in usage.items()]
        used = [((name,), float(disk.used)) for name, disk in usage.items()]
        return [
            gauge("loratory_disk_free_bytes", "Free space of the disk of a folder", ["folder"], free),
            gauge("loratory_disk_used_bytes", "Used space of the disk of a folder", ["folder"], used),
        ]

    async def collect() -> list[Metric]:
        return await asyncio.to_thread(read)  # a network drive may hang

    return collect
