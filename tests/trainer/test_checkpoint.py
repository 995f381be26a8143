import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
import torch

from tests.trainer.builders import Workbench, last
from tests.trainer.conftest import NewBench
from trainer.engine import files
from trainer.engine.checkpoint import BadCheckpoint
from trainer.messages import Saved


@pytest.fixture(scope="module")
def checkpoint(new_bench: NewBench) -> Path:
    """After two steps of a run with the default changes."""
    bench = new_bench()
    return Path(last(bench.run(bench.request(length__count=2)), Saved).path)


@pytest.fixture
def saved(checkpoint: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    (tmp_path / "checkpoints").mkdir()
    return Path(shutil.copy(checkpoint, tmp_path / "checkpoints"))


def test_a_checkpoint_has_float32_weights_optimizer_state_and_cursor_and_no_pickle(checkpoint: Path) -> None:
    tensors, metadata = files.load_verified(checkpoint)
    assert metadata["step"] == "2"
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}
    assert {name.rpartition(".")[2] for name in tensors} == {"lora_A", "lora_B", "step", "exp_avg", "exp_avg_sq"}
    assert [path.name for path in checkpoint.parent.iterdir()] == [checkpoint.name]


@pytest.mark.slow
@pytest.mark.parametrize("other", [{"seed": 7}, {"optimizer__lr": 1e-3}, {"adapter__rank": 8}, {"data__batch_size": 2}])
def test_a_checkpoint_of_another_run_is_refused(bench: Workbench, saved: Path, other: dict[str, object]) -> None:
    with pytest.raises(BadCheckpoint, match="another run"):
        bench.run(bench.request(str(saved), **other, length__count=2))


def test_a_checkpoint_with_other_captions_is_refused(bench: Workbench, saved: Path) -> None:
    bench.examples = [*bench.examples[:-1], msgspec.structs.replace(bench.examples[-1], caption="another")]
    with pytest.raises(BadCheckpoint, match="another run"):
        bench.run(bench.request(str(saved), length__count=2))


@pytest.mark.slow
@pytest.mark.parametrize("fraction", [0.0, 0.001, 0.5, 0.999])
def test_a_truncated_checkpoint_is_refused(bench: Workbench, saved: Path, fraction: float) -> None:
    content = saved.read_bytes()
    saved.write_bytes(content[: int(len(content) * fraction)])
    with pytest.raises(BadCheckpoint, match="cannot be read"):
        bench.run(bench.request(str(saved), length__count=2))


def test_a_checkpoint_with_one_wrong_byte_is_refused(bench: Workbench, saved: Path) -> None:
    content = bytearray(saved.read_bytes())
    content[-7] ^= 1
    saved.write_bytes(content)
    with pytest.raises(BadCheckpoint, match="damaged"):
        bench.run(bench.request(str(saved), length__count=2))


@pytest.mark.slow
def test_a_missing_checkpoint_is_refused(bench: Workbench) -> None:
    with pytest.raises(BadCheckpoint, match="cannot be read"):
        bench.run(bench.request("missing.safetensors"))


def _remove_tensor(tensors: dict[str, torch.Tensor]) -> None:
    del tensors[min(tensors)]


def _reshape(tensors: dict[str, torch.Tensor]) -> None:
    tensors[min(tensors)] = tensors[min(tensors)][:1].clone()


def _to_half(tensors: dict[str, torch.Tensor]) -> None:
    tensors[min(tensors)] = tensors[min(tensors)].half()


def _set_nan(tensors: dict[str, torch.Tensor]) -> None:
    tensors[min(tensors)][0, 0] = float("nan")


@pytest.mark.parametrize("corrupt", [_remove_tensor, _reshape, _to_half, _set_nan])
def test_a_checkpoint_with_unexpected_tensors_is_refused(
    bench: Workbench, saved: Path, corrupt: Callable[[dict[str, torch.Tensor]], None]
) -> None:
    tensors, metadata = files.load_verified(saved)
    corrupt(tensors)
    files.write_atomically(saved, files.serialize_with_digest(tensors, metadata))
    with pytest.raises(BadCheckpoint):
        bench.run(bench.request(str(saved), length__count=2))


def test_a_checkpoint_past_the_last_step_is_refused(bench: Workbench, saved: Path) -> None:
    with pytest.raises(BadCheckpoint, match="after step 2"):
        bench.run(bench.request(str(saved), length__count=1))
