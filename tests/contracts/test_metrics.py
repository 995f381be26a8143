"""Metrics of a service and the endpoint that serves them."""

import asyncio
import errno
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import msgspec
import pytest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from structlog.testing import capture_logs

from contracts.errors import SetupError, Unavailable
from contracts.ids import WorkerId
from contracts.wire.service.bus import Bus
from contracts.wire.service.credentials import Password
from contracts.wire.service.metrics import ServiceMetrics, disk_source, gauge
from contracts.wire.service.metrics_endpoint import EndpointLimits, Target, serve_metrics, target_file
from contracts.wire.workers.heartbeat import HeartbeatPublisher
from contracts.wire.workers.metrics import worker_metrics
from tests.limits import WAIT


@pytest.fixture
def metrics() -> ServiceMetrics:
    """Of a service that is not connected."""
    return ServiceMetrics("tested", Bus("trainer", Password("none")))


def samples(text: bytes) -> dict[str, float]:
    """By name and labels as in the text."""
    families = text_string_to_metric_families(text.decode())
    return {
        sample.name + "".join(f"/{value}" for value in sample.labels.values()): sample.value
        for family in families
        for sample in family.samples
    }


@asynccontextmanager
async def serving(metrics: ServiceMetrics, folder: Path, limits: EndpointLimits | None = None) -> AsyncIterator[str]:
    """The address, as found in the file."""
    running = asyncio.create_task(serve_metrics(metrics, "127.0.0.1:0", folder, limits or EndpointLimits()))
    file = target_file(folder, "tested")
    async with asyncio.timeout(WAIT):
        while not file.exists():  # noqa: ASYNC110 - a file, as Prometheus would read it
            await asyncio.sleep(0.005)
    (target,) = msgspec.json.decode(file.read_bytes(), type=list[Target])
    assert target.labels == {"service": "tested"}
    try:
        yield target.targets[0]
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        assert not file.exists()


async def test_requests_are_counted_by_name_and_outcome(metrics: ServiceMetrics) -> None:
    assert "loratory_commands_total" not in (await metrics.text()).decode()
    metrics.serves_requests()
    metrics.observe("command", "EditTags", "ok", 0.01)
    metrics.observe("command", "EditTags", "conflict", 0.2)
    metrics.observe("query", "ListJobs", "ok", 0.001)
    found = samples(await metrics.text())
    assert found["loratory_commands_total/EditTags/conflict"] == 1
    assert found["loratory_command_seconds_count/EditTags"] == 2
    assert found["loratory_command_seconds_bucket/EditTags/0.02"] == 1
    assert found["loratory_queries_total/ok/ListJobs"] == 1
    assert found["loratory_bus_connected"] == 0


async def test_errors_and_reconnects_of_the_bus_are_shown(metrics: ServiceMetrics, tmp_path: Path) -> None:
    bus = Bus("trainer", Password("none"))
    with capture_logs():
        await bus.note_error(OSError("lost"))
    found = samples(await ServiceMetrics("tested", bus).text())
    assert (found["loratory_bus_errors_total/connection"], found["loratory_bus_reconnects_total"]) == (1, 0)


async def test_a_source_that_fails_leaves_out_its_metrics_and_is_logged_once(metrics: ServiceMetrics) -> None:
    fault: Exception | None = Unavailable("the log does not answer")

    async def failing() -> Iterable[Metric]:
        if fault is not None:
            raise fault
        return [gauge("loratory_failing", "x", (), [((), 1)])]

    async def working() -> Iterable[Metric]:
        return [gauge("loratory_working", "x", (), [((), 2)])]

    metrics.add("failing", failing)
    metrics.add("working", working)
    with capture_logs() as lines:
        for _ in range(3):
            found = samples(await metrics.text())
        assert "loratory_failing" not in found and found["loratory_working"] == 2
        fault = OSError(errno.EIO, "the disk")
        assert "loratory_failing" not in samples(await metrics.text())
        fault = None
        assert samples(await metrics.text())["loratory_failing"] == 1
    assert [line["event"] for line in lines] == ["failing_metrics_not_collected", "outage_ended"]


async def test_disks_are_shown_by_setting_and_missing_folders_are_left_out(
    metrics: ServiceMetrics, tmp_path: Path
) -> None:
    metrics.add("disk", disk_source({"work": tmp_path, "gone": tmp_path / "gone"}))
    found = samples(await metrics.text())
    assert found["loratory_disk_free_bytes/work"] > 0 and found["loratory_disk_used_bytes/work"] > 0
    assert "loratory_disk_free_bytes/gone" not in found


