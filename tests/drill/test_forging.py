"""Forged messages reach a real nats-server, and what became of each is counted as the log shows it."""

import os
from pathlib import Path

import pytest

from contracts.ids import JobId
from contracts.wire.log.event_log import EventLog
from loratory.services import SERVICES
from loratory.stack import Stack
from tests.drill.forging import ForgedMessages, connect_as, forge
from tests.drill.test_schedule import STARTED, recorded_commit, tag_commit

VARIANTS = 6


@pytest.mark.slow
async def test_forged_messages_are_counted_as_stored_only_if_they_are_in_the_log(tmp_path: Path) -> None:
    commits = [tag_commit(1, "a", "first"), recorded_commit(2, "job", JobId("job_1"), STARTED[0])]
    forged = ForgedMessages()
    async with (
        Stack(tmp_path / "data", environ=os.environ, port=0, without=SERVICES) as stack,
        await connect_as(stack, "gateway") as bus,
    ):
        log = EventLog(bus)
        _, before = await log.end()
        for variant in range(VARIANTS):
            assert await forge(stack, commits, forged, variant / VARIANTS)
        _, after = await log.end()
    assert forged.outcomes.total() >= VARIANTS
    assert len(forged.sequences) == forged.outcomes["stored"]
    assert all(before < sequence <= after for sequence in forged.sequences)


async def test_there_is_nothing_to_forge_in_an_empty_log(tmp_path: Path) -> None:
    async with Stack(tmp_path / "data", environ=os.environ, port=0, without=SERVICES) as stack:
        assert not await forge(stack, [], ForgedMessages(), 0.5)
