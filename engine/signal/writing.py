"""Encode audio files so that a file either comes out whole or not at all."""

import contextlib
import os
import shutil
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import numpy as np
import soundfile

from engine.errors import AudioFileError, Cancelled
from engine.signal.clip import AudioClip, FloatArray
from engine.signal.rates import StreamingResampler

# Ending -> libsndfile's format, subtype and further settings. Lossy kinds are set to about 190 kbit/s in stereo.
_KINDS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "wav": ("WAV", "PCM_24", {}),
    "flac": ("FLAC", "PCM_24", {}),
    "ogg": ("OGG", "VORBIS", {"compression_level": 0.4}),
    "opus": ("OGG", "OPUS", {"compression_level": 0.63}),
    "mp3": ("MP3", "MPEG_LAYER_III", {"bitrate_mode": "VARIABLE", "compression_level": 0.15}),
}
WRITABLE_ENDINGS = (*_KINDS, "m4a")
_RATES: dict[str, tuple[int, ...]] = {
    "opus": (8000, 12000, 16000, 24000, 48000),
    "mp3": (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000),
    "m4a": (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000),
}
_MAX_CHANNELS = {"mp3": 2, "m4a": 8, "flac": 8}
_WAV_LIMIT_BYTES = 4_000_000_000

_part_files: set[Path] = set()
_part_files_lock = threading.Lock()
_is_leaving = False


def remove_part_files(*, for_good: bool = False) -> None:
    """Delete every unfinished file and working folder of this process.

    Args:
        for_good: The process is about to leave in a hurry, with writers still at work: refuse them new files.
    """
    global _is_leaving
    with _part_files_lock:
        _is_leaving = for_good
        for path in _part_files:
            _remove(path)
        _part_files.clear()


@contextlib.contextmanager
def working_folder(beside: Path) -> Iterator[Path]:
    """A hidden folder for intermediate files, gone afterwards whatever happens.

    Args:
        beside: Folder to make it in; on the disk of the result, since system folders for temporary files may be
            small or lie in memory.

    Raises:
        AudioFileError: The folder is missing, read-only or full.
    """
    path = beside / f".{uuid.uuid4().hex[:12]}.part"
    _register(path)
    try:
        try:
            path.mkdir()
        except OSError as error:
            raise cannot_write(path.parent, error) from error
        yield path
    finally:
        _remove(path)
        _forget(path)


def reserve_destination(folder: Path, stem: str, ending: str) -> Path:
    """A name that is not taken, "stem.ending", "stem 2.ending" and so on, kept by an empty file.

    The file counts as unfinished until an `AudioWriter` of that path ends well or `release_destination` is called.

    Raises:
        AudioFileError: The folder is missing, read-only or full.
    """
    number = 1
    while True:
        path = folder / (f"{stem}.{ending}" if number == 1 else f"{stem} {number}.{ending}")
        try:
            path.open("xb").close()
        except FileExistsError:
            number += 1
            continue
        except OSError as error:
            raise cannot_write(path, error) from error
        _register(path)
        return path


def release_destination(path: Path) -> None:
    """Give a reserved name back if nothing was written to it."""
    with _part_files_lock:
        if path in _part_files:
            _part_files.discard(path)
            _remove(path)


def publish(finished: Path, destination: Path) -> None:
    """Give a finished file on the same disk its name, in the place of any file of that name.

    Raises:
        AudioFileError: The folder does not allow it.
    """
    try:
        os.replace(finished, destination)
    except OSError as error:
        raise cannot_write(destination, error) from error
    _forget(destination)


def cannot_write(path: Path, error: OSError) -> AudioFileError:
    """The failure to show when a file or folder cannot be written."""
    return AudioFileError(
        f"“{path}” cannot be written: {(error.strerror or str(error)).lower()}.",
        hint="Free some space or choose another folder.",
    )


def _register(path: Path) -> None:
    with _part_files_lock:
        if _is_leaving:
            raise Cancelled
        _part_files.add(path)


def _forget(path: Path) -> None:
    with _part_files_lock:
        _part_files.discard(path)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    with contextlib.suppress(OSError):
        path.unlink()


