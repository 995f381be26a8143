from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
import torch

from tests.trainer.builders import Workbench, last
from trainer.engine import files
from trainer.engine.checkpoint import BadCheckpoint
from trainer.messages import Saved


@pytest.fixture
def saved(bench: Workbench) -> Path:
    return Path(last(bench.run(bench.order(length__count=2)), Saved).path)


def test_it_holds_float32_weights_optimizer_and_place_and_no_pickle(saved: Path) -> None:
    tensors, metadata = files.unsealed(saved)
    assert metadata["step"] == "2"
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}
    assert {name.rpartition(".")[2] for name in tensors} == {"lora_A", "lora_B", "step", "exp_avg", "exp_avg_sq"}
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]


@pytest.mark.parametrize("other", [{"seed": 7}, {"optimizer__lr": 1e-3}, {"adapter__rank": 8}, {"data__batch_size": 2}])
def test_one_of_another_run_is_refused(bench: Workbench, saved: Path, other: dict[str, object]) -> None:
    with pytest.raises(BadCheckpoint, match="another run"):
        bench.run(bench.order(**other, length__count=2, resume_from=str(saved)))


def test_one_of_other_captions_is_refused(bench: Workbench, saved: Path) -> None:
    bench.examples = [*bench.examples[:-1], msgspec.structs.replace(bench.examples[-1], caption="another")]
    with pytest.raises(BadCheckpoint, match="another run"):
        bench.run(bench.order(length__count=2, resume_from=str(saved)))


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_a_torn_one_is_refused(bench: Workbench, saved: Path, share: float) -> None:
    content = saved.read_bytes()
    saved.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(BadCheckpoint, match="cannot be read"):
        bench.run(bench.order(length__count=2, resume_from=str(saved)))


def test_one_with_a_single_wrong_byte_is_refused(bench: Workbench, saved: Path) -> None:
    content = bytearray(saved.read_bytes())
    content[-7] ^= 1
    saved.write_bytes(content)
    with pytest.raises(BadCheckpoint, match="damaged"):
        bench.run(bench.order(length__count=2, resume_from=str(saved)))


def test_one_that_is_not_there_is_refused(bench: Workbench) -> None:
    with pytest.raises(BadCheckpoint, match="cannot be read"):
        bench.run(bench.order(resume_from="nowhere.safetensors"))


def _without(tensors: dict[str, torch.Tensor]) -> None:
    del tensors[min(tensors)]


def _reshaped(tensors: dict[str, torch.Tensor]) -> None:
    tensors[min(tensors)] = tensors[min(tensors)][:1].clone()


def _halved(tensors: dict[str, torch.Tensor]) -> None:
    tensors[min(tensors)] = tensors[min(tensors)].half()


def _spoiled(tensors: dict[str, torch.Tensor]) -> None:
    tensors[min(tensors)][0, 0] = float("nan")


@pytest.mark.parametrize("spoil", [_without, _reshaped, _halved, _spoiled])
def test_one_whose_tensors_do_not_fit_is_refused(
    bench: Workbench, saved: Path, spoil: Callable[[dict[str, torch.Tensor]], None]
) -> None:
    tensors, metadata = files.unsealed(saved)
    spoil(tensors)
    files.write_whole(saved, files.sealed(tensors, metadata))
    with pytest.raises(BadCheckpoint):
        bench.run(bench.order(length__count=2, resume_from=str(saved)))


def test_one_past_the_end_is_refused(bench: Workbench, saved: Path) -> None:
    with pytest.raises(BadCheckpoint, match="after step 2"):
        bench.run(bench.order(length__count=1, resume_from=str(saved)))
