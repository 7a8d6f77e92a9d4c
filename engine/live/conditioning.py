"""What happens to the microphone's signal beside conversion: filter, gate, gains, delays."""

import numpy as np
from scipy import signal

from engine.signal.clip import FloatArray


class DelayLine:
    """Delays by a fixed number of samples.

    Args:
        delay_samples: 0 passes through.
        fill: What comes out first.
    """

    def __init__(self, delay_samples: int, fill: float = 0.0) -> None:
        self.delay_samples = delay_samples
        self._held = np.full(delay_samples, fill, dtype=np.float32)

    def push(self, samples: FloatArray) -> FloatArray:
        """Give [N], take [N]."""
        if not self.delay_samples:
            return samples
        joined = np.concatenate([self._held, samples])
        self._held = joined[len(samples) :]
        return joined[: len(samples)]

    def change(self, delay_samples: int) -> None:
        """Delay differently from now on; skips or repeats what lies between."""
        if delay_samples > self.delay_samples:
            self._held = np.concatenate([np.zeros(delay_samples - self.delay_samples, dtype=np.float32), self._held])
        else:
            self._held = self._held[self.delay_samples - delay_samples :]
        self.delay_samples = delay_samples


class HighPass:
    """A Butterworth high-pass of second order; a change of its frequency crossfades over one block."""

    def __init__(self, sample_rate: int, cutoff_hz: float) -> None:
        self._sample_rate = sample_rate
        self._cutoff_hz = cutoff_hz
        self._b, self._a = self._design(cutoff_hz)
        self._state = np.zeros(2)

    def push(self, samples: FloatArray, cutoff_hz: float) -> FloatArray:
        """Filter [N]; a cutoff of 0 lets everything through."""
        before, self._state = signal.lfilter(self._b, self._a, samples, zi=self._state)
        if cutoff_hz == self._cutoff_hz:
            return np.asarray(before, dtype=np.float32)
        self._cutoff_hz, (self._b, self._a) = cutoff_hz, self._design(cutoff_hz)
        after, self._state = signal.lfilter(self._b, self._a, samples, zi=np.zeros(2))
        share = np.linspace(0.0, 1.0, len(samples))
        return np.asarray(before * (1 - share) + after * share, dtype=np.float32)

    def _design(self, cutoff_hz: float) -> tuple[np.ndarray, np.ndarray]:
        if cutoff_hz <= 0:
            return np.array([1.0, 0.0, 0.0]), np.array([1.0, 0.0, 0.0])
        b, a = signal.butter(2, cutoff_hz, "highpass", fs=self._sample_rate)
        return b, a


class SmoothGain:
    """A gain that reaches a new value over 10 ms, in a raised cosine."""

    def __init__(self, sample_rate: int, gain: float = 1.0) -> None:
        self._length = sample_rate // 100
        self._curve = (0.5 - 0.5 * np.cos(np.pi * np.arange(1, self._length + 1) / self._length)).astype(np.float32)
        self._from = self._to = gain
        self._position = self._length

    def curve(self, num_samples: int, gain: float) -> FloatArray | float:
        """The gain for the next samples: a number while it rests, [N] while it moves."""
        if gain != self._to:
            done = self._position >= self._length
            share = 1.0 if done else float(self._curve[self._position])
            self._from = self._from + (self._to - self._from) * share
            self._to, self._position = gain, 0
        if self._position >= self._length:
            return self._to
        part = self._curve[self._position : self._position + num_samples]
        self._position += num_samples
        moving = self._from + (self._to - self._from) * part
        return np.pad(moving, (0, num_samples - len(moving)), constant_values=self._to).astype(np.float32)


class Gate:
    """Decides from the source when silence is silence, and gives the gain for it.

    The level is the power smoothed over 5 ms. The gate opens above the threshold and closes when the level stayed 6 dB
    below it for 150 ms; the gain rises within 5 ms and falls within 60 ms. Look-ahead costs no delay: the caller holds
    the gain back by less than the conversion holds back the voice.
    """

    HYSTERESIS_DB, HOLD_S, ATTACK_S, RELEASE_S = 6.0, 0.150, 0.005, 0.060

    def __init__(self, sample_rate: int) -> None:
        self._cell = sample_rate // 1000
        self._ramp = np.arange(1, self._cell + 1)
        smoothing = np.exp(-1.0 / (0.005 * sample_rate))
        self._b, self._a = np.array([1 - smoothing]), np.array([1.0, -smoothing])
        self._state = np.zeros(1)
        self._gain, self._slope = 0.0, 0.0
        self._quiet_cells = 1 << 30
        self._in_cell = 0
        self.is_open = False

    def push(self, samples: FloatArray, threshold_dbfs: float, enabled: bool) -> FloatArray:
        """Look at [N] of the source; the gain for each sample, [N]."""
        power, self._state = signal.lfilter(self._b, self._a, np.square(samples, dtype=np.float64), zi=self._state)
        opens = 10 ** (threshold_dbfs / 10)
        closes = opens * 10 ** (-self.HYSTERESIS_DB / 10)
        if not len(samples):
            return np.zeros(0, dtype=np.float32)
        used = self._in_cell or self._cell  # samples of the cell before, whether it is complete or not
        starts, slopes = [self._gain - self._slope * used], [self._slope]
        for level in power[self._cell - used :: self._cell].tolist():
            self._gain = starts[-1] + slopes[-1] * self._cell
            self._decide(level, opens, closes, enabled)
            starts.append(self._gain)
            slopes.append(self._slope)
        self._in_cell = (used + len(samples)) % self._cell
        self._gain = starts[-1] + slopes[-1] * (self._in_cell or self._cell)
        gains = np.array(starts)[:, np.newaxis] + np.array(slopes)[:, np.newaxis] * self._ramp
        return np.clip(gains.ravel()[used : used + len(samples)], 0.0, 1.0).astype(np.float32)

    def _decide(self, power: float, opens: float, closes: float, enabled: bool) -> None:
        self._quiet_cells = 0 if power > closes else self._quiet_cells + 1
        if not enabled or power > opens:
            self.is_open = True
        elif self._quiet_cells > self.HOLD_S * 1000:
            self.is_open = False
        step = 1 / (1000 * self.ATTACK_S) if self.is_open else -1 / (1000 * self.RELEASE_S)
        self._gain = min(max(self._gain, 0.0), 1.0)
        reached = min(max(self._gain + step, 0.0), 1.0)
        self._slope = (reached - self._gain) / self._cell
