from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.catalog.house import House, opened
from tests.conftest import BusOf


@pytest.fixture
async def house(bus_of: BusOf, tmp_path: Path) -> AsyncIterator[House]:
    """A catalog of the test's own."""
    async with opened(await bus_of("catalog"), tmp_path / "data") as running:
        yield running
