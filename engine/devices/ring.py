"""The ring buffer between a device callback and a thread."""

import numpy as np

from engine.signal.clip import FloatArray


class SampleRing:
    """Samples on their way from one thread to one other, without a lock.

    One thread writes, one other reads. Samples are stored before the counter that announces them, so that under
    CPython's memory order the reader never sees a sample that is not there. No call creates an array.

    Args:
        capacity: Samples the ring holds at least; rounded up to a power of two.
    """

    def __init__(self, capacity: int) -> None:
        size = 1 << max(1, (capacity - 1).bit_length())
        self._data = np.zeros(size, dtype=np.float32)
        self._size, self._mask = size, size - 1
        self._written = 0
        self._read = 0

    @property
    def capacity(self) -> int:
        """Samples the ring can hold."""
        return self._size

    @property
    def available(self) -> int:
        """Samples that can be read."""
        return self._written - self._read

    @property
    def written(self) -> int:
        """Samples written since the ring was made."""
        return self._written

    def write(self, samples: FloatArray) -> bool:
        """Append samples [N]; False, and nothing written, when they do not fit."""
        count = len(samples)
        if count > self._size - (self._written - self._read):
            return False
        start = self._written & self._mask
        first = min(count, self._size - start)
        self._data[start : start + first] = samples[:first]
        if first < count:
            self._data[: count - first] = samples[first:]
        self._written += count
        return True

    def read_into(self, out: FloatArray) -> bool:
        """Fill `out` [N] with the oldest samples; False, and nothing read, when there are fewer."""
        count = len(out)
        if count > self._written - self._read:
            return False
        start = self._read & self._mask
        first = min(count, self._size - start)
        out[:first] = self._data[start : start + first]
        if first < count:
            out[first:] = self._data[: count - first]
        self._read += count
        return True

    def skip(self, count: int) -> int:
        """Drop up to `count` of the oldest samples, from the reading side; returns how many were dropped."""
        count = min(count, self._written - self._read)
        self._read += count
        return count
