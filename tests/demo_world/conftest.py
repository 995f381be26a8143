import pytest
import torch


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    # Tests run in parallel on few cores, and these models are too small to benefit from a second thread.
    torch.set_num_threads(1)
