from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.trainer.builders import Workbench, draw_examples
from trainer.engine.tiny_random import make_tiny_random
from trainer.engine.training import BaseCache
from trainer.messages import Example

NewBench = Callable[[], Workbench]


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    # Tests run in parallel on few cores, and these models are too small to benefit from a second thread.
    torch.set_num_threads(1)


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
