"""Files named by what is in them: written under a temporary name, synced, then renamed."""

import contextlib
import hashlib
import os
import re
import shutil
import time
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path

from engine.errors import StoreError
from engine.store.faults import told

_NAME = re.compile(r"[0-9a-f]{64}\.[a-z0-9]{1,12}")
_BLOCK_BYTES = 1 << 20
_INCOMING_KEPT_S = 24 * 3600.0


class FileStore:
    """A folder of files whose names are the SHA-256 of their contents and an ending.

    Args:
        folder: Made when absent.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._incoming = folder / "incoming"
        with told("open the store's folder"):
            self._incoming.mkdir(parents=True, exist_ok=True)

    def path(self, name: str) -> Path:
        """Where the file of that name lies, whether or not it is there."""
        if not _NAME.fullmatch(name):
            raise ValueError(f"not a name of this store: {name!r}")
        return self._folder / name[:2] / name

    def write(self, data: bytes | Iterable[bytes], suffix: str) -> tuple[str, int]:
        """Keep data for good; on return it is on the disk.

        Args:
            data: All of it, or its blocks in order.
            suffix: Ending with its dot, lower case.

        Returns:
            The file's name and its size in bytes.

        Raises:
            StoreError: the disk is full or read-only; nothing is left behind.
        """
        temporary = self._incoming / f"{os.getpid()}-{uuid.uuid4().hex}.part"
        digest, size = hashlib.sha256(), 0
        blocks = (data,) if isinstance(data, bytes) else data
        try:
            with told("save a file"):
                descriptor = os.open(
                    temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o600
                )
                try:
                    for block in blocks:
                        _write_whole(descriptor, block)
                        digest.update(block)
                        size += len(block)
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)
                name = digest.hexdigest() + suffix
                destination = self.path(name)
                destination.parent.mkdir(exist_ok=True)
                os.replace(temporary, destination)
                sync_folder(destination.parent)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
        return name, size

    def keep(self, source: Path | bytes, suffix: str) -> tuple[str, int]:
        """Keep bytes, or a copy of a file; see `write`."""
        if isinstance(source, bytes):
            return self.write(source, suffix)
        with told(f"read {source.name}"), source.open("rb") as stream:
            return self.write(iter(lambda: stream.read(_BLOCK_BYTES), b""), suffix)

    def has(self, name: str) -> bool:
        """Whether the file is there."""
        return self.path(name).is_file()

    def read(self, name: str) -> bytes:
        """All of a file, its hash checked first.

        Raises:
            StoreError: it is missing or was changed by something else.
        """
        with told("read a file of the store"):
            data = self.path(name).read_bytes()
        if hashlib.sha256(data).hexdigest() != name[:64]:
            raise StoreError(
                "A file of the store was changed by something else.",
                hint=f"Restore {name} from a copy of the data folder, or make the voice again.",
            )
        return data

    def remove(self, name: str) -> None:
        """Delete a file; fine when it is gone already or cannot be deleted now."""
        with contextlib.suppress(OSError):
            self.path(name).unlink(missing_ok=True)

    def names(self) -> Iterator[tuple[str, float]]:
        """Name and time of last change of every file kept."""
        with told("look through the store's files"):
            for folder in sorted(self._folder.iterdir()):
                if folder == self._incoming or not folder.is_dir():
                    continue
                with os.scandir(folder) as entries:
                    for entry in entries:
                        if _NAME.fullmatch(entry.name):
                            yield entry.name, entry.stat().st_mtime

    def sweep_incoming(self) -> None:
        """Remove what a killed process left half-written more than a day ago."""
        now = time.time()
        with contextlib.suppress(OSError):
            for path in self._incoming.iterdir():
                if now - path.stat().st_mtime < _INCOMING_KEPT_S:
                    continue
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make renames inside a folder survive a power cut; Windows does so by itself."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_whole(descriptor: int, block: bytes) -> None:
    view = memoryview(block)
    while view:
        view = view[os.write(descriptor, view) :]
