"""Everything a trainer stores of a picture can be found by its digest and deleted."""

from pathlib import Path

import torch

from contracts.ids import Digest
from trainer.engine.data import EncodingCache
from trainer.erasure import purge_pictures, purge_unattributed

ONE, TWO = Digest("1" * 64), Digest("2" * 64)


def test_all_encodings_and_files_of_a_picture_are_deleted_and_those_of_others_kept(tmp_path: Path) -> None:
    cache, work = tmp_path / "cache", tmp_path / "work"
    for picture in (ONE, TWO):
        for kind in ("latents", "texts"):
            EncodingCache(cache).load_or_encode(kind, picture, "encoder", encode=lambda: {"a": torch.ones(2)})
        attempt = work / "boot" / "job_1-7"
        attempt.mkdir(parents=True, exist_ok=True)
        (attempt / picture).write_bytes(b"a picture")

    for _ in range(2):
        purge_pictures({ONE}, cache=cache, work=work)

    left = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert len(left) == 3
    assert all(TWO in str(file) for file in left)


def test_a_cache_without_picture_digests_is_deleted_as_a_whole(tmp_path: Path) -> None:
    for part in ("latents/ab/1.safetensors", "texts/ab/2.safetensors", "bases/demo/model.safetensors"):
        (tmp_path / part).parent.mkdir(parents=True)
        (tmp_path / part).touch()

    purge_unattributed(tmp_path)

    assert [file.name for file in tmp_path.rglob("*.safetensors")] == ["model.safetensors"]
