"""The catalog registers the keys of services together with the newest schema that each of them writes."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from catalog.archive.signatures import check_signatures
from catalog.service_keys import KeyRegistrar
from contracts.commits import ForeignMessage, build_commit
from contracts.errors import SetupError
from contracts.events.base import SCHEMA
from contracts.events.jobs import JobInterrupted
from contracts.events.service_keys import ServiceKeyRegistered
from contracts.signatures import Signer, SigningKey
from contracts.wire.log import service_keys
from contracts.wire.log.event_log import EventLog
from contracts.wire.log.service_keys import ServiceLog, load_or_create_key
from tests.catalog.harness import CatalogHarness, open_catalog
from tests.catalog.log_builder import job_created
from tests.conftest import BusOf, command_metadata
from tests.limits import WAIT
from tests.signing import key_named


@pytest.fixture
async def harness(bus_of: BusOf, tmp_path: Path) -> AsyncIterator[CatalogHarness]:
    async with open_catalog(await bus_of("catalog"), tmp_path) as harness:
        yield harness


async def registrar_of(harness: CatalogHarness) -> KeyRegistrar:
    return await KeyRegistrar.open(harness.executor.log, harness.archive, harness.executor.store, harness.keys)


async def schemas_of(harness: CatalogHarness, key: SigningKey) -> list[int]:
    events = await harness.events("service-key", key.id)
    return [event.schema for event in events if isinstance(event, ServiceKeyRegistered)]


async def report(harness: CatalogHarness, key: SigningKey, step: int) -> None:
    """Appends to a job, as its trainer."""
    log = EventLog(harness.bus)
    log.signer = Signer(key, harness.archive.log_id)
    revision = (await harness.executor.log.load("job", "job_1")).revision
    event = JobInterrupted(attempt=1, step=step, reason="the worker was stopped")
    commit = build_commit("job", "job_1", [event], expected_revision=revision, metadata=command_metadata())
    recorded = await log.append(commit, revision)
    await harness.executor.store.wait_for(recorded.sequence, WAIT)


async def test_a_key_is_registered_again_when_its_service_writes_a_newer_schema(harness: CatalogHarness) -> None:
    registrar, key = await registrar_of(harness), key_named("upgraded")
    await harness.append("job", "job_1", job_created())
    for schema in (SCHEMA - 1, SCHEMA, SCHEMA, SCHEMA - 1):
        await registrar.register("trainer", key.public, schema)
        await report(harness, key, schema)
    assert await schemas_of(harness, key) == [SCHEMA - 1, SCHEMA]
    entries = await harness.archive.entries(0, 1000)
    (foreign,) = (entry for entry in entries if isinstance(entry, ForeignMessage))  # SCHEMA was not registered yet
    assert foreign.reason == f"it has schema {SCHEMA}, but the trainer registered its key for schema {SCHEMA - 1}"
    assert len(await harness.events("job", "job_1")) == 4
    assert await check_signatures(harness.archive, harness.archive.tail.sequence) == []


async def test_a_worker_of_a_newer_version_is_refused_with_a_sentence(
    harness: CatalogHarness, bus_of: BusOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registrar = await registrar_of(harness)
    serving = asyncio.create_task(registrar.serve())
    log = ServiceLog(await bus_of("trainer"), "trainer", tmp_path / "trainer.key")
    monkeypatch.setattr(service_keys, "SCHEMA", SCHEMA + 1)
    sentence = f"this trainer writes events of schema {SCHEMA + 1}, and the catalog reads up to {SCHEMA}: "
    with pytest.raises(SetupError, match=f"^{sentence}upgrade the catalog first$"):
        await log.authorize()
    key = load_or_create_key(tmp_path / "trainer.key")
    assert await schemas_of(harness, key) == []

    monkeypatch.undo()
    await log.authorize()
    assert await schemas_of(harness, key) == [SCHEMA]
    serving.cancel()