class _Encoder(Protocol):
    def write(self, samples: FloatArray) -> None: ...

    def close(self) -> None: ...


class AudioWriter:
    """Writes one file block by block; a context manager.

    The samples go to a hidden part-file beside the destination, which takes the destination's name only when
    everything is safely on the disk; after an error or a cancellation nothing is left. Two writers of one
    destination do not disturb each other: the last to finish gives the file.

    The ending picks the kind: wav and flac (24 bit), ogg (Vorbis), opus, mp3, m4a (AAC). A kind that does not know the
    rate gets the next one it knows, resampled here.

    Args:
        path: Destination; its folder must exist.
        sample_rate: Rate of the samples given to `write`, Hz.
        num_channels: C.
        float_samples: wav only: 32-bit float, for stems in between, which may pass +-1 and need not survive a power
            cut.
        num_samples_hint: Expected length; a wav that would pass 4 GB is written as RF64, which has no such limit.

    Attributes:
        file_rate: The rate the file has.

    Raises:
        AudioFileError: Unknown ending, or the folder is missing, read-only or full.
    """

    def __init__(
        self,
        path: Path | str,
        sample_rate: int,
        num_channels: int,
        *,
        float_samples: bool = False,
        num_samples_hint: int = 0,
    ) -> None:
        self.path = Path(path)
        self.num_channels = num_channels
        kind = check_writable_ending(self.path)
        if num_channels > _MAX_CHANNELS.get(kind, 64):
            raise AudioFileError(
                f"A {kind} file cannot hold {num_channels} channels.", hint="Choose wav or flac instead."
            )
        self.file_rate = _nearest_rate(kind, sample_rate)
        self._resampler = (
            None if self.file_rate == sample_rate else StreamingResampler(sample_rate, self.file_rate, num_channels)
        )
        large = kind == "wav" and num_samples_hint * num_channels * (4 if float_samples else 3) > _WAV_LIMIT_BYTES
        self._part = _PartFile(self.path, must_last=not float_samples)
        try:
            if kind == "m4a":
                self._encoder: _Encoder = _AvEncoder(self._part, self.file_rate, num_channels)
            else:
                self._encoder = _SndfileEncoder(self._part, kind, self.file_rate, num_channels, float_samples, large)
        except BaseException:
            self._part.discard()
            raise

    def __enter__(self) -> "AudioWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:
            self.discard()

    def write(self, samples: FloatArray) -> None:
        """Append [C, N] float32 samples.

        Raises:
            AudioFileError: The disk is full or went away.
        """
        if samples.ndim != 2 or samples.shape[0] != self.num_channels:
            raise ValueError(f"samples must be [{self.num_channels}, N], not {samples.shape}")
        if self._resampler is not None:
            samples = self._resampler.push(samples)
        self._encode(samples)

    def close(self) -> None:
        """Finish the file and give it its name.

        Raises:
            AudioFileError: The disk is full or went away; nothing is left behind then.
        """
        try:
            if self._resampler is not None:
                self._encode(self._resampler.flush())
            self._encoder.close()
            self._part.check()
        except BaseException:
            self.discard()
            raise
        self._part.publish()

    def discard(self) -> None:
        """Remove what was written."""
        with contextlib.suppress(Exception):  # the encoder may well fail on the very error that made us stop
            self._encoder.close()
        self._part.discard()

    def _encode(self, samples: FloatArray) -> None:
        for start in range(0, samples.shape[1], 2**15):  # libsndfile's Vorbis overflows its stack on long blocks
            self._encoder.write(samples[:, start : start + 2**15])
            self._part.check()


def write_audio(path: Path | str, clip: AudioClip, *, float_samples: bool = False) -> None:
    """Write a clip; see `AudioWriter` for kinds, rates and errors."""
    with AudioWriter(
        path, clip.sample_rate, clip.num_channels, float_samples=float_samples, num_samples_hint=clip.num_samples
    ) as writer:
        writer.write(clip.samples)


