import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from contracts.queries.datasets import ReadManifest
from contracts.wire.blobs.store import LocalBlobs
from contracts.wire.service.requests import Service
from tests.conftest import BusOf
from tests.trainer.builders import Workbench, draw_examples
from tests.trainer.running_trainer import FakeCatalog, manifest_entry
from trainer.engine.tiny_random import make_tiny_random
from trainer.engine.training import BaseCache
from trainer.messages import Example
from trainer.settings import Settings

NewBench = Callable[[], Workbench]


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_random(tmp_path_factory.mktemp("bases") / "tiny-random")


@pytest.fixture(scope="session")
def bases() -> BaseCache:
    """One loaded base for all tests, as in an engine process."""
    return BaseCache()


@pytest.fixture(scope="session")
def examples(tmp_path_factory: pytest.TempPathFactory) -> list[Example]:
    return draw_examples(tmp_path_factory.mktemp("pictures"), 5)


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def new_bench(
    base: Path, bases: BaseCache, examples: list[Example], cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> NewBench:
    """Workbenches with a folder each, for fixtures that train once for several tests."""
    return lambda: Workbench(base, bases, examples, cache, tmp_path_factory.mktemp("bench"))


@pytest.fixture
def bench(base: Path, bases: BaseCache, examples: list[Example], cache: Path, tmp_path: Path) -> Workbench:
    return Workbench(base, bases, examples, cache, tmp_path)


@pytest.fixture
def settings(tmp_path: Path, base: Path) -> Settings:
    """The built-in base is already generated, so that the tests need not wait for it."""
    settings = Settings(
        bases=tmp_path / "bases", cache=tmp_path / "cache", work=tmp_path / "work", loras=tmp_path / "loras"
    )
    for folder in (settings.bases, settings.work):
        folder.mkdir()
    shutil.copytree(base, settings.cache / "bases" / "tiny-random")
    return settings


@pytest.fixture
async def catalog(bus_of: BusOf, tmp_path: Path, examples: list[Example]) -> AsyncIterator[FakeCatalog]:
    blobs = LocalBlobs(tmp_path / "blobs")
    entries = [
        manifest_entry(example.ordinal, await blobs.put(Path(example.path)), example.caption) for example in examples
    ]
    bus = await bus_of("catalog")
    catalog = FakeCatalog(bus, entries)
    service = Service(bus, "catalog", "0.1.0")
    await service.start(queries={ReadManifest: catalog.read_manifest})
    yield catalog
    await service.close()
