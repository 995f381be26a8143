"""Schema numbers and migrations of the files that cannot be rebuilt.

The number is SQLite's `PRAGMA user_version`. Step n of a schema brings a file from number n to n + 1. Steps are only
ever added: files of every older number exist somewhere, in data folders and in backups.
"""

import sqlite3
from dataclasses import dataclass

from contracts.errors import SetupError


@dataclass(frozen=True)
class Schema:
    """The schema of one file. Each step is a series of statements, executed in one transaction.

    Files with a number below `oldest` are refused: what they hold cannot be brought to the current format.
    """

    file: str
    steps: tuple[tuple[str, ...], ...]
    oldest: int = 0

    def migrate(self, connection: sqlite3.Connection) -> None:
        """Bring a new or an older file to the current number. SetupError: a newer version wrote it."""
        for number in range(self.check(connection), len(self.steps)):
            connection.execute("BEGIN IMMEDIATE")
            try:
                if _number(connection) == number:  # otherwise another process has just executed this step
                    for statement in (*self.steps[number], f"PRAGMA user_version = {number + 1}"):
                        connection.execute(statement)
                connection.execute("COMMIT")
            except BaseException:
                connection.rollback()
                raise

    def check(self, connection: sqlite3.Connection) -> int:
        """The schema number of a file. SetupError: a newer version wrote it, or one that is too old."""
        number = _number(connection)
        if number < self.oldest and connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone():
            raise SetupError(
                f"{self.file} was written by an older version of Loratory, in a format that this one cannot read; "
                "start with a new data folder"
            )
        if number > len(self.steps):
            raise SetupError(
                f"{self.file} was written by a newer version of Loratory (schema {number}; this one knows "
                f"{len(self.steps)}); upgrade Loratory"
            )
        return number


def _number(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])
