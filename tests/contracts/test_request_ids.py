"""A request id is passed on over the bus, and a worker's log has the one of the request that created the work."""

import msgspec
import pytest
from structlog.contextvars import get_contextvars

from contracts.commands.base import CommandMetadata
from contracts.commands.datasets import CreateDataset, DatasetResult
from contracts.ids import Digest
from contracts.queries.log import GetLog, LogView
from contracts.wire.service import request_ids
from contracts.wire.service.requests import RequestKind, Service, ServiceClient
from contracts.wire.workers.worker import Attempt
from tests.conftest import BusOf, command_metadata
from tests.contracts.test_worker import create_and_queue_job, finish, run_worker, wait_until_ended

LOG_VIEW = LogView(log_id="L", applied=3, archived=3, head=Digest("0" * 64), verified=True)


@pytest.mark.parametrize("given", ["a", "4bf92f35-77b3.4da6_a3ce/9=", "x" * 128])
def test_a_token_is_taken_as_it_is(given: str) -> None:
    assert request_ids.accept(given) == given


@pytest.mark.parametrize("given", [None, "", "x" * 129, "a b", "a\nb", "a\r\nSet-Cookie: b", '"', "é", "-a", "a\n"])
def test_anything_else_is_replaced_by_a_new_id(given: str | None) -> None:
    first, second = request_ids.accept(given), request_ids.accept(given)
    assert first != second
    assert request_ids.accept(first) == first


async def test_a_query_and_a_command_carry_the_id_to_the_service(bus_of: BusOf) -> None:
    seen: list[str] = []

    async def handle_query(_: GetLog) -> LogView:
        seen.append(request_ids.current())
        return LOG_VIEW

    async def handle_command(_: CommandMetadata, __: CreateDataset) -> DatasetResult:
        seen.append(request_ids.current())
        return DatasetResult(id="x", name="x")

    service = Service(await bus_of("catalog"), "catalog", "0.1.0")
    await service.start(queries={GetLog: handle_query}, commands={CreateDataset: handle_command})
    client = ServiceClient(await bus_of("gateway"))
    with request_ids.bind("from-a-client"):
        await client.query(GetLog())
        await client.command(command_metadata(), CreateDataset(name="cats"))
    assert seen == ["from-a-client"] * 2
    await client.query(GetLog())
    assert seen[2] not in ("", "from-a-client")
    assert request_ids.current() == ""
    await service.close()


async def test_the_outcome_of_each_request_is_observed(bus_of: BusOf) -> None:
    observed: list[tuple[RequestKind, str, str]] = []

    def observe(kind: RequestKind, name: str, outcome: str, seconds: float) -> None:
        assert seconds >= 0
        observed.append((kind, name, outcome))

    async def fail(_: GetLog) -> LogView:
        raise RuntimeError("a bug")

    async def succeed(_: CommandMetadata, __: CreateDataset) -> DatasetResult:
        return DatasetResult(id="x", name="x")

    service = Service(await bus_of("catalog"), "catalog", "0.1.0", observe=observe)
    await service.start(queries={GetLog: fail}, commands={CreateDataset: succeed})
    client = ServiceClient(await bus_of("gateway"))
    await client.command(command_metadata(), CreateDataset(name="cats"))
    with pytest.raises(Exception, match="internal error"):
        await client.query(GetLog())
    await service.close()
    assert observed == [("command", "CreateDataset", "ok"), ("query", "GetLog", "internal")]


async def test_the_log_lines_of_an_attempt_have_the_id_of_the_request_for_the_work(bus_of: BusOf) -> None:
    catalog, seen = await bus_of("catalog"), dict[str, object]()

    async def run(attempt: Attempt) -> None:
        seen.update(get_contextvars())
        await attempt.report(finish(attempt))

    await create_and_queue_job(
        catalog, metadata=msgspec.structs.replace(command_metadata(), correlation_id="from-a-client")
    )
    async with run_worker(await bus_of("trainer"), run):
        await wait_until_ended(catalog)
    assert (seen["request_id"], seen["aggregate_id"]) == ("from-a-client", "job_1")
