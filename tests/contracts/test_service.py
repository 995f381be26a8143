"""Commands and queries over the bus."""

import asyncio
import errno

import pytest

from contracts.commands import CreateDataset, DatasetEnvelope, DatasetResult
from contracts.errors import Invalid, LogFull, LoratoryError, NotFound, Rejected, TooLarge, Unavailable
from contracts.queries import GetDataset, GetLog, LogView
from contracts.wire import service as service_module
from contracts.wire.service import Service, ServiceClient
from tests.conftest import BusOf, command_metadata

ENVELOPE = DatasetEnvelope(metadata=command_metadata(), command=CreateDataset(name="cats"))
LOG_VIEW = LogView(log_id="L", applied=3, archived=3, head="0" * 64, verified=True)  # type: ignore[arg-type]


async def test_a_query_returns_its_result_type(bus_of: BusOf) -> None:
    async def handle(_: GetLog) -> LogView:
        return LOG_VIEW

    service = Service(await bus_of("catalog"), "catalog", "0.1.0")
    await service.start(queries={GetLog: handle})
    assert await ServiceClient(await bus_of("gateway")).query(GetLog()) == LOG_VIEW
    await service.close()


async def test_errors_keep_their_type_and_unexpected_ones_reveal_nothing(bus_of: BusOf) -> None:
    async def handle_query(query: GetDataset) -> LogView:
        if query.dataset == "bug":
            raise RuntimeError("secret")
        if query.dataset == "full":
            raise OSError(errno.ENOSPC, "No space left on device", "/secret/blobs")
        raise NotFound("there is no data set cats", dataset="cats")

    async def reject(_: DatasetEnvelope) -> DatasetResult:
        raise Rejected("no")

    service = Service(await bus_of("catalog"), "catalog", "0.1.0")
    await service.start(queries={GetDataset: handle_query}, commands={DatasetEnvelope: reject})
    client = ServiceClient(await bus_of("gateway"))
    with pytest.raises(NotFound, match="no data set cats") as found:
        await client.query(GetDataset(dataset="cats"))
    assert found.value.extra == {"dataset": "cats"}
    with pytest.raises(Rejected):
        await client.command(DatasetEnvelope(metadata=command_metadata(), command=CreateDataset(name="x")))
    with pytest.raises(LoratoryError) as bug:
        await client.query(GetDataset(dataset="bug"))
    assert "secret" not in bug.value.detail
    with pytest.raises(LogFull, match="the disk of the catalog is full"):
        await client.query(GetDataset(dataset="full"))
    with pytest.raises(Invalid):
        await client.command(DatasetEnvelope(metadata=command_metadata(), command=CreateDataset(name="")))
    await service.close()


async def test_a_service_that_is_not_running_is_reported_at_once(bus_of: BusOf) -> None:
    with pytest.raises(Unavailable, match="the catalog is not running"):
        await ServiceClient(await bus_of("gateway")).query(GetLog())


async def test_slow_requests_do_not_block_others(bus_of: BusOf) -> None:
    barrier = asyncio.Barrier(5)

    async def handle(_: GetLog) -> LogView:
        await barrier.wait()
        return LOG_VIEW

    service = Service(await bus_of("catalog"), "catalog", "0.1.0")
    await service.start(queries={GetLog: handle})
    client = ServiceClient(await bus_of("gateway"))
    assert await asyncio.gather(*(client.query(GetLog()) for _ in range(5))) == [LOG_VIEW] * 5
    await service.close()


async def test_a_result_too_large_for_a_message_is_an_error(bus_of: BusOf) -> None:
    async def handle(_: GetLog) -> LogView:
        return LogView(log_id="x" * 2_000_000, applied=0, archived=0, head="", verified=True)  # type: ignore[arg-type]

    service = Service(await bus_of("catalog"), "catalog", "0.1.0")
    await service.start(queries={GetLog: handle})
    with pytest.raises(TooLarge):
        await ServiceClient(await bus_of("gateway")).query(GetLog())
    await service.close()


async def test_a_command_is_resent_if_the_service_dies_while_executing_it(
    bus_of: BusOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_module, "COMMAND_RESEND_SECONDS", 0.2)
    received = asyncio.Event()

    async def never(_: DatasetEnvelope) -> DatasetResult:
        received.set()
        await asyncio.Event().wait()
        raise AssertionError

    async def succeed(_: DatasetEnvelope) -> DatasetResult:
        return DatasetResult(id="x", name="x")

    first = Service(await bus_of("catalog"), "catalog", "0.1.0")
    await first.start(commands={DatasetEnvelope: never})
    sending = asyncio.create_task(ServiceClient(await bus_of("gateway")).command(ENVELOPE))
    await received.wait()
    second = Service(await bus_of("catalog"), "catalog", "0.1.0")
    await second.start(commands={DatasetEnvelope: succeed})
    await first.close()
    assert (await sending).id == "x"
    await second.close()


async def test_a_command_resent_while_in_progress_is_executed_once(
    bus_of: BusOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_module, "COMMAND_RESEND_SECONDS", 0.1)
    calls = 0

    async def handle_slowly(_: DatasetEnvelope) -> DatasetResult:
        nonlocal calls
        calls += 1
        await asyncio.sleep(0.5)
        return DatasetResult(id="x", name="x")

    service = Service(await bus_of("catalog"), "catalog", "0.1.0")
    await service.start(commands={DatasetEnvelope: handle_slowly})
    assert (await ServiceClient(await bus_of("gateway")).command(ENVELOPE)).id == "x"
    assert calls == 1
    await service.close()
