"""Commands and queries over the bus."""

import asyncio
import errno

import pytest
from nats.aio.msg import Msg

from contracts import subjects
from contracts.commands.base import CommandMetadata
from contracts.commands.datasets import CreateDataset, DatasetResult
from contracts.errors import Invalid, LogFull, LoratoryError, NotFound, Rejected, TooLarge, Unavailable
from contracts.ids import Digest
from contracts.queries.datasets import GetDataset
from contracts.queries.log import GetLog, LogView
from contracts.wire.service.requests import RequestLimits, RequestTimings, Service, ServiceClient
from tests.conftest import BusOf, command_metadata
from tests.limits import WAIT

METADATA, COMMAND = command_metadata(), CreateDataset(name="cats")
RESULT = DatasetResult(id="x", name="x")
LOG_VIEW = LogView(log_id="L", applied=3, archived=3, head=Digest("0" * 64), verified=True)


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

    async def reject(_: CommandMetadata, __: CreateDataset) -> DatasetResult:
        raise Rejected("no")

    service = Service(await bus_of("catalog"), "catalog", "0.1.0")
    await service.start(queries={GetDataset: handle_query}, commands={CreateDataset: reject})
    client = ServiceClient(await bus_of("gateway"))
    with pytest.raises(NotFound, match="no data set cats") as found:
        await client.query(GetDataset(dataset="cats"))
    assert found.value.extra == {"dataset": "cats"}
    with pytest.raises(Rejected):
        await client.command(command_metadata(), CreateDataset(name="x"))
    with pytest.raises(LoratoryError) as bug:
        await client.query(GetDataset(dataset="bug"))
    assert "secret" not in bug.value.detail
    with pytest.raises(LogFull, match="the disk of the catalog is full"):
        await client.query(GetDataset(dataset="full"))
    with pytest.raises(Invalid):
        await client.command(command_metadata(), CreateDataset(name=""))
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
        return LogView(log_id="x" * 2_000_000, applied=0, archived=0, head=Digest("0" * 64), verified=True)

    service = Service(await bus_of("catalog"), "catalog", "0.1.0")
    await service.start(queries={GetLog: handle})
    with pytest.raises(TooLarge):
        await ServiceClient(await bus_of("gateway")).query(GetLog())
    await service.close()


async def test_a_command_is_resent_if_the_service_dies_while_executing_it(bus_of: BusOf) -> None:
    received = asyncio.Event()

    async def never(_: CommandMetadata, __: CreateDataset) -> DatasetResult:
        received.set()
        await asyncio.Event().wait()
        raise AssertionError

    async def succeed(_: CommandMetadata, __: CreateDataset) -> DatasetResult:
        return RESULT

    first = Service(await bus_of("catalog"), "catalog", "0.1.0")
    await first.start(commands={CreateDataset: never})
    client = ServiceClient(await bus_of("gateway"), RequestTimings(resend=0.2))
    sending = asyncio.create_task(client.command(METADATA, COMMAND, timeout=WAIT))
    await received.wait()
    second = Service(await bus_of("catalog"), "catalog", "0.1.0")
    await second.start(commands={CreateDataset: succeed})
    await first.close()
    assert await sending == RESULT
    await second.close()


async def test_a_command_resent_while_in_progress_is_executed_once(bus_of: BusOf) -> None:
    running, most, resent = 0, 0, asyncio.Event()
    catalog, observer = await bus_of("catalog"), await bus_of("catalog")
    requests: list[Msg] = []

    async def handle_slowly(_: CommandMetadata, __: CreateDataset) -> DatasetResult:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await resent.wait()
        running -= 1
        return RESULT

    async def on_request(request: Msg) -> None:
        requests.append(request)
        if len(requests) == 3:
            await catalog.flush()  # the service has received it as well
            resent.set()

    service = Service(catalog, "catalog", "0.1.0")
    await service.start(commands={CreateDataset: handle_slowly})
    await observer.subscribe(subjects.command("catalog", "dataset"), cb=on_request)
    await observer.flush()
    client = ServiceClient(await bus_of("gateway"), RequestTimings(resend=0.2))
    assert await client.command(METADATA, COMMAND, timeout=WAIT) == RESULT
    assert most == 1
    await service.close()


async def test_a_query_is_retried_while_the_service_is_unavailable(bus_of: BusOf) -> None:
    async def handle(_: GetLog) -> LogView:
        return LOG_VIEW

    client = ServiceClient(await bus_of("gateway"), RequestTimings(retry=0.01))
    asking = asyncio.create_task(client.query(GetLog(), retry_timeout=WAIT))
    with pytest.raises(Unavailable, match="the catalog is not running"):
        await client.query(GetLog(), retry_timeout=0.05)
    assert not asking.done()
    service = Service(await bus_of("catalog"), "catalog", "0.1.0")
    await service.start(queries={GetLog: handle})
    assert await asking == LOG_VIEW
    await service.close()


async def test_requests_beyond_the_limits_are_rejected_and_queued_ones_answered(bus_of: BusOf) -> None:
    release, running, most = asyncio.Event(), 0, 0

    async def handle(_: GetLog) -> LogView:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await release.wait()
        running -= 1
        return LOG_VIEW

    service = Service(await bus_of("catalog"), "catalog", "0.1.0", RequestLimits(concurrent=2, queued=1))
    await service.start(queries={GetLog: handle})
    client = ServiceClient(await bus_of("gateway"))
    asking = [asyncio.create_task(client.query(GetLog(), timeout=WAIT)) for _ in range(5)]
    rejected, accepted = await asyncio.wait(asking, return_when=asyncio.FIRST_EXCEPTION)
    while len(rejected) < 2:
        more, accepted = await asyncio.wait(accepted, return_when=asyncio.FIRST_EXCEPTION)
        rejected |= more
    release.set()
    assert await asyncio.gather(*accepted) == [LOG_VIEW] * 3
    assert most == 2
    for task in rejected:
        with pytest.raises(Unavailable, match="the catalog is busy"):
            await task
    await service.close()


async def test_a_request_that_is_queued_too_long_is_rejected_and_never_handled(bus_of: BusOf) -> None:
    release, handled = asyncio.Event(), 0

    async def handle(_: GetLog) -> LogView:
        nonlocal handled
        handled += 1
        await release.wait()
        return LOG_VIEW

    limits = RequestLimits(concurrent=1, queue_timeout=0.05)
    service = Service(await bus_of("catalog"), "catalog", "0.1.0", limits)
    await service.start(queries={GetLog: handle})
    client = ServiceClient(await bus_of("gateway"))
    asking = [asyncio.create_task(client.query(GetLog(), timeout=WAIT)) for _ in range(2)]
    (rejected,), (accepted,) = await asyncio.wait(asking, return_when=asyncio.FIRST_COMPLETED)
    with pytest.raises(Unavailable, match="the catalog is busy"):
        await rejected
    release.set()
    assert await accepted == LOG_VIEW
    assert handled == 1
    await service.close()
