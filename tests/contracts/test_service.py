"""Asking and answering over the bus."""

import asyncio

import pytest

from contracts.commands import CreateDataset, DatasetCommand, Receipt
from contracts.errors import Invalid, LoratoryError, NotFound, Rejected, TooLarge, Unavailable
from contracts.queries import GetDataset, GetLog, LogView
from contracts.wire.service import Door, Service
from tests.conftest import BusOf, origin

HERE = LogView(log_id="L", applied=3, archived=3, head="0" * 64, verified=True)  # type: ignore[arg-type]


async def test_a_question_is_answered_in_its_type(bus_of: BusOf) -> None:
    async def answer(_: GetLog) -> LogView:
        return HERE

    service = Service(await bus_of("catalog"), "catalog", "0.1.0")
    await service.start(queries={GetLog: answer})
    assert await Door(await bus_of("gateway")).ask(GetLog()) == HERE
    await service.close()


async def test_an_error_arrives_as_itself_and_a_bug_tells_nothing(bus_of: BusOf) -> None:
    async def missing(question: GetDataset) -> LogView:
        if question.dataset == "bug":
            raise RuntimeError("secret")
        raise NotFound("there is no data set cats", dataset="cats")

    async def refused(_: DatasetCommand) -> Receipt:
        raise Rejected("no")

    service = Service(await bus_of("catalog"), "catalog", "0.1.0")
    await service.start(queries={GetDataset: missing}, commands={DatasetCommand: refused})
    door = Door(await bus_of("gateway"))
    with pytest.raises(NotFound, match="no data set cats") as found:
        await door.ask(GetDataset(dataset="cats"))
    assert found.value.facts == {"dataset": "cats"}
    with pytest.raises(Rejected):
        await door.tell(DatasetCommand(origin=origin(), wish=CreateDataset(name="x")))
    with pytest.raises(LoratoryError) as bug:
        await door.ask(GetDataset(dataset="bug"))
    assert "secret" not in bug.value.detail
    with pytest.raises(Invalid):
        await door.tell(DatasetCommand(origin=origin(), wish=CreateDataset(name="")))
    await service.close()


async def test_nobody_there_is_said_at_once(bus_of: BusOf) -> None:
    with pytest.raises(Unavailable, match="the catalog is not running"):
        await Door(await bus_of("gateway")).ask(GetLog())


async def test_slow_answers_do_not_hold_up_others(bus_of: BusOf) -> None:
    together = asyncio.Barrier(5)

    async def answer(_: GetLog) -> LogView:
        await together.wait()
        return HERE

    service = Service(await bus_of("catalog"), "catalog", "0.1.0")
    await service.start(queries={GetLog: answer})
    door = Door(await bus_of("gateway"))
    assert await asyncio.gather(*(door.ask(GetLog()) for _ in range(5))) == [HERE] * 5
    await service.close()


async def test_an_answer_too_large_for_a_message_is_an_error_not_silence(bus_of: BusOf) -> None:
    async def answer(_: GetLog) -> LogView:
        return LogView(log_id="x" * 2_000_000, applied=0, archived=0, head="", verified=True)  # type: ignore[arg-type]

    service = Service(await bus_of("catalog"), "catalog", "0.1.0")
    await service.start(queries={GetLog: answer})
    with pytest.raises(TooLarge):
        await Door(await bus_of("gateway")).ask(GetLog())
    await service.close()
