"""What the trainer does at its start."""

import os
import time
from pathlib import Path

from trainer.app import STALE_WORK_DIR_SECONDS, remove_leftovers
from trainer.settings import Settings

DAY = 24 * 3600


def test_leftovers_of_killed_trainers_are_removed_and_recent_files_are_not(tmp_path: Path) -> None:
    settings = Settings(cache=tmp_path / "cache", work=tmp_path / "work", loras=tmp_path / "loras")
    old_attempt, attempt = settings.work / "old", settings.work / "recent"
    old_draft, draft, lora = (settings.loras / name for name in (".old.draft", ".recent.draft", "cat.safetensors"))
    for folder in (old_attempt, attempt, settings.cache / "latents", settings.cache / "pictures", settings.loras):
        folder.mkdir(parents=True)
    for file in (old_draft, draft, lora):
        file.write_bytes(b"weights")
    for path, age in ((old_attempt, STALE_WORK_DIR_SECONDS + DAY), (old_draft, 2 * DAY), (lora, 2 * DAY)):
        os.utime(path, (time.time() - age,) * 2)
    remove_leftovers(settings)
    assert set(settings.work.iterdir()) == {attempt}
    assert set(settings.loras.iterdir()) == {draft, lora}
    assert set(settings.cache.iterdir()) == {settings.cache / "pictures"}
