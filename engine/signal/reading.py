"""Decode audio files of every usual kind, whole or block by block in bounded memory."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import numpy as np
import soundfile

from engine.errors import AudioFileError
from engine.signal.clip import AudioClip, FloatArray

# What the open dialogs and drop zones offer; other endings are tried all the same.
READABLE_ENDINGS = ("wav", "flac", "ogg", "opus", "mp3", "m4a", "aac", "aif", "aiff", "mp4", "mka", "webm", "wma")
_MIN_RATE, _MAX_RATE, _MAX_CHANNELS = 1000, 1_000_000, 64
_PLAIN = ("WAV", "WAVEX", "RF64", "AIFF")
_KINDS_HINT = "AutoVoice reads wav, flac, ogg, opus, mp3, m4a and aac files."


@dataclass(frozen=True)
class AudioInfo:
    """What a file says of itself.

    Attributes:
        sample_rate: Hz.
        num_channels: C.
        num_samples: N as its header states it; an estimate for compressed kinds, too many for a truncated file.
    """

    sample_rate: int
    num_channels: int
    num_samples: int

    @property
    def seconds(self) -> float:
        """Stated duration, s."""
        return self.num_samples / self.sample_rate


class _Decoder(Protocol):
    info: AudioInfo

    def read(self, num_samples: int) -> FloatArray: ...

    def seek(self, sample: int) -> None: ...

    def close(self) -> None: ...


class AudioReader:
    """Reads one file block by block; a context manager.

    wav, flac, ogg, opus and aiff are decoded by libsndfile, everything else (mp3, m4a, aac, video files' sound) by
    FFmpeg's libraries through PyAV. Samples that are not finite numbers are read as silence and counted.

    Attributes:
        info: Rate, channels and stated length.
        num_repaired: Samples so far that were not finite and became 0.

    Raises:
        AudioFileError: The file is missing, empty, without sound, or not decodable.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.num_repaired = 0
        _check_presence(self.path)
        self._decoder = _open_decoder(self.path)
        self.info = self._decoder.info

    def __enter__(self) -> "AudioReader":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def read(self, num_samples: int) -> FloatArray:
        """The next samples.

        Args:
            num_samples: How many to read, > 0.

        Returns:
            [C, <= num_samples] float32; fewer only at the end, [C, 0] after it. A file cut short ends where its
            data end.

        Raises:
            AudioFileError: The data turn out to be undecodable before the first sample.
        """
        samples = self._decoder.read(num_samples)
        if not np.isfinite(samples).all():
            broken = ~np.isfinite(samples)
            self.num_repaired += int(broken.sum())
            samples = np.where(broken, np.float32(0.0), samples)
        return samples

    def seek(self, sample: int) -> None:
        """Continue reading at a sample counted from the file's start; past the end reads nothing more."""
        self._decoder.seek(max(sample, 0))

    def blocks(self, num_samples: int) -> Iterator[FloatArray]:
        """The rest of the file in blocks of [C, num_samples], the last one shorter."""
        while (block := self.read(num_samples)).shape[1]:
            yield block

    def close(self) -> None:
        """Let go of the file; harmless twice."""
        self._decoder.close()


def probe_audio(path: Path | str) -> AudioInfo:
    """Rate, channels and stated length of a file.

    Raises:
        AudioFileError: The file is missing, empty, without sound, or not decodable.
    """
    with AudioReader(path) as reader:
        return reader.info


def read_audio(path: Path | str, *, max_seconds: float | None = None) -> AudioClip:
    """Decode a whole file, or its beginning.

    Args:
        path: Any readable kind, rate and channel count.
        max_seconds: Stop after this many seconds; None reads everything.

    Returns:
        All channels at the file's own rate. Samples that are not finite become 0.

    Raises:
        AudioFileError: The file is missing, empty, without sound, or not decodable.
    """
    with AudioReader(path) as reader:
        limit = None if max_seconds is None else round(max_seconds * reader.info.sample_rate)
        parts: list[FloatArray] = []
        num_read = 0
        while limit is None or num_read < limit:
            block = reader.read(2**18 if limit is None else min(2**18, limit - num_read))
            if not block.shape[1]:
                break
            parts.append(block)
            num_read += block.shape[1]
        if not parts:
            raise _no_sound(reader.path)
        return AudioClip(np.concatenate(parts, axis=1), reader.info.sample_rate)


def _check_presence(path: Path) -> None:
    try:
        if path.is_dir():
            raise AudioFileError(f"“{path.name}” is a folder, not a sound file.", hint="Give the files inside it.")
        size = path.stat().st_size
    except FileNotFoundError as error:
        raise AudioFileError(f"There is no file “{path}”.", hint="Check the name and the folder.") from error
    except OSError as error:
        raise AudioFileError(
            f"“{path}” cannot be opened: {error.strerror}.", hint="Check that you may read it."
        ) from error
    if size == 0 and path.is_file():
        raise AudioFileError(f"“{path.name}” is empty (0 bytes).", hint="Copy or download it again.")


def _open_decoder(path: Path) -> _Decoder:
    try:
        decoder: _Decoder = _SndfileDecoder(path)
    except soundfile.SoundFileError:
        decoder = _AvDecoder(path)
    if isinstance(decoder, _SndfileDecoder) and decoder.is_mp3:
        # soundfile seeks after each read, and a seek upsets libsndfile's mp3 decoder (measured: errors up to 0.6).
        decoder.close()
        decoder = _AvDecoder(path)
    info = decoder.info
    if not (_MIN_RATE <= info.sample_rate <= _MAX_RATE and 1 <= info.num_channels <= _MAX_CHANNELS):
        decoder.close()
        raise AudioFileError(
            f"“{path.name}” states {info.sample_rate} Hz and {info.num_channels} channels, which cannot be right.",
            hint="The file is damaged; get it again or convert it to flac first.",
        )
    if info.num_samples == 0 and isinstance(decoder, _SndfileDecoder):
        decoder.close()
        raise _no_sound(path)
    return decoder


def _no_sound(path: Path) -> AudioFileError:
    return AudioFileError(f"“{path.name}” holds no sound (length 0).", hint="Export or download it again.")


def _unreadable(path: Path) -> AudioFileError:
    return AudioFileError(f"“{path.name}” is not a sound file that can be read, or it is damaged.", hint=_KINDS_HINT)


class _SndfileDecoder:
    def __init__(self, path: Path) -> None:
        self._file = soundfile.SoundFile(str(path))
        self.info = AudioInfo(self._file.samplerate, self._file.channels, max(self._file.frames, 0))
        self.is_mp3 = self._file.format == "MP3"
        # Short steps: where compressed data end in rubble, a step fails as a whole and what came before it is the file.
        self._step = 2**20 if self._file.format in _PLAIN else 2**12
        self._ended = False

    def read(self, num_samples: int) -> FloatArray:
        samples = np.empty((num_samples, self.info.num_channels), np.float32)
        num_read = 0
        while num_read < num_samples and not self._ended:
            try:
                step = self._file.read(out=samples[num_read : num_read + self._step])
            except soundfile.SoundFileError:
                self._ended = True
                break
            num_read += len(step)
            self._ended = len(step) == 0
        return np.ascontiguousarray(samples[:num_read].T)

    def seek(self, sample: int) -> None:
        self._ended = sample >= self.info.num_samples
        if not self._ended:
            try:
                self._file.seek(sample)
            except soundfile.SoundFileError:  # beyond the place where a damaged file breaks off
                self._ended = True

    def close(self) -> None:
        self._file.close()


class _AvDecoder:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._open()
        audio = self._container.streams.audio[0]
        rate, channels = audio.codec_context.sample_rate, audio.codec_context.channels
        if not rate or not channels:
            self.close()
            raise _unreadable(path)
        if audio.duration is not None and audio.time_base is not None:
            seconds = float(audio.duration * audio.time_base)
        else:
            seconds = (self._container.duration or 0) / 1_000_000
        self.info = AudioInfo(rate, channels, max(round(seconds * rate), 0))
        self._any = False

    def _open(self) -> None:
        import av

        try:
            self._container = av.open(str(self._path))
        except (av.FFmpegError, OSError, ValueError) as error:
            raise _unreadable(self._path) from error
        if not self._container.streams.audio:
            self.close()
            raise _unreadable(self._path)
        self._frames = self._decode()
        self._pending: list[FloatArray] = []
        self._num_pending = 0

    def _decode(self) -> Iterator[FloatArray]:
        import av

        stream: Any = self._container.streams.audio[0]
        resampler = av.AudioResampler(format="fltp")
        packets = self._container.demux(stream)
        while True:
            try:
                packet = next(packets)
                frames = packet.decode()
                for frame in frames:
                    for part in resampler.resample(frame):
                        yield np.array(part.to_ndarray(), dtype=np.float32, ndmin=2)
            except StopIteration:
                return
            except av.EOFError:
                return
            except av.InvalidDataError:  # one broken packet: the sound goes on after it
                continue
            except av.FFmpegError:
                return

    def read(self, num_samples: int) -> FloatArray:
        while self._num_pending < num_samples:
            block = next(self._frames, None)
            if block is None:
                break
            if block.shape[0] == self.info.num_channels:
                self._pending.append(block)
                self._num_pending += block.shape[1]
        if not self._num_pending:
            if not self._any:
                raise _no_sound(self._path) if self.info.num_samples == 0 else _unreadable(self._path)
            return np.zeros((self.info.num_channels, 0), np.float32)
        self._any = True
        joined = np.concatenate(self._pending, axis=1)
        self._pending = [joined[:, num_samples:]]
        self._num_pending = self._pending[0].shape[1]
        return np.ascontiguousarray(joined[:, :num_samples])

    def seek(self, sample: int) -> None:
        self.close()
        self._open()
        left = sample
        while left > 0 and (block := self.read(min(left, 2**16))).shape[1]:
            left -= block.shape[1]

    def close(self) -> None:
        self._container.close()
