"""Putting a damaged database aside, restoring the newest good backup, finding the voices made since."""

import json
import logging
import os
import shutil
import sqlite3
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine.errors import StoreError
from engine.store import tensors
from engine.store.backups import Backups
from engine.store.database import Database
from engine.store.faults import told
from engine.store.files import FileStore, sync_folder
from engine.store.names import name_key
from engine.store.store import DATABASE_NAME, Store

logger = logging.getLogger(__name__)


def repair_store(folder: Path, backup: Path | None) -> tuple[Store, list[str]]:
    """Open a store whose database is damaged: keep the damaged file aside, restore a backup, find newer voices.

    Every voice's file describes its whole profile, so voices made after the backup come back too, under the names
    they were made with.

    Args:
        folder: The data folder.
        backup: `StoreDamagedError.backup`, or None to start with what the files alone tell.

    Returns:
        The open store and the names of the voices found again in their files.

    Raises:
        StoreError: the disk is full or read-only; the damaged file and the backups stay as they were.
    """
    database = folder / DATABASE_NAME
    prepared = folder / f"{DATABASE_NAME}.{os.getpid()}.part"
    known = Backups(folder / "backups").voice_ids()
    with told("restore the database"):
        if backup is not None:
            shutil.copyfile(backup, prepared)
            _sync_file(prepared)
        put_aside(database)
        if backup is not None:
            os.replace(prepared, database)
            sync_folder(folder)
    if backup is None:
        Database(database, lambda version: None).close()
    store = Store(folder)
    try:
        return store, _find_newer(store, FileStore(folder / "files"), known)
    except BaseException:
        store.close()
        raise


def put_aside(database: Path) -> Path | None:
    """Rename a database and what SQLite keeps beside it; returns the new name of the database, or None."""
    aside = database.with_name(f"damaged-{time.strftime('%Y-%m-%d-%H%M%S')}-{os.getpid()}.sqlite")
    # The log first: a database without its log is an older state, a log without its database would be replayed into
    # the restored one.
    for ending in ("-wal", "-shm", ""):
        beside = database.with_name(database.name + ending)
        if beside.exists():
            os.replace(beside, aside.with_name(aside.name + ending))
    logger.warning("damaged database kept as %s", aside.name)
    return aside if aside.exists() else None


def _find_newer(store: Store, files: FileStore, known: set[str]) -> list[str]:
    found: dict[str, tuple[float, Mapping[str, Any], str]] = {}
    for name, changed in list(files.names()):
        if not name.endswith(".safetensors"):
            continue
        try:
            described = tensors.profile(files.read(name))
        except StoreError as error:
            logger.warning("%s is of no use: %s", name, error)
            continue
        voice_id = described.get("row", {}).get("id")
        if voice_id and voice_id not in known and changed > found.get(voice_id, (0.0,))[0]:
            found[voice_id] = (changed, described, name)
    names = []
    for _, profile, name in sorted(found.values(), key=lambda one: one[0]):
        row: dict[str, Any] = dict(profile["row"])
        row["name"] = store.free_name(row["name"])
        row["name_key"] = name_key(row["name"])
        row |= {
            "tensors_file": name,
            "tensors_size": files.path(name).stat().st_size,
            "previous": None,
            "deleted": None,
        }
        try:
            if store.insert_found(row, profile["recordings"]):
                names.append(row["name"])
        except (sqlite3.Error, KeyError, json.JSONDecodeError) as error:
            logger.warning("the voice in %s cannot be taken back: %s", name, error)
    return names


def _sync_file(path: Path) -> None:
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
