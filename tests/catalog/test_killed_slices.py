"""The catalog service killed again and again in the middle of a long change: afterwards all is as without any kill."""

import asyncio
import os
import random
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs, to_builtins

from catalog.rebuild import rebuild
from catalog.views.batch import BULK
from contracts.commands.base import Command, CommandMetadata, CommandResult
from contracts.commands.datasets import CreateDataset, EraseDataset, SetThresholds, Undo
from contracts.commands.tagging import RequestTagging
from contracts.errors import LoratoryError, Unavailable
from contracts.events.tagging import (
    ImagePredictions,
    Prediction,
    TaggingAttemptStarted,
    TaggingPredicted,
    TaggingSucceeded,
)
from contracts.ids import CommandId, DatasetId, RunId, WorkerId
from contracts.queries.base import Query
from contracts.queries.datasets import GetDataset, ListImages, ListTags
from contracts.retry import RetryPolicy, retry
from contracts.sealed import NAME, seal
from contracts.wire.log.event_log import EventLog
from contracts.wire.server.embedded import EmbeddedServer
from contracts.wire.service.bus import connect
from contracts.wire.service.requests import RequestTimings, ServiceClient
from tests.catalog.harness import CatalogHarness, event_names, image_id_of
from tests.catalog.log_builder import image_added
from tests.catalog.test_killed_freeze import catalog_on, new_log
from tests.conftest import NOW
from tests.limits import WAIT

pytestmark = pytest.mark.slow

IMAGES, MODEL_TAGS, NEVER = BULK + 6, 12, -1
MAX_SLICE, KILLS = 6, 2
WHAT = (
    "threshold moved",
    "threshold undone",
    "tagging run undone",
    "undo of a tagging run undone",
    "addition undone",
    "erased",
)


LongChange = SetThresholds | Undo | EraseDataset


@dataclass(frozen=True)
class Outcome:
    """All that clients see, and the types of the data set's events."""

    result: CommandResult
    events: list[str]
    views: list[object]


def slices_of(what: str) -> list[int]:
    """In which slice of its own one process after the other is killed."""
    return random.Random(what).choices(range(1, MAX_SLICE), k=KILLS)


async def fill(harness: CatalogHarness) -> tuple[DatasetId, int, RunId]:
    """A data set, the commit that added its images, and a tagging run that has ended."""
    dataset = DatasetId((await harness.execute(CreateDataset(name="cats"), "create")).id)
    images = [image_id_of(dataset, ordinal) for ordinal in range(IMAGES)]
    keys = await harness.keys.create_keys(images)
    added = [
        structs.replace(image_added(dataset, ordinal), name=seal(key, f"{ordinal}.png", NAME))
        for ordinal, key in enumerate(map(keys.__getitem__, images))
    ]
    addition = await harness.append("dataset", dataset, *added)
    run = RunId((await harness.execute(RequestTagging(dataset=dataset, model="wd"), "run")).id)
    started = TaggingAttemptStarted(worker=WorkerId("t1"), boot="b", resumes=0)
    attempt = await harness.append("tagging", run, started)
    found = tuple(ImagePredictions(ordinal=ordinal, predictions=predictions_of(ordinal)) for ordinal in range(IMAGES))
    await harness.append("tagging", run, TaggingPredicted(attempt=attempt, images=found))
    await harness.append("tagging", run, TaggingSucceeded(attempt=attempt, images=IMAGES))
    return dataset, addition, run


def predictions_of(ordinal: int) -> tuple[Prediction, ...]:
    return tuple(
        Prediction(tag=f"seen_{tag:02}", probability=(ordinal * 7 + tag * 11) % 90 / 100 + 0.06)
        for tag in range(MODEL_TAGS)
    )


async def prepare(harness: CatalogHarness, what: str) -> LongChange:
    """What happens before, undisturbed; returns the command that is worked on when the catalog is killed."""
    dataset, addition, run = await fill(harness)
    lower = SetThresholds(dataset=dataset, categories={"general": 0.1})
    commands: dict[str, LongChange] = {
        "threshold moved": lower,
        "tagging run undone": (undo_run := Undo(dataset=dataset, run=run)),
        "addition undone": Undo(dataset=dataset, commit=addition),
        "erased": EraseDataset(dataset=dataset),
    }
    first: dict[str, Command[Any]] = {
        "threshold undone": lower,
        "undo of a tagging run undone": undo_run,
    }
    if what in commands:
        return commands[what]
    return Undo(dataset=dataset, commit=(await harness.execute(first[what])).sequence)


