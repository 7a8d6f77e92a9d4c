"""One voice in one file: `.autovoice`, a zip with a manifest, safetensors and FLAC; trusted only after every check."""

import contextlib
import hashlib
import json
import math
import os
import re
import struct
import tempfile
import time
import uuid
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.errors import AudioFileError, ModelError, StoreError
from engine.jobs import JobContext
from engine.store import tensors
from engine.store.faults import told
from engine.store.files import sync_folder
from engine.store.names import MAX_NAME_LENGTH, clean_name
from engine.store.records import NewRecording, VoiceRecord
from engine.store.store import Store

FORMAT = 1
ENDING = ".autovoice"

_MAX_ARCHIVE_BYTES = 1 << 30
_MAX_ENTRIES = 400
_MAX_DIRECTORY_BYTES = 128 << 10
_MAX_MANIFEST_BYTES = 1 << 20
_MAX_PICTURE_BYTES = 2 << 20
_MAX_RECORDING_BYTES = 256 << 20
_MAX_RECORDING_SAMPLES = 300_000_000  # over all channels: 26 minutes of stereo at 96 kHz
_MAX_TEXT = 4000
_BLOCK_BYTES = 1 << 18
_RECORDING = re.compile(r"recordings/\d{3}-(original|processed)\.flac")
_END_OF_DIRECTORY = struct.Struct("<4s4H2LH")
_PNG = b"\x89PNG\r\n\x1a\n"


def export_voice(store: Store, record: VoiceRecord, destination: Path, ctx: JobContext | None = None) -> None:
    """Write a voice with its consent note and recordings as one file, whole or not at all.

    Recordings of other kinds are written as 24-bit FLAC.

    Args:
        store: Where the voice is.
        record: The voice; a built-in one may be exported too.
        destination: Ends in ".autovoice".
        ctx: Progress and cancellation.

    Raises:
        StoreError: the disk refuses; nothing is left behind and an older file stays as it was.
    """
    ctx = ctx or JobContext()
    temporary = destination.with_name(f".{destination.name}.{uuid.uuid4().hex}.part")
    try:
        with (
            told(f"write {destination.name}"),
            tempfile.TemporaryDirectory(prefix="autovoice-") as scratch,
            zipfile.ZipFile(temporary, "x", zipfile.ZIP_STORED) as archive,
        ):
            entries: dict[str, Any] = {}
            arrays, metadata = store.load_voice(record, ctx.part(0.0, 0.3)).to_tensors()
            _put(archive, entries, "voice.safetensors", tensors.pack(arrays, metadata, profile={}))
            if record.picture is not None:
                _put(archive, entries, "picture.png", record.picture.read_bytes())
            listed = []
            recordings = store.recordings(record)
            for index, one in enumerate(recordings):
                ctx.checkpoint("Writing the recordings", 0.3 + 0.6 * index / len(recordings))
                original, processed = (f"recordings/{index:03}-{kind}.flac" for kind in ("original", "processed"))
                _put(archive, entries, original, _flac(one.original, Path(scratch)))
                _put(archive, entries, processed, one.processed.read_bytes())
                listed.append(
                    {
                        "source_name": one.source_name,
                        "seconds": one.seconds,
                        "voiced_seconds": one.voiced_seconds,
                        "original": original,
                        "processed": processed,
                        "assessment": dict(one.assessment),
                    }
                )
            manifest = {
                "format": FORMAT,
                "name": record.name,
                "consent": record.consent,
                "created": record.created,
                "exported": time.time(),
                "seconds": record.seconds,
                "quality": record.quality,
                "messages": list(record.messages),
                "notes": record.notes,
                "colour": record.colour,
                "model_id": record.model_id,
                "recordings": listed,
                "files": entries,
            }
            archive.writestr("manifest.json", json.dumps(manifest, indent=1, ensure_ascii=False, allow_nan=False))
        ctx.checkpoint("Writing the file", 0.95)
        with told(f"write {destination.name}"):
            with temporary.open("rb+") as stream:
                os.fsync(stream.fileno())
            os.replace(temporary, destination)
            sync_folder(destination.parent)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def import_voice(store: Store, source: Path, *, name: str | None = None, ctx: JobContext | None = None) -> VoiceRecord:
    """Take a voice from an archive; nothing is written before all of it has been checked.

    Args:
        store: Where it goes.
        source: The archive.
        name: Another name than the one in it; None takes that, or the next free one.
        ctx: Progress and cancellation.

    Raises:
        StoreError: it is not a sound archive of this version, or the disk refuses; nothing is stored.
    """
    ctx = ctx or JobContext()
    with told(f"read {source.name}"), source.open("rb") as stream:
        _check_ends(stream)
        try:
            with zipfile.ZipFile(stream) as archive:
                return _import(store, _Checked(archive, ctx), name, ctx)
        except (zipfile.BadZipFile, zlib.error, EOFError, struct.error, NotImplementedError, RuntimeError) as error:
            raise _refused(str(error)) from error


