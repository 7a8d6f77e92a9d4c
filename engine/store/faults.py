"""What SQLite and the file system can refuse, told in one sentence each."""

import errno
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from engine.errors import StoreError

_FULL_HINT = "Free some space on that disk and try again; nothing that was saved before is lost."
_READ_ONLY_HINT = "Make the folder writable, or point AUTOVOICE_HOME at another one."


class StoreDamagedError(StoreError):
    """The database file is damaged or gone; its files and backups are still there.

    Attributes:
        folder: The store's folder, for `repair_store`.
        backup: The newest good backup, or None.
    """

    def __init__(self, message: str, *, folder: Path, backup: Path | None, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.folder, self.backup = folder, backup


class DamageFoundError(Exception):
    """SQLite found its file damaged; the store turns this into `StoreDamagedError` with the backup to offer."""


@contextmanager
def told(doing: str) -> Iterator[None]:
    """Turn what fails inside into a StoreError whose sentence says what was being done.

    Args:
        doing: A clause for the sentence, such as "save the voice".

    Raises:
        StoreError: the disk is full, read-only or broken, or another program holds the database.
        DamageFoundError: the database is damaged.
    """
    try:
        yield
    except OSError as error:
        raise _from_os(error, doing) from error
    except sqlite3.Error as error:
        raise _from_sqlite(error, doing) from error


def _from_os(error: OSError, doing: str) -> StoreError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return StoreError(f"The disk is full, so AutoVoice could not {doing}.", hint=_FULL_HINT)
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        return StoreError(f"The folder is read-only, so AutoVoice could not {doing}.", hint=_READ_ONLY_HINT)
    if error.errno == errno.ENOENT:
        return StoreError(f"A file is missing, so AutoVoice could not {doing}.", hint=str(error.filename or ""))
    return StoreError(f"AutoVoice could not {doing}: {error.strerror or error}.", hint=str(error.filename or ""))


def _from_sqlite(error: sqlite3.Error, doing: str) -> Exception:
    code = getattr(error, "sqlite_errorcode", None)
    primary = code & 0xFF if code is not None else None
    if primary in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return DamageFoundError(str(error))
    if primary == sqlite3.SQLITE_FULL:
        return StoreError(f"The disk is full, so AutoVoice could not {doing}.", hint=_FULL_HINT)
    if primary in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
        return StoreError(f"The folder is read-only, so AutoVoice could not {doing}.", hint=_READ_ONLY_HINT)
    if primary in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return StoreError(
            f"Another AutoVoice is busy with the store, so this one could not {doing}.",
            hint="Wait until it has finished, or close it, and try again.",
        )
    if primary == sqlite3.SQLITE_IOERR:
        return StoreError(f"The disk failed or is full, so AutoVoice could not {doing}.", hint=_FULL_HINT)
    return error
