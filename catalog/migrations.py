"""Schema numbers and migrations of the files that cannot be rebuilt.

The number is SQLite's `PRAGMA user_version`. Step n of a schema brings a file from number n to n + 1. Steps are only
ever added: files of every older number exist somewhere, in data folders and in backups.
"""

import sqlite3
from dataclasses import dataclass

from contracts.errors import SetupError


@dataclass(frozen=True)
class Schema:
    """The schema of one file. Each step is a series of statements, executed in one transaction."""

    file: str
    steps: tuple[tuple[str, ...], ...]

    def migrate(self, connection: sqlite3.Connection) -> None:
        """Bring a new or an older file to the current number. SetupError: a newer version wrote it."""
        for number in range(self.check(connection), len(self.steps)):
            connection.execute("BEGIN IMMEDIATE")
            try:
                if self.check(connection) == number:  # otherwise another process has just executed this step
                    for statement in (*self.steps[number], f"PRAGMA user_version = {number + 1}"):
                        connection.execute(statement)
                connection.execute("COMMIT")
            except BaseException:
                connection.rollback()
                raise

    def check(self, connection: sqlite3.Connection) -> int:
        """The schema number of a file. SetupError: a newer version wrote it."""
        number = int(connection.execute("PRAGMA user_version").fetchone()[0])
        if number > len(self.steps):
            raise SetupError(
                f"{self.file} was written by a newer version of Loratory (schema {number}; this one knows "
                f"{len(self.steps)}); upgrade Loratory"
            )
        return number
