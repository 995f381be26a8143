from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.catalog.harness import CatalogHarness, open_catalog
from tests.conftest import BusOf


@pytest.fixture
async def harness(bus_of: BusOf, tmp_path: Path) -> AsyncIterator[CatalogHarness]:
    """A running catalog on empty folders."""
    async with open_catalog(await bus_of("catalog"), tmp_path / "data") as running:
        running.admin = await bus_of("admin")
        yield running
