from pathlib import Path

from contracts.shipped_models import shipped_models
from demo_world.models.tiny_random_tagger import write


def test_the_committed_files_are_what_the_script_generates(tmp_path: Path) -> None:
    write(tmp_path)
    committed = shipped_models("taggers")["tiny-random"]
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == {
        file.name: file.read_bytes() for file in committed.iterdir()
    }
