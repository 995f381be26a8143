from pathlib import Path

from trainer.engine.tiny_random import make_tiny_random


def test_the_tiny_random_base_is_reproducible_byte_for_byte(base: Path, tmp_path: Path) -> None:
    again = make_tiny_random(tmp_path / "again")
    files = sorted(path.relative_to(base) for path in base.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(again) for path in again.rglob("*") if path.is_file())
    assert all((base / path).read_bytes() == (again / path).read_bytes() for path in files)
    assert list(tmp_path.iterdir()) == [again]
    assert make_tiny_random(again) == again
