"""Every file of a data folder, damaged in every way: it starts, or names one command that cures it, and shows the same.

The quick set damages a few files; `--all` walks the whole table.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.acceptance.local_stack import LocalStack
from tests.acceptance.workshops import make_workshop, snapshot, start_with_cures
from tests.damage import damage_file

STREAMS = "nats/streams/jetstream/LORATORY/streams"
WAYS = ("middle", "end", "emptied", "deleted", "another")
ESSENTIAL = (
    "format",
    "catalog/archive.db",
    "catalog/keys.db",
    "catalog/read.db",
    "catalog/log_id",
    "catalog/backups.json",
    "nats/users.json",
    *(
        f"{STREAMS}/{stream}/{file}"
        for stream in ("EVT", "JOBS", "MET", "KV_catalog", "KV_sessions")
        for file in ("meta.inf", "meta.sum", "msgs/1.blk", "msgs/index.db")
    ),
)
"""Damaged one by one."""
HARMLESS = (
    "lock",
    "run/*",
    "logs/*",
    "nats/lock",
    "nats/port",
    "nats/server.conf",
    "nats/server.log*",
    "nats/*.ports",
    f"{STREAMS}/*/obs/*",
    "staging/*",
    "work/*",
    "cache/*",
    "loras/*",
)
"""Damaged all at once: none of them may stop a start."""
BLOBS = "blobs/*"
"""Tests of the watch damage these: they never stop a start."""
QUICK = {("catalog/keys.db", "deleted", True), ("catalog/archive.db", "middle", False)}


class Workshops(NamedTuple):
    """A stopped workshop, what it shows, its backup, and another workshop."""

    data: Path
    shown: dict[str, object]
    backup: Path
    other: Path


@pytest.fixture(scope="module")
def workshops(tmp_path_factory: pytest.TempPathFactory) -> Workshops:
    home = tmp_path_factory.mktemp("workshops")
    shown = make_workshop(home / "data", home / "pictures", seed=3, backup=home / "backup")
    make_workshop(home / "other", home / "others", seed=4)
    return Workshops(home / "data", shown, home / "backup", home / "other")


def cases() -> Iterator[object]:
    for file in ESSENTIAL:
        for how in WAYS:
            for has_backup in (True, False):
                case = (file, how, has_backup)
                yield pytest.param(*case, marks=() if case in QUICK else pytest.mark.slow)


@pytest.mark.parametrize(("file", "how", "has_backup"), list(cases()))
def test_a_damaged_file_is_cured_by_the_command_that_the_refusal_names(
    workshops: Workshops, tmp_path: Path, file: str, how: str, has_backup: bool
) -> None:
    stack = LocalStack(Path(shutil.copytree(workshops.data, tmp_path / "data")), workers=False)
    if not has_backup:
        (stack.data / "catalog" / "backups.json").unlink()
    damaged, other = stack.data / file, workshops.other / file
    if not damaged.exists() or (how == "another" and not other.exists()):
        return
    damage_file(damaged, how, other)

    commands = start_with_cures(stack)

    try:
        with stack.http() as http:
            print(file, how, has_backup, commands, snapshot(http) == workshops.shown)
    finally:
        stack.stop()
