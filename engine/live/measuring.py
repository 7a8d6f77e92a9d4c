"""How fast this machine converts, and the block that follows from it."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from engine.live.options import BLOCK_CHOICES_MS, SAMPLE_RATE
from engine.signal.clip import FloatArray

# In a stream, beside the threads of devices, window and sound server, slow blocks take 1.8 times as long as alone: from
# shares of 0.27 and just below 0.5, the p99 of streams became 0.48 and 0.89. It should stay below 0.7.
SAFE_SHARE = 0.35
NEARLY_TOO_SLOW_SHARE = 0.7
WARM_UP_S = 0.4
_MEASURE_S = 0.8


@dataclass(frozen=True)
class BlockMeasurement:
    """One block size's computing times.

    Attributes:
        block_ms: The block.
        median_ms: Median time to convert one.
        p99_ms: Time that 99 of 100 stay below.
        is_safe: Whether that leaves enough room.
    """

    block_ms: float
    median_ms: float
    p99_ms: float
    is_safe: bool


class BlockTimes:
    """Counts computing times for hours in constant memory: a histogram with 64 bins per factor of 10.

    Percentiles are exact to 4 %.
    """

    _PER_DECADE, _LOWEST_MS, _DECADES = 64, 0.01, 5

    def __init__(self) -> None:
        self._counts = np.zeros(self._PER_DECADE * self._DECADES, dtype=np.int64)
        self.count = 0
        self.max_ms = 0.0

    def add(self, milliseconds: float) -> None:
        """Count one time in."""
        bin_index = int(self._PER_DECADE * math.log10(max(milliseconds, self._LOWEST_MS) / self._LOWEST_MS))
        self._counts[min(bin_index, len(self._counts) - 1)] += 1
        self.count += 1
        self.max_ms = max(self.max_ms, milliseconds)

    def percentile_ms(self, percent: float) -> float:
        """The time that so many percent of all stay below; 0 before the first."""
        if not self.count:
            return 0.0
        bin_index = int(np.searchsorted(np.cumsum(self._counts), percent / 100 * self.count))
        return min(self._LOWEST_MS * 10 ** ((bin_index + 1) / self._PER_DECADE), self.max_ms)


def work_signal(seconds: float) -> FloatArray:
    """A gliding harmonic tone with pauses of noise, [N]: work like a voice's for the converter."""
    times = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    phase = 2 * np.pi * np.cumsum(120 + 60 * np.sin(2 * np.pi * 0.7 * times)) / SAMPLE_RATE
    voice = sum(np.sin(k * phase) / k for k in range(1, 20)) * (np.sin(2 * np.pi * 1.5 * times) > -0.6)
    noise = np.random.default_rng(0).standard_normal(len(times))
    return (0.1 * voice + 0.003 * noise).astype(np.float32)


def warm_up(push: Callable[[FloatArray], object]) -> None:
    """Convert a little, so that the first real block is not slow."""
    signal = work_signal(WARM_UP_S)
    for start in range(0, len(signal), 480):
        push(signal[start : start + 480])


def measure_blocks(
    push: Callable[[FloatArray], object], *, stop: Callable[[], bool] = lambda: False
) -> tuple[BlockMeasurement, ...]:
    """Time blocks from the smallest up, as far as needed.

    Args:
        push: Converts [N]; warmed up.
        stop: Asked between blocks whether to leave early.

    Returns:
        One measurement per block size tried; the last is the smallest safe one, or 40 ms if none is.
    """
    measurements: list[BlockMeasurement] = []
    signal = work_signal(_MEASURE_S)
    for block_ms in BLOCK_CHOICES_MS:
        size = round(block_ms * SAMPLE_RATE / 1000)
        times = []
        for start in range(0, len(signal) - size + 1, size):
            started = time.perf_counter()
            push(signal[start : start + size])
            times.append(1000 * (time.perf_counter() - started))
            if stop():
                break
        # Frames finish every 10 ms: of two 5 ms blocks one does all the work, so the slow ones decide.
        p99_ms = float(np.percentile(times, 97))
        is_safe = p99_ms < SAFE_SHARE * block_ms
        measurements.append(BlockMeasurement(block_ms, float(np.median(times)), p99_ms, is_safe))
        if is_safe or stop():
            break
    return tuple(measurements)
