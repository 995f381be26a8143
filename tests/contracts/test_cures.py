"""Cures are whole commands that can be copied from a message."""

import shlex
from pathlib import Path
from typing import get_args

import pytest

from contracts.cures import CURES, Damaged, cure, cures_in

DATA, BACKUP = Path("/home/ann/my loras"), Path("/mnt/disk/it's here")


@pytest.mark.parametrize("damaged", get_args(Damaged))
def test_a_cure_is_a_command_that_a_shell_splits_into_the_right_words(damaged: Damaged) -> None:
    for backup in (None, BACKUP):
        (command,) = cures_in(f"it is damaged; {cure(damaged, DATA, backup)}; its log is in logs")
        words = shlex.split(command)
        assert words[0] in {"loratory", "rm"}
        assert any(word.startswith(str(DATA)) for word in words)
        assert (str(BACKUP) in words) is (backup is not None and "{backup}" in CURES[damaged].with_backup)


def test_without_a_backup_nothing_is_given_up_where_something_can_be_read() -> None:
    assert {name for name, found in CURES.items() if "accept-loss" in found.command} == {
        "all keys",
        "image keys",
        "blobs",
    }
    assert all("accept-loss" not in found.with_backup for found in CURES.values())
