"""The front of the store: voices and everything else that must outlive the program."""

import contextlib
import hashlib
import json
import logging
import sqlite3
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.errors import ModelError, StoreError
from engine.jobs import JobContext
from engine.store import tensors
from engine.store.backups import Backups, named_files
from engine.store.builtin import builtin_voices
from engine.store.database import Database
from engine.store.faults import DamageFoundError, StoreDamagedError, told
from engine.store.files import FileStore
from engine.store.history import History
from engine.store.names import MAX_NAME_LENGTH, clean_name, name_key
from engine.store.records import BackupRecord, NewRecording, RecordingRecord, VoiceRecord

if TYPE_CHECKING:
    from engine.conversion.voice import Voice

logger = logging.getLogger(__name__)

DATABASE_NAME = "autovoice.sqlite"
_GARBAGE_AGE_S = 3600.0
_DELETED_KEPT_S = 30 * 24 * 3600.0
_COLOURS = ("#3b82c4", "#c4553b", "#3ba57a", "#8a63d2", "#b8862b", "#c2487f", "#4a8f9e", "#6b8e3d")


class Store(History):
    """Voices, renders, jobs and settings on disk; usable from several threads and processes at once.

    Deleted voices stay restorable for 30 days. Names compare without case. Files are named by hash; a row never
    points at a missing one, whenever the program is killed.

    Args:
        folder: The data folder; made when absent.

    Raises:
        StoreDamagedError: the database is damaged or gone; `repair_store` puts it aside and restores a backup.
        StoreError: locked, full, read-only, or made by a newer AutoVoice.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with told("open the data folder"):
            folder.mkdir(parents=True, exist_ok=True)
        self._backups = Backups(folder / "backups")
        self._files = FileStore(folder / "files")
        path = folder / DATABASE_NAME
        if self._backups.are_there() and (not path.exists() or path.stat().st_size == 0):
            raise self._damaged("it is gone")
        try:
            self._database = Database(path, self._copy_before_migrating)
        except DamageFoundError as error:
            raise self._damaged(str(error)) from error
        try:
            self.back_up_daily()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the database; the store is of no use afterwards."""
        self._database.close()

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    # Voices: reading.

    def voices(self) -> list[VoiceRecord]:
        """All voices, the user's in order of name, then the built-in ones."""
        with self._reading("list the voices") as connection:
            rows = connection.execute(f"{_VOICES} WHERE voices.deleted IS NULL ORDER BY name_key").fetchall()
        return [self._record(row) for row in rows] + builtin_voices()

    def voice(self, name_or_id: str) -> VoiceRecord:
        """One voice by its name, whatever its case, or its id.

        Raises:
            StoreError: there is none.
        """
        with self._reading("look up a voice") as connection:
            found = connection.execute(
                f"{_VOICES} WHERE voices.deleted IS NULL AND (id = ? OR name_key = ?) ORDER BY id = ? DESC",
                (name_or_id, name_key(name_or_id), name_or_id),
            ).fetchone()
        if found is not None:
            return self._record(found)
        for record in builtin_voices():
            if name_or_id == record.id or name_key(record.name) == name_key(name_or_id):
                return record
        known = ", ".join(record.name for record in self.voices()[:8])
        raise StoreError(f"There is no voice named '{name_or_id}'.", hint=f"Voices here: {known}." if known else "")

    def recordings(self, record: VoiceRecord) -> list[RecordingRecord]:
        """The recordings kept for a voice, in order."""
        with self._reading("list the recordings") as connection:
            rows = connection.execute(
                "SELECT * FROM recordings WHERE voice_id = ? ORDER BY position", (record.id,)
            ).fetchall()
        return [
            RecordingRecord(
                voice_id=row["voice_id"],
                source_name=row["source_name"],
                seconds=row["seconds"],
                voiced_seconds=row["voiced_seconds"],
                original=self._files.path(row["original_file"]),
                processed=self._files.path(row["processed_file"]),
                assessment=json.loads(row["assessment"]),
            )
            for row in rows
        ]

    def load_voice(self, record: VoiceRecord, ctx: JobContext | None = None) -> "Voice":
        """What conversion needs of a voice.

        When the shipped models changed since the voice was made, it is made again from its kept recordings first
        (some seconds), and saved.

        Raises:
            StoreError: its file is missing or was changed.
            ModelError: it was made with other models and no recordings are kept.
        """
        from engine.conversion.voice import Voice

        if record.builtin:
            with told("read a built-in voice"):
                data = record.tensors.read_bytes()
        else:
            data = self._files.read(record.tensors.name)
        arrays, metadata = tensors.unpack(data)
        voice = Voice.from_tensors(arrays, metadata)
        if voice.name != record.name:
            voice = _renamed(voice, record.name)
        if record.builtin or not self.is_stale(record):
            return voice
        return self._remake(record, ctx)

    def is_stale(self, record: VoiceRecord) -> bool:
        """Whether the voice was made with other models than the ones installed now."""
        from engine.conversion.voice import voice_model_id

        current = voice_model_id()
        return bool(current) and record.model_id != current

    def stale_voices(self) -> list[VoiceRecord]:
        """Voices made with other models that can be made again from their recordings; `load_voice` does so."""
        from engine.conversion.voice import voice_model_id

        current = voice_model_id()
        if not current:
            return []
        query = (
            f"{_VOICES} WHERE voices.deleted IS NULL AND model_id != ? AND num_recordings > 0 ORDER BY last_used DESC"
        )
        with self._reading("look for voices of other models") as connection:
            rows = connection.execute(query, (current,)).fetchall()
        return [self._record(row) for row in rows]

    # Voices: writing.

    def add_voice(
        self,
        voice: "Voice",
        *,
        consent: str,
        recordings: Sequence[NewRecording] = (),
        seconds: float,
        quality: str = "good",
        messages: Sequence[str] = (),
        notes: str = "",
        colour: str | None = None,
        picture: bytes | None = None,
        origin: str = "recorded",
        ctx: JobContext | None = None,
    ) -> VoiceRecord:
        """Save a new voice with its recordings; when this returns, it is on the disk.

        Args:
            voice: What conversion needs; its name is the profile's.
            consent: Whose voice it is and that they agreed.
            recordings: Kept beside it, for listening, improving and remaking.
            seconds: Speech or song it was made from.
            quality: "good" or "poor".
            messages: Warnings, in words.
            notes: The user's own.
            colour: "#rrggbb", or None for one that follows from the name.
            picture: A PNG, or None.
            origin: See `VoiceRecord`.
            ctx: Progress and cancellation between files.

        Raises:
            StoreError: the name is taken or unusable, or the disk refuses; nothing is left behind.
        """
        name = self.check_name(voice.name)
        voice_id, created = uuid.uuid4().hex, time.time()
        colour = colour or _COLOURS[hashlib.sha256(name.encode()).digest()[0] % len(_COLOURS)]
        written: list[str] = []

        def write() -> tuple[dict[str, Any], list[dict[str, Any]]]:
            kept = []
            for position, recording in enumerate(recordings):
                if ctx is not None:
                    ctx.checkpoint("Saving", position / (len(recordings) + 1))
                original_file, original_size = self._files.keep(recording.original, recording.original_suffix.lower())
                written.append(original_file)
                processed_file, processed_size = self._files.keep(recording.processed, ".flac")
                written.append(processed_file)
                kept.append(
                    {
                        "voice_id": voice_id,
                        "position": position,
                        "source_name": recording.source_name,
                        "seconds": recording.seconds,
                        "voiced_seconds": recording.voiced_seconds,
                        "original_file": original_file,
                        "original_size": original_size,
                        "processed_file": processed_file,
                        "processed_size": processed_size,
                        "assessment": _to_json(recording.assessment),
                    }
                )
            row: dict[str, Any] = {
                "id": voice_id,
                "name": name,
                "name_key": name_key(name),
                "created": created,
                "seconds": seconds,
                "quality": quality,
                "messages": _to_json(list(messages)),
                "consent": consent,
                "colour": colour,
                "notes": notes,
                "origin": origin,
                "picture_file": None,
            }
            if picture is not None:
                row["picture_file"], _ = self._files.write(picture, ".png")
                written.append(row["picture_file"])
            row |= self._write_tensors(voice, {"row": row, "recordings": kept})
            written.append(row["tensors_file"])
            return row, kept

        try:
            self._insert_voice(write)
        except BaseException:
            self._discard(written)
            raise
        return self.voice(voice_id)

    def rename(self, record: VoiceRecord, name: str) -> VoiceRecord:
        """Give a voice another name.

        Raises:
            StoreError: the name is taken or unusable, or the voice is built in.
        """
        self._must_be_own(record)
        name = self.check_name(name, taken_by=record.id)
        return self._update(record, name=name, name_key=name_key(name))

    def set_notes(self, record: VoiceRecord, notes: str) -> VoiceRecord:
        """Keep the user's notes on a voice."""
        self._must_be_own(record)
        return self._update(record, notes=notes)

    def set_picture(self, record: VoiceRecord, picture: bytes | None) -> VoiceRecord:
        """Keep a PNG as a voice's picture, or go back to its coloured initial."""
        self._must_be_own(record)
        name = self._files.write(picture, ".png")[0] if picture is not None else None
        return self._update(record, picture_file=name)

    def mark_used(self, record: VoiceRecord) -> None:
        """Note that a voice converts something now."""
        if not record.builtin:
            self._update(record, last_used=time.time())

    def duplicate(self, record: VoiceRecord) -> VoiceRecord:
        """Copy a voice, recordings included, under the next free name."""
        voice = _renamed(self.load_voice(record), self.free_name(record.name))
        recordings = [
            NewRecording(
                source_name=one.source_name,
                original=one.original,
                original_suffix=one.original.suffix,
                processed=one.processed,
                seconds=one.seconds,
                voiced_seconds=one.voiced_seconds,
                assessment=one.assessment,
            )
            for one in self.recordings(record)
        ]
        picture = self._files.read(record.picture.name) if record.picture and not record.builtin else None
        return self.add_voice(
            voice,
            consent=record.consent,
            recordings=recordings,
            seconds=record.seconds,
            quality=record.quality,
            messages=record.messages,
            notes=record.notes,
            picture=picture,
            origin="copy",
        )

    def delete(self, record: VoiceRecord) -> None:
        """Take a voice away; `undelete` brings it back for 30 days.

        Raises:
            StoreError: it is built in.
        """
        self._must_be_own(record)
        with self._writing("delete the voice") as connection:
            connection.execute(
                "UPDATE voices SET deleted = ? WHERE id = ? AND deleted IS NULL", (time.time(), record.id)
            )

    def deleted_voices(self) -> list[VoiceRecord]:
        """Voices that can still be brought back, last deleted first."""
        with self._reading("list the deleted voices") as connection:
            rows = connection.execute(f"{_VOICES} WHERE voices.deleted IS NOT NULL ORDER BY deleted DESC").fetchall()
        return [self._record(row) for row in rows]

    def undelete(self, record: VoiceRecord) -> VoiceRecord:
        """Bring a deleted voice back, under the next free name when its own was taken meanwhile."""
        name = self.free_name(record.name)
        with self._writing("bring the voice back") as connection:
            connection.execute(
                "UPDATE voices SET deleted = NULL, name = ?, name_key = ? WHERE id = ? AND deleted IS NOT NULL",
                (name, name_key(name), record.id),
            )
        return self.voice(record.id)

    def replace_voice(self, record: VoiceRecord, voice: "Voice", *, similarity: float | None) -> VoiceRecord:
        """Keep an improved version of a voice; the one before stays for `undo_improvement`."""
        self._must_be_own(record)
        return self._replace(record, voice, similarity=similarity, undoable=True)

    def undo_improvement(self, record: VoiceRecord) -> VoiceRecord:
        """Go back to the voice as it was before `replace_voice`.

        Raises:
            StoreError: there is nothing to undo.
        """
        with self._writing("undo the improvement") as connection:
            row = connection.execute("SELECT previous FROM voices WHERE id = ?", (record.id,)).fetchone()
            if row is None or row["previous"] is None:
                raise StoreError(f"'{record.name}' has no improvement to undo.")
            _set(connection, record.id, {**json.loads(row["previous"]), "previous": None})
        return self.voice(record.id)

    def check_name(self, name: str, *, taken_by: str = "") -> str:
        """A name as it will be kept, or the reason why it cannot be.

        Args:
            name: As the user typed it.
            taken_by: Id of the voice that may have this name already.

        Raises:
            StoreError: empty, too long, unprintable or taken.
        """
        clean = clean_name(name)
        with self._reading("look up a name") as connection:
            row = connection.execute(
                "SELECT id FROM voices WHERE deleted IS NULL AND name_key = ?", (name_key(clean),)
            ).fetchone()
        builtin = any(name_key(voice.name) == name_key(clean) for voice in builtin_voices())
        if builtin or (row is not None and row["id"] != taken_by):
            raise _taken(clean)
        return clean

    def free_name(self, name: str) -> str:
        """The name itself when it is free, else with the first free number: 'Ada 2'."""
        with self._reading("look for a free name") as connection:
            taken = {row[0] for row in connection.execute("SELECT name_key FROM voices WHERE deleted IS NULL")}
        taken |= {name_key(voice.name) for voice in builtin_voices()}
        candidate, number = name, 1
        while name_key(candidate) in taken:
            number += 1
            ending = f" {number}"
            candidate = name[: MAX_NAME_LENGTH - len(ending)] + ending
        return candidate

    # Keeping house.

    def back_up_daily(self) -> None:
        """Make today's backup unless it is there."""
        if not self._backups.has_todays():
            self.back_up()

    def back_up(self) -> None:
        """Make today's backup anew, of the state of now."""
        self._backups.make("daily", self._database.copy_to)

    def backups(self) -> list[BackupRecord]:
        """Every sound backup, newest first."""
        return list(self._backups.good())

    def restore(self, backup: BackupRecord) -> None:
        """Go back to a backup, all at once; the state before is backed up first and can be restored the same way."""
        self._backups.make("before-restore", self._database.copy_to)
        self._database.replace_with(backup.path)

    def maintain(self) -> int:
        """Forget voices deleted over 30 days ago and sweep files away that no row and no backup names.

        Returns:
            How many files were removed.
        """
        self.back_up_daily()
        self._files.sweep_incoming()
        with self._writing("tidy up") as connection:
            connection.execute("DELETE FROM voices WHERE deleted < ?", (time.time() - _DELETED_KEPT_S,))
        now = time.time()
        candidates = [name for name, changed in self._files.names() if now - changed > _GARBAGE_AGE_S]
        removed = 0
        # Rows are added under the same lock after a look that their files are there, so none can lose its file here.
        with self._writing("tidy up") as connection:
            needed = named_files(connection) | self._backups.named_files()
            for name in candidates:
                if name not in needed:
                    self._files.remove(name)
                    removed += 1
        return removed

    @contextlib.contextmanager
    def scratch_folder(self) -> Iterator[Path]:
        """A folder of the store's for files on their way in; gone when the block is left."""
        with told("make a folder"):
            scratch = tempfile.TemporaryDirectory(dir=self.folder / "files" / "incoming", ignore_cleanup_errors=True)
        with scratch as name:
            yield Path(name)

    def insert_found(self, row: Mapping[str, Any], recordings: Sequence[Mapping[str, Any]]) -> bool:
        """Take a voice back that was found in its file; for `repair_store`.

        Returns:
            False when it is there already or one of its files is missing.
        """
        with self._writing("take a voice back") as connection:
            if connection.execute("SELECT 1 FROM voices WHERE id = ?", (row["id"],)).fetchone():
                return False
            if not self._all_there(row, recordings):
                return False
            _insert(connection, "voices", row)
            for recording in recordings:
                _insert(connection, "recordings", {key: value for key, value in recording.items() if key != "id"})
        return True

    # Inside.

    def _reading(self, doing: str) -> contextlib.AbstractContextManager[sqlite3.Connection]:
        return self._database.reading(doing)

    def _writing(self, doing: str) -> contextlib.AbstractContextManager[sqlite3.Connection]:
        return self._database.writing(doing)

    def _damaged(self, detail: str) -> StoreDamagedError:
        logger.error("the database is damaged: %s", detail)
        backup = self._backups.newest_good()
        return StoreDamagedError(
            "The database of voices is damaged." if detail != "it is gone" else "The database of voices is gone.",
            folder=self.folder,
            backup=backup,
            hint="The newest good backup can be restored; the damaged file is kept aside."
            if backup
            else "There is no backup yet; the damaged file is kept aside and its voices are looked for.",
        )

    def _copy_before_migrating(self, version: int) -> None:
        source = self.folder / DATABASE_NAME

        def copy(destination: Path) -> None:
            with (
                told("copy the database"),
                contextlib.closing(sqlite3.connect(source)) as old,
                contextlib.closing(sqlite3.connect(destination)) as new,
            ):
                old.backup(new)
                new.execute("PRAGMA journal_mode = DELETE")

        logger.info("copying the database of version %d before migrating it", version)
        self._backups.make("before-migration", copy)

    def _insert_voice(self, write: Callable[[], tuple[dict[str, Any], list[dict[str, Any]]]]) -> None:
        for _attempt in range(5):
            row, recordings = write()
            with self._writing("save the voice") as connection:
                if not self._all_there(row, recordings):
                    continue  # the garbage pass of another process came between; write them again
                try:
                    _insert(connection, "voices", row)
                except sqlite3.IntegrityError as error:
                    raise _taken(row["name"]) from error
                for recording in recordings:
                    _insert(connection, "recordings", recording)
                return
        raise StoreError("Something keeps removing the store's files.", hint=f"Look into {self.folder / 'files'}.")

    def _all_there(self, row: Mapping[str, Any], recordings: Sequence[Mapping[str, Any]] = ()) -> bool:
        names = [row.get("tensors_file"), row.get("picture_file")]
        names += [one[column] for one in recordings for column in ("original_file", "processed_file")]
        return all(self._files.has(name) for name in names if name is not None)

    def _write_tensors(self, voice: "Voice", profile: Mapping[str, Any]) -> dict[str, Any]:
        arrays, metadata = voice.to_tensors()
        described = {
            "model_id": voice.model_id,
            "median_f0_hz": float(voice.median_f0_hz),
            "f0_low_hz": float(voice.f0_range_hz[0]),
            "f0_high_hz": float(voice.f0_range_hz[1]),
        }
        # The file describes its whole profile, so that a lost database can be put together again from the files.
        rescue = {**profile, "row": {**profile["row"], **described}}
        name, size = self._files.write(tensors.pack(arrays, metadata, profile=rescue), ".safetensors")
        return {**described, "tensors_file": name, "tensors_size": size}

    def _replace(self, record: VoiceRecord, voice: "Voice", *, similarity: float | None, undoable: bool) -> VoiceRecord:
        while True:
            with self._reading("read the voice") as connection:
                row = connection.execute("SELECT * FROM voices WHERE id = ?", (record.id,)).fetchone()
                kept = connection.execute("SELECT * FROM recordings WHERE voice_id = ?", (record.id,)).fetchall()
            if row is None:
                raise StoreError(f"'{record.name}' was deleted meanwhile.")
            described = {"row": dict(row), "recordings": [dict(one) for one in kept]}
            changed = self._write_tensors(_renamed(voice, row["name"]), described)
            before = {key: row[key] for key in (*changed, "similarity")}
            with self._writing("save the improved voice") as connection:
                if not self._all_there(changed):
                    continue
                previous = (row["previous"] or json.dumps(before)) if undoable else None
                _set(connection, record.id, {**changed, "similarity": similarity, "previous": previous})
            return self.voice(record.id)

    def _remake(self, record: VoiceRecord, ctx: JobContext | None) -> "Voice":
        from engine.conversion import embed_voice
        from engine.signal import read_audio

        clips = [read_audio(one.processed) for one in self.recordings(record)]
        if not clips:
            raise ModelError(
                f"'{record.name}' was made with other models, and no recordings of it are kept.",
                hint="Record or import it again.",
            )
        voice = embed_voice(clips, name=record.name, ctx=ctx)
        if ctx is not None and record.is_improved:
            ctx.note(f"The models changed, so '{record.name}' was made again; improve it once more if you like.")
        self._replace(record, voice, similarity=None, undoable=False)
        return voice

    def _discard(self, names: Sequence[str]) -> None:
        with contextlib.suppress(StoreError, DamageFoundError), self._writing("tidy up") as connection:
            needed = named_files(connection) | self._backups.named_files()
            for name in set(names) - needed:
                self._files.remove(name)

    def _update(self, record: VoiceRecord, **columns: Any) -> VoiceRecord:
        try:
            with self._writing("change the voice") as connection:
                picture = columns.get("picture_file")
                if picture is not None and not self._files.has(picture):
                    raise StoreError("The picture was swept away; choose it again.")
                _set(connection, record.id, columns)
        except sqlite3.IntegrityError as error:
            raise _taken(str(columns.get("name"))) from error
        return self.voice(record.id)

    def _must_be_own(self, record: VoiceRecord) -> None:
        if record.builtin:
            raise StoreError(f"'{record.name}' belongs to AutoVoice.", hint="Duplicate it and change the copy.")

    def _record(self, row: sqlite3.Row) -> VoiceRecord:
        return VoiceRecord(
            id=row["id"],
            name=row["name"],
            created=row["created"],
            last_used=row["last_used"],
            median_f0_hz=row["median_f0_hz"],
            f0_range_hz=(row["f0_low_hz"], row["f0_high_hz"]),
            seconds=row["seconds"],
            quality=row["quality"],
            messages=tuple(json.loads(row["messages"])),
            consent=row["consent"],
            colour=row["colour"],
            notes=row["notes"],
            origin=row["origin"],
            model_id=row["model_id"],
            tensors=self._files.path(row["tensors_file"]),
            picture=self._files.path(row["picture_file"]) if row["picture_file"] else None,
            is_improved=row["previous"] is not None,
            similarity=row["similarity"],
            num_recordings=row["num_recordings"],
        )


_VOICES = "SELECT voices.*, (SELECT count(*) FROM recordings WHERE voice_id = voices.id) AS num_recordings FROM voices"


def _renamed(voice: "Voice", name: str) -> "Voice":
    import dataclasses

    return dataclasses.replace(voice, name=name)


def _taken(name: str) -> StoreError:
    return StoreError(f"A voice named '{name}' exists already.", hint="Choose another name, or delete that one first.")


def _to_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _insert(connection: sqlite3.Connection, table: str, row: Mapping[str, Any]) -> None:
    marks = ", ".join(f":{column}" for column in row)
    connection.execute(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({marks})", dict(row))


def _set(connection: sqlite3.Connection, voice_id: str, columns: Mapping[str, Any]) -> None:
    marks = ", ".join(f"{column} = :{column}" for column in columns)
    found = connection.execute(
        f"UPDATE voices SET {marks} WHERE id = :id AND deleted IS NULL", {**columns, "id": voice_id}
    ).rowcount
    if not found:
        raise StoreError("The voice was deleted meanwhile.")
