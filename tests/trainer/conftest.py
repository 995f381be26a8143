from pathlib import Path

import pytest
import torch

from tests.trainer.builders import Workbench, drawn
from trainer.demo.stand_in import make_stand_in
from trainer.engine.training import Bases
from trainer.messages import Example


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    # Two cores are shared with the other tests, and these models are too small to gain from a second thread.
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_stand_in(tmp_path_factory.mktemp("bases") / "stand-in")


@pytest.fixture(scope="session")
def bases() -> Bases:
    """One warm base for all tests, as one child has for all its orders."""
    return Bases()


@pytest.fixture(scope="session")
def examples(tmp_path_factory: pytest.TempPathFactory) -> list[Example]:
    return drawn(tmp_path_factory.mktemp("pictures"), 5)


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def bench(base: Path, bases: Bases, examples: list[Example], cache: Path, tmp_path: Path) -> Workbench:
    return Workbench(base, bases, examples, cache, tmp_path)
