"""Control characters in the names of jobs, in labels and in triggers."""

from typing import Any

import pytest

from contracts.commands.base import Command
from contracts.commands.datasets import FreezeVersion, SetTextSettings
from contracts.commands.jobs import CreateJob, EditJob
from contracts.errors import Rejected
from contracts.ids import JobId
from tests.catalog.harness import CatalogHarness

PRESET = "tiny-random-demo"


async def test_names_with_control_characters_are_refused(harness: CatalogHarness) -> None:
    cats = await harness.dataset("cats", pictures=1)
    job = JobId((await harness.create_job(CreateJob(dataset=cats, preset=PRESET, name="a name"))).id)
    refused: list[Command[Any]] = [
        CreateJob(dataset=cats, preset=PRESET, name="a\0b"),
        CreateJob(dataset=cats, preset=PRESET, labels=("fine", "two\nlines")),
        CreateJob(dataset=cats, preset=PRESET, trigger="\x1b[31m"),
        EditJob(job=job, name="bell\a"),
        EditJob(job=job, labels=("\x7f",)),
        SetTextSettings(dataset=cats, trigger="a\0b"),
        FreezeVersion(dataset=cats, trigger="a\0b"),
    ]
    before = await harness.events("job", job), await harness.events("dataset", cats)
    for command in refused:
        with pytest.raises(Rejected, match="control characters"):
            await harness.execute(command)
    assert (await harness.events("job", job), await harness.events("dataset", cats)) == before