@dataclass(frozen=True)
class _ListedRecording:
    source_name: str
    seconds: float
    voiced_seconds: float
    original: str
    processed: str
    assessment: Mapping[str, Any]


class _Checked:
    """An archive whose entries, sizes, hashes and manifest were found to agree."""

    def __init__(self, archive: zipfile.ZipFile, ctx: JobContext) -> None:
        self._archive = archive
        self._entries = _check_entries(archive)
        self.manifest = _read_manifest(self._read("manifest.json", _MAX_MANIFEST_BYTES))
        self.recordings = _listed_recordings(self.manifest)
        self._check_files(ctx)

    def read(self, name: str) -> bytes:
        """All of a checked entry."""
        return self._read(name, self._entries[name].file_size)

    def extract(self, name: str, folder: Path) -> Path:
        """Unpack a checked entry into a folder of ours, under a name of ours."""
        path = folder / f"{len(list(folder.iterdir()))}.flac"
        with told("unpack a recording"), path.open("wb") as stream:
            for block in self._blocks(name, self._entries[name].file_size):
                stream.write(block)
        return path

    def has(self, name: str) -> bool:
        return name in self._entries

    def _check_files(self, ctx: JobContext) -> None:
        listed = self.manifest["files"]
        if set(listed) != set(self._entries) - {"manifest.json"}:
            raise _refused("its list of files does not agree with what is in it")
        named = {name for one in self.recordings for name in (one.original, one.processed)}
        if "voice.safetensors" not in listed or set(listed) - named - {"voice.safetensors", "picture.png"}:
            raise _refused("files are missing or not spoken of")
        for index, (name, entry) in enumerate(listed.items()):
            ctx.checkpoint("Checking the archive", 0.5 * index / len(listed))
            size, digest = 0, hashlib.sha256()
            for block in self._blocks(name, self._entries[name].file_size):
                ctx.checkpoint("Checking the archive", 0.5 * index / len(listed))
                size += len(block)
                digest.update(block)
            if not isinstance(entry, dict) or entry != {"size": size, "sha256": digest.hexdigest()}:
                raise _refused(f"{name} was changed")

    def _read(self, name: str, limit: int) -> bytes:
        if name not in self._entries:
            raise _refused(f"{name} is missing")
        return b"".join(self._blocks(name, limit))

    def _blocks(self, name: str, limit: int) -> Iterator[bytes]:
        # Sizes in the directory are claims: what comes out is counted.
        left = limit
        with self._archive.open(self._entries[name]) as stream:
            while block := stream.read(min(_BLOCK_BYTES, left + 1)):
                left -= len(block)
                if left < 0:
                    raise _refused(f"{name} is larger than it says")
                yield block


