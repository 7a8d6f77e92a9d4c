"""The SQLite file: one connection per thread, transactions, migrations, integrity."""

import logging
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from engine.errors import StoreError
from engine.store.faults import DamageFoundError, told
from engine.store.schema import MIGRATIONS

logger = logging.getLogger(__name__)

_BUSY_TIMEOUT_S = 10.0


class Database:
    """One SQLite database, open in as many threads and processes as need it.

    Args:
        path: The file; made when absent.
        before_migrating: Called with the old version before an existing file is migrated, to copy it.

    Raises:
        StoreError: locked, full, read-only, or made by a newer AutoVoice.
        DamageFoundError: it is not a sound database.
    """

    def __init__(self, path: Path, before_migrating: Callable[[int], None]) -> None:
        self.path = path
        self._local = threading.local()
        self._opened: list[tuple[weakref.ref[threading.Thread], sqlite3.Connection]] = []
        self._lock = threading.Lock()
        try:
            self._check()
            self._migrate(before_migrating)
        except BaseException:
            self.close()
            raise

    @contextmanager
    def reading(self, doing: str) -> Iterator[sqlite3.Connection]:
        """This thread's connection, for queries; several queries inside see one state of the data."""
        connection = self._connection()
        with told(doing):
            if connection.in_transaction:
                yield connection
                return
            connection.execute("BEGIN")
            try:
                yield connection
            finally:
                connection.execute("ROLLBACK")

    @contextmanager
    def writing(self, doing: str) -> Iterator[sqlite3.Connection]:
        """A transaction that holds the write lock from its start; on the disk when the block is left."""
        connection = self._connection()
        with told(doing):
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    def copy_to(self, destination: Path) -> None:
        """Copy a consistent state into a new database file."""
        with told("back up the database"), closing(sqlite3.connect(destination)) as copy:
            self._connection().backup(copy)
            copy.execute("PRAGMA journal_mode = DELETE")  # a backup is one file

    def replace_with(self, source: Path) -> None:
        """Take over another database file's contents as one transaction; open connections see the new ones."""
        with told("restore the database"), closing(sqlite3.connect(f"{source.as_uri()}?mode=ro", uri=True)) as origin:
            origin.backup(self._connection())
        self._migrate(lambda version: None)

    def close(self) -> None:
        """Close every thread's connection."""
        with self._lock:
            opened, self._opened = self._opened, []
        for _, connection in opened:
            connection.close()
        self._local = threading.local()

    def _connection(self) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is not None:
            return connection
        with told("open the database"):
            connection = connect(self.path)
        with self._lock:
            alive = []
            for thread, opened in self._opened:
                owner = thread()
                if owner is not None and owner.is_alive():
                    alive.append((thread, opened))
                else:
                    opened.close()
            self._opened = [*alive, (weakref.ref(threading.current_thread()), connection)]
        self._local.connection = connection
        return connection

    def _check(self) -> None:
        with told("check the database"):
            problem = find_damage(self._connection())
        if problem:
            raise DamageFoundError(problem)

    def _migrate(self, before_migrating: Callable[[int], None]) -> None:
        version = self._version()
        if version > len(MIGRATIONS):
            raise StoreError(
                "This data folder was last used by a newer AutoVoice.",
                hint="Update AutoVoice, or choose another folder with AUTOVOICE_HOME; nothing was changed.",
            )
        if 0 < version < len(MIGRATIONS):
            before_migrating(version)
        while version < len(MIGRATIONS):
            with self.writing("update the database") as connection:
                # Another process may have migrated between the look and the lock.
                (version,) = connection.execute("PRAGMA user_version").fetchone()
                if version < len(MIGRATIONS):
                    for statement in MIGRATIONS[version]:
                        connection.execute(statement)
                    version += 1
                    connection.execute(f"PRAGMA user_version = {version}")
                    logger.info("database at version %d", version)

    def _version(self) -> int:
        with told("open the database"):
            (version,) = self._connection().execute("PRAGMA user_version").fetchone()
        return int(version)


def connect(path: Path) -> sqlite3.Connection:
    """Open one connection with the house settings; check_same_thread is off only so that `close` may close it."""
    connection = sqlite3.connect(path, timeout=_BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
    try:
        connection.row_factory = sqlite3.Row
        _use_wal(connection)
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA synchronous = FULL")
    except BaseException:
        connection.close()
        raise
    return connection


def find_damage(connection: sqlite3.Connection) -> str:
    """What SQLite's own check says of the file; empty when it is sound."""
    rows = connection.execute("PRAGMA integrity_check(1)").fetchall()
    return "" if [row[0] for row in rows] == ["ok"] else str(rows[0][0])


def _use_wal(connection: sqlite3.Connection) -> None:
    # Switching a new file to WAL needs it alone, and SQLite does not wait for that by itself.
    deadline = time.monotonic() + _BUSY_TIMEOUT_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.02)
