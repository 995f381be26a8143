"""Asking and answering over the bus."""

import asyncio
import errno

import pytest

from contracts.commands import CreateDataset, DatasetCommand, Receipt
from contracts.errors import Invalid, LogFull, LoratoryError, NotFound, Rejected, TooLarge, Unavailable
from contracts.queries import GetDataset, GetLog, LogView
from contracts.wire import service as service_module
from contracts.wire.service import Door, Service
from tests.conftest import BusOf, origin

WISH = DatasetCommand(origin=origin(), wish=CreateDataset(name="cats"))
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
        if question.dataset == "full":
            raise OSError(errno.ENOSPC, "No space left on device", "/secret/blobs")
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
    with pytest.raises(LogFull, match="the disk of the catalog is full"):
        await door.ask(GetDataset(dataset="full"))
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


async def test_a_wish_whose_taker_dies_is_told_to_the_next(bus_of: BusOf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_module, "TELL_AGAIN_SECONDS", 0.2)
    taken = asyncio.Event()

    async def never(_: DatasetCommand) -> Receipt:
        taken.set()
        await asyncio.Event().wait()
        raise AssertionError

    async def done(_: DatasetCommand) -> Receipt:
        return Receipt(id="x")

    first = Service(await bus_of("catalog"), "catalog", "0.1.0")
    await first.start(commands={DatasetCommand: never})
    telling = asyncio.create_task(Door(await bus_of("gateway")).tell(WISH))
    await taken.wait()
    second = Service(await bus_of("catalog"), "catalog", "0.1.0")
    await second.start(commands={DatasetCommand: done})
    await first.close()
    assert (await telling).id == "x"
    await second.close()


async def test_a_wish_told_again_while_it_is_in_hand_is_done_once(
    bus_of: BusOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_module, "TELL_AGAIN_SECONDS", 0.1)
    times = 0

    async def slowly(_: DatasetCommand) -> Receipt:
        nonlocal times
        times += 1
        await asyncio.sleep(0.5)
        return Receipt(id="x")

    service = Service(await bus_of("catalog"), "catalog", "0.1.0")
    await service.start(commands={DatasetCommand: slowly})
    assert (await Door(await bus_of("gateway")).tell(WISH)).id == "x"
    assert times == 1
    await service.close()