def _import(store: Store, archive: _Checked, name: str | None, ctx: JobContext) -> VoiceRecord:
    from engine.conversion.voice import Voice

    manifest = archive.manifest
    arrays, metadata = tensors.unpack(archive.read("voice.safetensors"))
    wanted = store.check_name(name) if name is not None else store.free_name(clean_name(manifest["name"]))
    try:
        voice = Voice.from_tensors(arrays, {**metadata, "name": wanted})
    except ModelError as error:
        raise _refused(error.message) from error
    if voice.model_id != manifest["model_id"]:
        raise _refused("its model is not the one that it says")
    picture = archive.read("picture.png") if archive.has("picture.png") else None
    if picture is not None and not picture.startswith(_PNG):
        raise _refused("its picture is not a PNG")
    with store.scratch_folder() as scratch:
        kept = []
        for index, one in enumerate(archive.recordings):
            ctx.checkpoint("Checking the recordings", 0.5 + 0.3 * index / len(archive.recordings))
            original, processed = archive.extract(one.original, scratch), archive.extract(one.processed, scratch)
            _check_flac(original, ctx)
            _check_flac(processed, ctx)
            kept.append(
                NewRecording(
                    source_name=one.source_name,
                    original=original,
                    original_suffix=".flac",
                    processed=processed,
                    seconds=one.seconds,
                    voiced_seconds=one.voiced_seconds,
                    assessment=one.assessment,
                )
            )
        return store.add_voice(
            voice,
            consent=manifest["consent"],
            recordings=kept,
            seconds=manifest["seconds"],
            quality=manifest["quality"],
            messages=manifest["messages"],
            notes=manifest["notes"],
            colour=manifest["colour"],
            picture=picture,
            origin="imported",
            ctx=ctx.part(0.8, 1.0),
        )


def _check_ends(stream: Any) -> None:
    """Look at the zip's last bytes before the zip module does: it would read a directory of any size."""
    size = stream.seek(0, os.SEEK_END)
    if size > _MAX_ARCHIVE_BYTES:
        raise _refused("it is larger than 1 GB")
    if size < 100:
        raise _refused("it is too short")
    stream.seek(size - _END_OF_DIRECTORY.size - 20)
    tail = stream.read()
    magic, disk, start_disk, here, total, length, offset, comment = _END_OF_DIRECTORY.unpack(tail[20:])
    if magic != b"PK\x05\x06" or comment or disk or start_disk or here != total:
        raise _refused("it is cut off, or not an archive of a voice")
    if tail[:4] == b"PK\x06\x07" or total > _MAX_ENTRIES or length > _MAX_DIRECTORY_BYTES:
        raise _refused("it holds too many files")
    if offset + length + _END_OF_DIRECTORY.size != size:
        raise _refused("it is damaged")
    stream.seek(0)


