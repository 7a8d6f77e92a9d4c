"""Spectrograms as PNG files, without a plotting library."""

import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from engine.signal import AudioClip, resample

_RATE, _FFT, _HOP = 48_000, 2048, 480
_ROWS, _RANGE_DB = 256, 80.0
# Dark to bright, evenly spaced; close to matplotlib's "magma".
_COLOURS = np.array([(0, 0, 4), (59, 15, 112), (140, 41, 129), (222, 73, 104), (254, 159, 109), (252, 253, 191)])


def write_spectrograms(path: Path, clips: Sequence[AudioClip]) -> None:
    """Draw mono clips below each other, mel-spaced up to 24 kHz, 10 ms a column, 80 dB from black to white."""
    images = [_image(clip) for clip in clips]
    width = max(image.shape[1] for image in images)
    padded = [np.pad(image, ((0, 6), (0, width - image.shape[1]), (0, 0)), constant_values=128) for image in images]
    _write_png(path, np.concatenate(padded))


def _image(clip: AudioClip) -> npt.NDArray[np.uint8]:
    """[rows, columns, 3]; low frequencies at the bottom."""
    samples = (clip if clip.sample_rate == _RATE else resample(clip, _RATE)).mono().samples[0]
    padded = np.pad(samples, (_FFT // 2, _FFT))
    frames = np.lib.stride_tricks.sliding_window_view(padded, _FFT)[::_HOP] * np.hanning(_FFT).astype(np.float32)
    db = 20.0 * np.log10(np.abs(np.fft.rfft(frames)).T + 1e-7)
    hz = 700.0 * (10.0 ** (np.linspace(0.0, 2595.0 * np.log10(1 + 24_000 / 700), _ROWS) / 2595.0) - 1.0)
    rows = db[np.minimum(np.rint(hz * _FFT / _RATE).astype(int), db.shape[0] - 1)][::-1]
    shade = np.clip((rows - rows.max()) / _RANGE_DB + 1.0, 0.0, 1.0) * (len(_COLOURS) - 1)
    steps = np.arange(len(_COLOURS))
    return np.stack([np.interp(shade, steps, _COLOURS[:, channel]) for channel in range(3)], axis=-1).astype(np.uint8)


def _write_png(path: Path, pixels: npt.NDArray[np.uint8]) -> None:
    """Write [H, W, 3] as an 8-bit RGB PNG."""
    height, width, _channels = pixels.shape

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    lines = np.concatenate([np.zeros((height, 1), np.uint8), pixels.reshape(height, -1)], axis=1).tobytes()
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines, 9)) + chunk(b"IEND", b"")
    )
