"""Copies of the database: one a day, seven kept, and one before every migration or restore."""

import contextlib
import json
import os
import re
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

from engine.store.database import find_damage
from engine.store.faults import told
from engine.store.files import sync_folder
from engine.store.records import BackupRecord
from engine.store.schema import FILE_COLUMNS

DAILY_KEPT = 7
_OTHERS_KEPT = 5
_NAME = re.compile(r"(daily|before-restore|before-migration)-\d{4}-\d{2}-\d{2}(-\d{6}(-\d+)?)?\.sqlite")


class Backups:
    """The folder of backups of one store."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with told("open the store's folder"):
            folder.mkdir(parents=True, exist_ok=True)

    def has_todays(self) -> bool:
        """Whether today's daily backup is there."""
        return (self.folder / f"daily-{time.strftime('%Y-%m-%d')}.sqlite").exists()

    def make(self, reason: str, copy_to: Callable[[Path], None]) -> Path:
        """Write one backup, whole or not at all, and drop the oldest ones of its kind.

        Args:
            reason: "daily", "before-restore" or "before-migration".
            copy_to: Writes the copy to a path.

        Raises:
            StoreError: the disk is full or read-only.
        """
        stamp = time.strftime("%Y-%m-%d" if reason == "daily" else "%Y-%m-%d-%H%M%S")
        path, number = self.folder / f"{reason}-{stamp}.sqlite", 1
        while reason != "daily" and path.exists():
            number += 1
            path = self.folder / f"{reason}-{stamp}-{number}.sqlite"
        temporary = self.folder / f"{path.name}.{os.getpid()}.part"
        try:
            copy_to(temporary)
            with told("back up the database"):
                os.replace(temporary, path)
                sync_folder(self.folder)
        except BaseException:
            for left in self.folder.glob(f"{temporary.name}*"):
                with contextlib.suppress(OSError):
                    left.unlink(missing_ok=True)
            raise
        kept = DAILY_KEPT if reason == "daily" else _OTHERS_KEPT
        for old in [backup for backup, why, _ in self._found() if why == reason][kept:]:
            with contextlib.suppress(OSError):
                old.unlink(missing_ok=True)
        return path

    def good(self) -> Iterator[BackupRecord]:
        """Every backup that passes SQLite's check, newest first."""
        for path, reason, created in self._found():
            with contextlib.suppress(sqlite3.Error, OSError), closing(open_read_only(path)) as connection:
                if not find_damage(connection):
                    query = "SELECT count(*) FROM voices WHERE deleted IS NULL"
                    yield BackupRecord(path, created, int(connection.execute(query).fetchone()[0]), reason)

    def newest_good(self) -> Path | None:
        """The backup to offer when the database is damaged."""
        return next((backup.path for backup in self.good()), None)

    def are_there(self) -> bool:
        """Whether there is any backup, sound or not."""
        return next(iter(self._found()), None) is not None

    def named_files(self) -> set[str]:
        """Names of all files that any readable backup's rows need; those must not be swept away."""
        names: set[str] = set()
        for path, _, _ in self._found():
            with contextlib.suppress(sqlite3.Error, OSError), closing(open_read_only(path)) as connection:
                names |= named_files(connection)
        return names

    def voice_ids(self) -> set[str]:
        """Ids of every voice that any readable backup knows, deleted ones included."""
        ids: set[str] = set()
        for path, _, _ in self._found():
            with contextlib.suppress(sqlite3.Error, OSError), closing(open_read_only(path)) as connection:
                ids.update(row[0] for row in connection.execute("SELECT id FROM voices"))
        return ids

    def _found(self) -> list[tuple[Path, str, float]]:
        found = []
        with told("look for backups"):
            for path in self.folder.iterdir():
                match = _NAME.fullmatch(path.name)
                if match:
                    found.append((path, match.group(1), path.stat().st_mtime))
        return sorted(found, key=lambda one: one[2], reverse=True)


def open_read_only(path: Path) -> sqlite3.Connection:
    """Open a backup without changing anything, not even beside it."""
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)


def named_files(connection: sqlite3.Connection) -> set[str]:
    """Names of all files that the rows of a database need."""
    names: set[str] = set()
    for table, column in FILE_COLUMNS:
        names.update(row[0] for row in connection.execute(f"SELECT {column} FROM {table} WHERE {column} IS NOT NULL"))
    for (previous,) in connection.execute("SELECT previous FROM voices WHERE previous IS NOT NULL"):
        names.add(json.loads(previous)["tensors_file"])
    return names