def _check_entries(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    limits = {
        "manifest.json": _MAX_MANIFEST_BYTES,
        "voice.safetensors": tensors.MAX_BYTES,
        "picture.png": _MAX_PICTURE_BYTES,
    }
    entries: dict[str, zipfile.ZipInfo] = {}
    for info in archive.infolist():
        name = info.orig_filename
        limit = _MAX_RECORDING_BYTES if _RECORDING.fullmatch(name) else limits.get(name)
        if limit is None or name in entries:
            raise _refused(f"it holds a file that does not belong there: {name[:80]!r}")
        if info.flag_bits & 0x1 or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise _refused(f"{name} is encrypted or compressed in an unknown way")
        if info.file_size > limit:
            raise _refused(f"{name} is too large")
        entries[name] = info
    if sum(info.file_size for info in entries.values()) > _MAX_ARCHIVE_BYTES:
        raise _refused("it is too large when unpacked")
    return entries


def _read_manifest(data: bytes) -> dict[str, Any]:
    try:
        manifest = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise _refused("its manifest is not JSON") from error
    if not isinstance(manifest, dict):
        raise _refused("its manifest is not a table")
    version = manifest.get("format")
    if type(version) is int and version > FORMAT:
        raise StoreError("This voice was exported by a newer AutoVoice.", hint="Update AutoVoice and import it again.")
    if version != FORMAT:
        raise _refused("its version is unknown")
    texts = {
        "name": MAX_NAME_LENGTH,
        "consent": _MAX_TEXT,
        "notes": _MAX_TEXT,
        "colour": 7,
        "model_id": 200,
        "quality": 4,
    }
    for key, limit in texts.items():
        if not isinstance(manifest.get(key), str) or len(manifest[key]) > limit:
            raise _refused(f"{key} is missing or too long")
    if not re.fullmatch(r"#[0-9a-fA-F]{6}", manifest["colour"]) or manifest["quality"] not in ("good", "poor"):
        raise _refused("colour or quality is malformed")
    if not _is_number(manifest.get("seconds")):
        raise _refused("seconds are malformed")
    messages = manifest.get("messages")
    if not isinstance(messages, list) or len(messages) > 50 or not all(_is_text(one) for one in messages):
        raise _refused("messages are malformed")
    if not isinstance(manifest.get("files"), dict) or not isinstance(manifest.get("recordings"), list):
        raise _refused("its list of files is malformed")
    return manifest


def _listed_recordings(manifest: Mapping[str, Any]) -> list[_ListedRecording]:
    found = []
    for one in manifest["recordings"]:
        sound = (
            isinstance(one, dict)
            and _is_text(one.get("source_name"))
            and _is_number(one.get("seconds"))
            and _is_number(one.get("voiced_seconds"))
            and all(
                isinstance(one.get(key), str) and _RECORDING.fullmatch(one[key]) for key in ("original", "processed")
            )
            and isinstance(one.get("assessment"), dict)
        )
        if not sound:
            raise _refused("a recording is malformed")
        try:
            json.dumps(one["assessment"], allow_nan=False)
        except (ValueError, RecursionError) as error:
            raise _refused("an assessment is malformed") from error
        found.append(_ListedRecording(**{key: one[key] for key in _ListedRecording.__dataclass_fields__}))
    return found


def _check_flac(path: Path, ctx: JobContext) -> None:
    from engine.signal import AudioReader

    with path.open("rb") as stream:
        if stream.read(4) != b"fLaC":
            raise _refused("a recording is not FLAC")
    try:
        with AudioReader(path) as reader:
            info = reader.info
            if not (info.num_channels <= 8 and 4000 <= info.sample_rate <= 400_000):
                raise _refused("a recording has an unusual shape")
            decoded, left = 0, _MAX_RECORDING_SAMPLES
            while left > 0 and (block := reader.read(1 << 16)).size:
                left -= block.size
                decoded += block.shape[1]
                ctx.checkpoint("Checking the recordings", 0.6)
    except AudioFileError as error:
        raise _refused("a recording cannot be played") from error
    if left <= 0:
        raise _refused("a recording is too long")
    if not decoded or decoded != info.num_samples:
        raise _refused("a recording is cut off")


def _put(archive: zipfile.ZipFile, entries: dict[str, Any], name: str, data: bytes) -> None:
    entries[name] = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    archive.writestr(name, data)


def _flac(path: Path, scratch: Path) -> bytes:
    if path.suffix == ".flac":
        return path.read_bytes()
    from engine.signal import AudioReader, AudioWriter

    written = scratch / "original.flac"
    with (
        AudioReader(path) as reader,
        AudioWriter(written, reader.info.sample_rate, reader.info.num_channels) as writer,
    ):
        for block in reader.blocks(1 << 16):
            writer.write(block)
    return written.read_bytes()


def _is_text(value: object) -> bool:
    return isinstance(value, str) and len(value) <= _MAX_TEXT


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value) and 0 <= value < 1e6


def _refused(detail: str) -> StoreError:
    return StoreError("This is not a sound archive of a voice; nothing was imported.", hint=f"Reason: {detail}.")
