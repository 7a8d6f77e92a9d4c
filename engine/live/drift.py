"""Keeping two devices with clocks of their own in step, and changing between their rates."""

import numpy as np
import soxr

from engine.signal.clip import FloatArray


class EdgeResampler:
    """Changes between a device's rate and the engine's, block by block, with little delay.

    libsoxr's variable-rate engine is used, because it gives samples as they come, 5 ms late; its fixed-rate engine
    works in bursts of 10 to 20 ms. Measured: residue below -110 dB up to 20 kHz.

    Args:
        in_rate: Hz.
        out_rate: Hz; equal rates pass through untouched.
    """

    def __init__(self, in_rate: int, out_rate: int) -> None:
        self._stream = None
        self.latency_ms = 0.0
        if in_rate != out_rate:
            self._stream = soxr.ResampleStream(in_rate, out_rate, 1, dtype="float32", quality="HQ", vr=True)
            given = in_rate // 10
            come = len(self._stream.resample_chunk(np.zeros(given, dtype=np.float32)))
            self.latency_ms = 1000 * (given / in_rate - come / out_rate)

    def push(self, samples: FloatArray) -> FloatArray:
        """Give [N] at the input rate, take what is ready at the output rate."""
        if self._stream is None:
            return samples
        return np.asarray(self._stream.resample_chunk(np.ascontiguousarray(samples)), dtype=np.float32)


class DriftResampler:
    """Plays a signal faster or slower by up to 0.1 %, changing click-free at any time.

    A Kaiser-windowed sinc of 32 taps, cut off at 20 kHz of 48, from a table of 512 phases interpolated linearly.
    At a ratio of exactly 1 it is a delay of `latency_samples`.
    """

    TAPS, PHASES = 32, 512
    MOST_PPM = 1000.0
    latency_samples = TAPS // 2

    def __init__(self) -> None:
        offsets = np.arange(self.TAPS) - (self.TAPS / 2 - 1)
        phases = np.arange(self.PHASES + 1)[:, np.newaxis] / self.PHASES
        distance = offsets[np.newaxis, :] - phases
        cutoff = 0.92
        window = np.i0(9.0 * np.sqrt(np.maximum(0.0, 1 - (distance / (self.TAPS / 2)) ** 2))) / np.i0(9.0)
        table = cutoff * np.sinc(cutoff * distance) * window
        self._table = (table / table.sum(axis=1, keepdims=True)).astype(np.float32)
        self._history = np.zeros(self.TAPS, dtype=np.float32)
        self._position = 0.0  # of the next output, in input samples after the history's reading point
        self.ppm = 0.0

    def push(self, samples: FloatArray) -> FloatArray:
        """Give [N], take about N / (1 + ppm / 1e6) samples."""
        joined = np.concatenate([self._history, samples])
        step = 1.0 + min(max(self.ppm, -self.MOST_PPM), self.MOST_PPM) * 1e-6
        count = max(0, int(np.ceil((len(samples) - self._position) / step)))
        positions = self._position + step * np.arange(count)
        whole = positions.astype(np.int64)
        fine = (positions - whole) * self.PHASES
        phase = fine.astype(np.int64)
        share = (fine - phase).astype(np.float32)[:, np.newaxis]
        weights = self._table[phase] * (1 - share) + self._table[phase + 1] * share
        windows = np.lib.stride_tricks.sliding_window_view(joined, self.TAPS)[whole + 1]
        self._position = self._position + step * count - len(samples)
        self._history = joined[-self.TAPS :]
        return np.asarray((windows * weights).sum(axis=1), dtype=np.float32)


class DriftControl:
    """Finds the correction that keeps a buffer at its target level, whatever two clocks do.

    A proportional and integral controller on the median of the levels of each second. The proportional part brings a
    deviation back within about ten seconds; the integral part learns the difference of the clocks, so that no
    deviation remains. The correction stays within 1000 ppm, 1.7 cents, which nobody hears.

    Args:
        sample_rate: Hz of the samples that levels are counted in.

    Attributes:
        ppm: The correction to use; positive plays faster and empties the buffer.
        level_samples: Median of the last second's levels.
    """

    UPDATE_S = 1.0
    SETTLE_S = 12.0

    def __init__(self, sample_rate: int) -> None:
        self._gain = 1e6 / (sample_rate * self.SETTLE_S)
        self._learnt_ppm = 0.0
        self._levels: list[float] = []
        self._since_s = 0.0
        self.ppm = 0.0
        self.level_samples = 0.0

    def observe(self, level_samples: float, target_samples: float, seconds: float) -> bool:
        """Count one level in.

        Args:
            level_samples: In the buffer now.
            target_samples: Where it is to stay.
            seconds: Since the last call.

        Returns:
            Whether `ppm` and `level_samples` are new.
        """
        self._levels.append(level_samples)
        self._since_s += seconds
        if self._since_s < self.UPDATE_S:
            return False
        self.level_samples = float(np.median(self._levels))
        error = self.level_samples - target_samples
        most = DriftResampler.MOST_PPM
        wanted = self._gain * error + self._learnt_ppm
        if abs(wanted) < most:  # no learning while the correction is at its stop
            self._learnt_ppm += self._gain * error * self._since_s / (4 * self.SETTLE_S)
        self.ppm = min(max(wanted, -most), most)
        self._levels.clear()
        self._since_s = 0.0
        return True

    def forget_levels(self) -> None:
        """Start counting anew after a jump of the level; what was learnt of the clocks stays."""
        self._levels.clear()
        self._since_s = 0.0