def check_writable_ending(path: Path | str) -> str:
    """The kind that a destination's ending names.

    Raises:
        AudioFileError: No such kind can be written.
    """
    kind = Path(path).suffix.lower().removeprefix(".")
    if kind not in WRITABLE_ENDINGS:
        raise AudioFileError(
            f"“{Path(path).name}” does not end like a sound file that can be written.",
            hint=f"Use one of these endings: {', '.join(WRITABLE_ENDINGS)}.",
        )
    return kind


def _nearest_rate(kind: str, sample_rate: int) -> int:
    rates = _RATES.get(kind)
    if rates is None or sample_rate in rates:
        return sample_rate
    return next((rate for rate in rates if rate >= sample_rate), rates[-1])


class _PartFile:
    """The unfinished file: remembers the first failure, which codecs hide."""

    def __init__(self, destination: Path, *, must_last: bool) -> None:
        self._destination, self._must_last = destination, must_last
        self._path = destination.with_name(f".{uuid.uuid4().hex[:12]}.part")
        self._error: OSError | None = None
        _register(self._path)
        try:
            if destination.is_dir():
                raise IsADirectoryError(21, "it is a folder")
            self._file = open(self._path, "xb+", buffering=0)  # noqa: SIM115 - closed by publish or discard
        except OSError as error:
            _forget(self._path)
            raise cannot_write(destination, error) from error

    # What soundfile and PyAV ask of a file:
    def write(self, data: bytes) -> int:
        view = memoryview(data)
        try:
            while len(view):
                view = view[self._file.write(view) :]
        except OSError as error:
            self._error = self._error or error
        return len(data)

    def read(self, size: int = -1) -> bytes:
        return self._file.read(size) or b""

    def readinto(self, buffer: Any) -> int:
        return self._file.readinto(buffer) or 0

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def check(self) -> None:
        if self._error is not None:
            raise cannot_write(self._destination, self._error) from self._error

    def publish(self) -> None:
        try:
            if self._must_last:
                os.fsync(self._file.fileno())
            self._file.close()
            publish(self._path, self._destination)
        except OSError as error:
            self.discard()
            raise cannot_write(self._destination, error) from error
        except AudioFileError:
            self.discard()
            raise
        _forget(self._path)

    def discard(self) -> None:
        with contextlib.suppress(OSError):
            self._file.close()
        with contextlib.suppress(OSError):
            self._path.unlink()
        _forget(self._path)


class _SndfileEncoder:
    def __init__(self, part: _PartFile, kind: str, rate: int, channels: int, float_samples: bool, large: bool) -> None:
        container, subtype, settings = _KINDS[kind]
        if kind == "wav" and float_samples:
            subtype = "FLOAT"
        if large:
            container = "RF64"
        try:
            self._file = soundfile.SoundFile(
                part, "w", samplerate=rate, channels=channels, format=container, subtype=subtype, **settings
            )
        except soundfile.SoundFileError as error:
            part.check()
            raise AudioFileError(
                f"A {kind} file with {channels} channels at {rate} Hz cannot be written.",
                hint="Choose wav or flac instead.",
            ) from error

    def write(self, samples: FloatArray) -> None:
        self._file.write(np.ascontiguousarray(samples.T))

    def close(self) -> None:
        self._file.close()


class _AvEncoder:
    def __init__(self, part: _PartFile, rate: int, channels: int) -> None:
        import av

        layout = {1: "mono", 2: "stereo", 6: "5.1"}.get(channels)
        if layout is None:
            raise AudioFileError(f"An m4a file with {channels} channels cannot be written.", hint="Choose wav or flac.")
        self._av, self._layout, self._rate, self._num_written = av, layout, rate, 0
        self._container: Any = av.open(part, "w", format="ipod")
        self._stream: Any = self._container.add_stream("aac", rate=rate, layout=layout)
        self._stream.bit_rate = 96_000 * channels
        self._closed = False

    def write(self, samples: FloatArray) -> None:
        frame = self._av.AudioFrame.from_ndarray(
            np.ascontiguousarray(np.clip(samples, -1.0, 1.0)), format="fltp", layout=self._layout
        )
        frame.sample_rate, frame.pts = self._rate, self._num_written
        self._num_written += samples.shape[1]
        self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            if self._num_written:
                self._container.mux(self._stream.encode(None))
            self._container.close()
