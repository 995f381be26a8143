"""Which command cures which damage of a data folder: the table behind each refusal and behind operations.md. Pure.

A cure is one whole command in backquotes, so that it can be copied from the message as it is.
"""

import re
import shlex
from pathlib import Path
from typing import Literal

import msgspec

Damaged = Literal["log", "archive", "keys", "all keys", "format", "image keys", "blobs"]
"""What of a data folder is damaged. `keys`: some can still be read; `all keys`: the whole file is lost."""


class Cure(msgspec.Struct, frozen=True):
    """`command` cures it without a backup, `with_backup` with one; both are given `{data}` and `{backup}`."""

    damage: str
    command: str
    with_backup: str


RESTORE = "loratory restore --data {data}"
RESTORE_FROM = f"{RESTORE} --from {{backup}}"
CURES: dict[Damaged, Cure] = {
    "log": Cure("the log is gone, damaged, incomplete, or another one", RESTORE, RESTORE),
    "archive": Cure("`archive.db` is damaged, or another one", RESTORE, RESTORE_FROM),
    "keys": Cure("`keys.db` is damaged, but can be read in part", RESTORE, RESTORE_FROM),
    "all keys": Cure(
        "`keys.db` is gone, empty, unreadable, or another one", "loratory accept-loss keys --data {data}", RESTORE_FROM
    ),
    "image keys": Cure("keys of images are lost", "loratory accept-loss images --data {data}", RESTORE_FROM),
    "blobs": Cure("blobs are gone or damaged", "loratory accept-loss blobs --data {data}", RESTORE_FROM),
    "format": Cure("`format` names a version that never used the folder", "rm {data}/format", "rm {data}/format"),
}


def cure(damaged: Damaged, data: Path, backup: Path | None = None) -> str:
    """The end of a message that says what cures the damage of this data folder; `backup`: a backup of it."""
    found = CURES[damaged]
    command = found.with_backup if backup else found.command
    return f"cure: `{command.format(data=shlex.quote(str(data)), backup=shlex.quote(str(backup)))}`"


def cures_in(text: str) -> list[str]:
    """The commands that a message names as cures."""
    return re.findall(r"cure: `([^`]+)`", text)


def markdown_table() -> str:
    """The table in docs/operations.md."""
    data, backup = "~/loratory", "/mnt/disk/loratory"
    lines = ["| What is wrong | With a backup | Without |", "|---|---|---|"]
    for found in CURES.values():
        commands = [command.format(data=data, backup=backup) for command in (found.with_backup, found.command)]
        lines.append(f"| {found.damage} | `{commands[0]}` | `{commands[1]}` |")
    return "\n".join(lines) + "\n"