async def test_a_worker_shows_its_state_and_its_device(metrics: ServiceMetrics) -> None:
    heartbeat = HeartbeatPublisher(service="trainer", worker=WorkerId("w"))
    metrics.add("worker", worker_metrics(heartbeat))
    assert samples(await metrics.text())["loratory_worker_state/starting"] == 1
    heartbeat.state, heartbeat.device = "busy", "NVIDIA H100"
    found = samples(await metrics.text())
    assert (found["loratory_worker_state/busy"], found["loratory_worker_state/starting"]) == (1, 0)
    assert found["loratory_device_info/NVIDIA H100"] == 1


async def test_only_get_metrics_is_served(metrics: ServiceMetrics, tmp_path: Path) -> None:
    async with serving(metrics, tmp_path) as address, httpx.AsyncClient(base_url=f"http://{address}") as client:
        found = await client.get("/metrics")
        assert (found.status_code, samples(found.content)["loratory_build_info/tested/0.1.0"]) == (200, 1)
        assert found.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
        assert (await client.get("/other")).status_code == 404
        assert (await client.post("/metrics")).status_code == 405


async def test_a_mistake_in_a_metric_is_an_error_500_and_the_service_goes_on(
    metrics: ServiceMetrics, tmp_path: Path
) -> None:
    async def mistaken() -> Iterable[Metric]:
        raise RuntimeError("a bug")

    metrics.add("mistaken", mistaken)
    async with serving(metrics, tmp_path) as address, httpx.AsyncClient(base_url=f"http://{address}") as client:
        with capture_logs() as lines:
            assert [(await client.get("/metrics")).status_code for _ in range(2)] == [500, 500]
        assert [line["event"] for line in lines] == ["metrics_failed"] * 2


@pytest.mark.parametrize("sent", [b"", b"GET /metrics HTTP/1.1\r\n", b"x" * 5000, b"\x00\r\n\r\n"])
async def test_what_is_no_request_is_disconnected(metrics: ServiceMetrics, tmp_path: Path, sent: bytes) -> None:
    limits = EndpointLimits(head_bytes=1000, timeout=0.2)
    async with serving(metrics, tmp_path, limits) as address, asyncio.timeout(WAIT):
        host, _, port = address.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(sent)
        answer = await _read_to_end(reader)
        assert answer == b"" or answer.startswith(b"HTTP/1.1 405")
        writer.close()
        async with httpx.AsyncClient(base_url=f"http://{address}") as client:
            assert (await client.get("/metrics")).status_code == 200


async def _read_to_end(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.read()
    except ConnectionResetError:
        return b""


async def test_connections_beyond_the_limit_are_closed(metrics: ServiceMetrics, tmp_path: Path) -> None:
    async with serving(metrics, tmp_path, EndpointLimits(connections=1)) as address, asyncio.timeout(WAIT):
        host, _, port = address.rpartition(":")
        _, first = await asyncio.open_connection(host, int(port))
        reader, second = await asyncio.open_connection(host, int(port))
        assert await _read_to_end(reader) == b""
        first.close()
        second.close()


async def test_nothing_is_served_without_an_address(metrics: ServiceMetrics, tmp_path: Path) -> None:
    await serve_metrics(metrics, "", tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("address", ["nowhere", "127.0.0.1:", "127.0.0.1:70000", "127.0.0.1:x"])
async def test_an_invalid_address_is_refused(metrics: ServiceMetrics, tmp_path: Path, address: str) -> None:
    with pytest.raises(SetupError, match="LORATORY_METRICS must be HOST:PORT"):
        await serve_metrics(metrics, address, tmp_path)


async def test_an_address_in_use_is_refused(metrics: ServiceMetrics, tmp_path: Path) -> None:
    async with serving(metrics, tmp_path) as address:
        with pytest.raises(SetupError, match=r"cannot listen at 127\.0\.0\.1 port"):
            await serve_metrics(metrics, address, tmp_path / "other")


async def test_a_port_alone_means_loopback(metrics: ServiceMetrics, tmp_path: Path) -> None:
    async with serving(metrics, tmp_path) as address:
        _, _, port = address.rpartition(":")
        with pytest.raises(SetupError, match=rf"cannot listen at 127\.0\.0\.1 port {port}"):
            await serve_metrics(metrics, f":{port}", tmp_path / "other")