@asynccontextmanager
async def running_service(
    server: EmbeddedServer, folder: Path, point: int
) -> AsyncIterator[asyncio.subprocess.Process]:
    settings = {
        "NATS_URL": server.url,
        "NATS_NKEY_FILE": server.credentials("catalog")[1].path,
        "SIGNING_KEY": folder / "catalog.key",
        "CATALOG": folder / "catalog",
        "STAGING": folder / "staging",
        "BLOBS": folder / "blobs",
        "HEALTH_FILE": folder / "health.json",
        "DECODERS": 1,
        "LOG_LEVEL": "warning",
    }
    environ = {name: value for name, value in os.environ.items() if not name.startswith("LORATORY_")}
    environ |= {f"LORATORY_{name}": str(value) for name, value in settings.items()}
    program = (sys.executable, "-m", "tests.catalog.killed_slices", str(point))
    process = await asyncio.create_subprocess_exec(*program, env=environ)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        async with asyncio.timeout(WAIT):
            await process.wait()


async def undisturbed(folder: Path, what: str) -> Outcome:
    async with new_log(folder) as server, catalog_on(server, folder) as harness:
        command = await prepare(harness, what)
        long: Command[Any] = command
        result = await harness.execute(long, "long", "f")

        async def ask(query: Query[Any]) -> Any:
            return await harness.catalog.queries[type(query)](query)

        events = event_names(await harness.events("dataset", command.dataset))
        return Outcome(result, events, await views_of(command.dataset, ask))


async def killed(folder: Path, what: str, points: Sequence[int]) -> Outcome:
    """The command is sent again until a process that is not killed answers it."""
    data = folder / "data"
    async with new_log(folder) as server:
        async with catalog_on(server, folder) as harness:
            command = await prepare(harness, what)
        async with await connect(server.url, *server.credentials("gateway"), "test-gateway") as bus:
            client = ServiceClient(bus, RequestTimings(resend=0.5))
            sent = asyncio.create_task(send(client, command))
            for point in points:
                async with running_service(server, data, point) as process, asyncio.timeout(WAIT):
                    assert await process.wait() == -signal.SIGKILL
            assert not sent.done()
            async with running_service(server, data, NEVER):
                result = await sent
                views = await views_of(command.dataset, partial(client.query, retry_timeout=WAIT))
                report = await asyncio.to_thread(rebuild, data / "catalog", folder / "again.db", lambda _: None)
                assert (report.state, report.difference) == ("same", None)
        async with await connect(server.url, *server.credentials("catalog"), "test-catalog") as bus:
            events = [event for event, _ in (await EventLog(bus).load("dataset", command.dataset)).events()]
        return Outcome(result, event_names(events), views)


async def send(client: ServiceClient, command: Command[Any]) -> CommandResult:
    """Until it is answered."""
    metadata = CommandMetadata(command_id=CommandId("long"), actor="ann", at=NOW, fingerprint="f")
    until_served = RetryPolicy(first_delay=0.1, time_limit=WAIT)
    result: CommandResult = await retry(
        lambda: client.command(metadata, command, timeout=WAIT), until_served, on=Unavailable
    )
    return result


async def views_of(dataset: str, ask: Callable[[Query[Any]], Awaitable[Any]]) -> list[object]:
    """What a client sees, but for times; or the code of the error."""
    queries: list[Query[Any]] = [
        GetDataset(dataset=dataset),
        ListImages(dataset=dataset, limit=500),
        ListTags(dataset=dataset, limit=500),
    ]
    found: list[object] = []
    for query in queries:
        try:
            found.append(without_times(to_builtins(await ask(query))))
        except LoratoryError as error:
            found.append(error.code)
    return found


def without_times(shown: object) -> object:
    match shown:
        case dict():
            return {name: without_times(value) for name, value in shown.items() if not name.endswith("_at")}
        case list() | tuple():
            return [without_times(value) for value in shown]
    return shown


@pytest.mark.parametrize("what", WHAT)
async def test_killed_in_two_slices_one_after_the_other_it_ends_as_without_a_kill(tmp_path: Path, what: str) -> None:
    expected = await undisturbed(tmp_path / "undisturbed", what)
    assert await killed(tmp_path / "killed", what, slices_of(what)) == expected


@pytest.mark.parametrize("what", ["threshold moved", "addition undone"])
async def test_killed_before_it_is_taken_in_it_is_applied_by_the_next_start(tmp_path: Path, what: str) -> None:
    expected = await undisturbed(tmp_path / "undisturbed", what)
    assert await killed(tmp_path / "killed", what, [0]) == expected
