"""Minimum and maximum levels of a sound at many zooms, for drawing hours of it at once."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from engine.errors import AudioFileError
from engine.jobs import JobContext
from engine.signal.clip import FloatArray
from engine.signal.reading import AudioReader

_BASE = 128  # samples per bin of the finest level
_FACTOR = 4  # bins of one level per bin of the next


class PeakPyramid:
    """Peaks of a sound over bins of 128, 512, 2048 ... samples, all channels together.

    Attributes:
        sample_rate: Rate of the sound, Hz.
        num_samples: N.
    """

    def __init__(self, levels: list[tuple[FloatArray, FloatArray]], sample_rate: int, num_samples: int) -> None:
        self._levels = levels
        self.sample_rate, self.num_samples = sample_rate, num_samples

    @property
    def seconds(self) -> float:
        """Duration, s."""
        return self.num_samples / self.sample_rate

    @classmethod
    def from_blocks(cls, blocks: Iterable[FloatArray], sample_rate: int) -> "PeakPyramid":
        """Build from consecutive [C, N] blocks of any lengths."""
        builder = PeakBuilder(sample_rate)
        for block in blocks:
            builder.push(block)
        return builder.finish()

    @classmethod
    def from_file(cls, path: Path | str, ctx: JobContext | None = None) -> "PeakPyramid":
        """Build from a file, decoding it once.

        Raises:
            AudioFileError: The file is missing, empty, without sound, or not decodable.
            Cancelled: The job was stopped.
        """
        ctx = ctx or JobContext()
        with AudioReader(path) as reader:
            builder = PeakBuilder(reader.info.sample_rate)
            for block in reader.blocks(2**17):
                builder.push(block)
                ctx.checkpoint("Drawing the waveform", builder.num_samples / max(reader.info.num_samples, 1))
        if not builder.num_samples:
            raise AudioFileError(f"“{Path(path).name}” holds no sound.", hint="Export or download it again.")
        return builder.finish()

    def levels(self, start_s: float, end_s: float, columns: int) -> tuple[FloatArray, FloatArray]:
        """Peaks over equal columns of a stretch of time.

        Args:
            start_s: Left edge, s; may lie before the sound.
            end_s: Right edge, s, > start_s; may lie after it.
            columns: How many columns, > 0.

        Returns:
            (mins, maxs), each [columns] float32; 0 where there is no sound.
        """
        if columns <= 0 or end_s <= start_s:
            raise ValueError("columns must be positive and end_s after start_s")
        edges = np.linspace(start_s, end_s, columns + 1) * self.sample_rate
        per_column = (end_s - start_s) * self.sample_rate / columns
        level, size = 0, _BASE
        while level + 1 < len(self._levels) and size * _FACTOR <= per_column:
            level, size = level + 1, size * _FACTOR
        mins, maxs = self._levels[level]
        first = np.floor(edges[:-1] / size).astype(np.int64)
        last = np.maximum(np.ceil(edges[1:] / size).astype(np.int64), first + 1)
        inside = (last > 0) & (first < len(mins)) & (edges[1:] > 0) & (edges[:-1] < self.num_samples)
        low, high = np.zeros(columns, np.float32), np.zeros(columns, np.float32)
        if inside.any():
            # reduceat takes [first, last) at even places; one bin more lets the last range end at the end.
            ranges = np.stack([np.maximum(first[inside], 0), np.minimum(last[inside], len(mins))], axis=1).ravel()
            low[inside] = np.minimum.reduceat(np.append(mins, mins[-1]), ranges)[::2]
            high[inside] = np.maximum.reduceat(np.append(maxs, maxs[-1]), ranges)[::2]
        return low, high


class PeakBuilder:
    """Gathers a `PeakPyramid` while blocks pass by."""

    def __init__(self, sample_rate: int) -> None:
        self._sample_rate = sample_rate
        self._mins: list[FloatArray] = []
        self._maxs: list[FloatArray] = []
        self._low = self._high = np.zeros(0, np.float32)
        self.num_samples = 0

    def push(self, block: FloatArray) -> None:
        """Take the next [C, N] block."""
        self.num_samples += block.shape[1]
        low = np.concatenate([self._low, block.min(axis=0)]) if block.shape[1] else self._low
        high = np.concatenate([self._high, block.max(axis=0)]) if block.shape[1] else self._high
        whole = len(low) // _BASE * _BASE
        if whole:
            self._mins.append(low[:whole].reshape(-1, _BASE).min(axis=1))
            self._maxs.append(high[:whole].reshape(-1, _BASE).max(axis=1))
        self._low, self._high = low[whole:].copy(), high[whole:].copy()

    def finish(self) -> PeakPyramid:
        """The pyramid of everything pushed so far; more may be pushed afterwards."""
        rest = len(self._low) > 0
        mins = np.concatenate(
            [np.zeros(0, np.float32), *self._mins, self._low.min(keepdims=True) if rest else self._low]
        )
        maxs = np.concatenate(
            [np.zeros(0, np.float32), *self._maxs, self._high.max(keepdims=True) if rest else self._high]
        )
        levels = [(mins, maxs)]
        while len(levels[-1][0]) > 64:
            mins, maxs = levels[-1]
            starts = np.arange(0, len(mins), _FACTOR)
            levels.append((np.minimum.reduceat(mins, starts), np.maximum.reduceat(maxs, starts)))
        return PeakPyramid(levels, self._sample_rate, self.num_samples)
