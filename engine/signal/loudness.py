"""How loud a sound is, and keeping it below a ceiling: ITU-R BS.1770-4 loudness and true peak, a look-ahead limiter."""

import numpy as np
import numpy.typing as npt
import scipy  # its parts load when first used: scipy.signal takes a second, and the window does not need it

from engine.signal.clip import AudioClip, FloatArray, overlapping

SILENCE_LUFS = -70.0  # the absolute gate of BS.1770: what never passes it is silent
_BLOCK = 2**17


class LoudnessMeter:
    """Integrated loudness of a stream, in memory that grows by 10 numbers a second.

    K-weighting with pyloudnorm's coefficients, mean square over 400 ms every 100 ms, absolute and relative gates.
    Sounds shorter than 400 ms count as one block.

    Args:
        sample_rate: Hz.
        num_channels: C; the fourth and fifth weigh 1.41 as the standard asks, further ones 0.

    Source: ITU-R BS.1770-4. Checked against pyloudnorm.
    """

    def __init__(self, sample_rate: int, num_channels: int) -> None:
        import pyloudnorm

        # The filters' design fails below about 4 kHz, where K-weighting has nothing to say anyway.
        first, second = pyloudnorm.Meter(max(sample_rate, 4000))._filters.values()
        self._numerator, self._denominator = np.convolve(first.b, second.b), np.convolve(first.a, second.a)
        self._state = np.zeros((num_channels, 4))
        self._weights = np.array([1.0, 1.0, 1.0, 1.41, 1.41] + [0.0] * max(num_channels - 5, 0))[:num_channels]
        self._hop = max(round(0.1 * sample_rate), 1)
        self._rest = np.zeros(0)
        self._hops: list[npt.NDArray[np.float64]] = []

    def push(self, samples: FloatArray) -> None:
        """Take the next [C, N] block."""
        if not samples.shape[1]:
            return
        weighted, self._state = scipy.signal.lfilter(
            self._numerator, self._denominator, samples.astype(np.float64), axis=1, zi=self._state
        )
        power = np.concatenate([self._rest, self._weights @ np.square(weighted)])
        whole = len(power) // self._hop * self._hop
        self._hops.append(power[:whole].reshape(-1, self._hop).mean(axis=1))
        self._rest = power[whole:]

    def integrated(self) -> float:
        """LUFS so far; -inf when nothing passed the absolute gate."""
        hops = np.concatenate([np.zeros(0), *self._hops])
        if len(hops) < 4:
            everything = np.concatenate([np.repeat(hops, self._hop), self._rest])
            blocks = np.array([everything.mean()]) if len(everything) else np.zeros(0)
        else:
            sums = np.cumsum(np.concatenate([[0.0], hops]))
            blocks = (sums[4:] - sums[:-4]) / 4
        blocks = blocks[blocks > _power(SILENCE_LUFS)]
        if not len(blocks):
            return float("-inf")
        return _lufs(float(blocks[blocks > blocks.mean() * 0.1].mean()))


def integrated_lufs(clip: AudioClip) -> float:
    """Integrated loudness of a clip, LUFS; -inf for silence."""
    meter = LoudnessMeter(clip.sample_rate, clip.num_channels)
    for start in range(0, clip.num_samples, _BLOCK):
        meter.push(clip.samples[:, start : start + _BLOCK])
    return meter.integrated()


class TruePeakMeter:
    """Highest value between the samples of a stream, by 4 times oversampling (48-tap filter of BS.1770's Annex 2).

    Attributes:
        peak: Highest magnitude so far, linear.
    """

    def __init__(self, num_channels: int) -> None:
        self._oversampler = _Oversampler(num_channels)
        self.peak = 0.0

    def push(self, samples: FloatArray) -> None:
        """Take the next [C, N] block."""
        if samples.shape[1]:
            at_least = max(self.peak, float(np.abs(samples).max()))
            self.peak = max(at_least, float(self._oversampler.push(samples, at_least).max()))

    @property
    def dbtp(self) -> float:
        """The peak in dB over full scale; -inf for silence."""
        return 20 * float(np.log10(self.peak)) if self.peak > 0 else float("-inf")


def true_peak_dbtp(clip: AudioClip) -> float:
    """True peak of a clip, dBTP; -inf for silence."""
    meter = TruePeakMeter(clip.num_channels)
    for start in range(0, clip.num_samples, _BLOCK):
        meter.push(clip.samples[:, start : start + _BLOCK])
    meter.push(np.zeros((clip.num_channels, _Oversampler.LATENCY + 1), np.float32))
    return meter.dbtp


class Limiter:
    """Keeps a stream's true peak below a ceiling, all channels by the same gain.

    The gain falls smoothly over the look-ahead before a peak, and recovers by 60 dB a second. Where nothing passes the
    ceiling the samples come out as they went in.

    Args:
        sample_rate: Hz.
        ceiling_dbtp: Highest true peak that comes out.
        num_channels: C.
        look_ahead_s: How long before a peak the gain begins to fall, s; shorter delays less and sounds harder.
    """

    def __init__(
        self, sample_rate: int, ceiling_dbtp: float = -1.0, num_channels: int = 2, *, look_ahead_s: float = 0.005
    ) -> None:
        self._num_channels = num_channels
        # The gain moves between the samples too; 0.02 dB below the ceiling leaves room for that.
        self._ceiling = 10 ** ((ceiling_dbtp - 0.02) / 20)
        self._look = max(round(look_ahead_s * sample_rate), 8)
        self._release_db = 60.0 / sample_rate
        self.latency_samples = self._look + _Oversampler.LATENCY
        self._oversampler = _Oversampler(num_channels)
        self._delayed = np.zeros((num_channels, self.latency_samples), np.float32)
        self._wanted = np.zeros(2 * self._look)  # reductions, dB, still inside some window
        self._held = 0.0

    def push(self, samples: FloatArray) -> FloatArray:
        """Limit the next block.

        Args:
            samples: [C, N] float32.

        Returns:
            [C, N], delayed by `latency_samples`.
        """
        num = samples.shape[1]
        if not num:
            return samples
        if not self._held and self._oversampler.highest_possible(samples) < self._ceiling and not self._wanted.any():
            self._oversampler.skip(samples)
            samples_in = np.concatenate([self._delayed, samples], axis=1)
            self._delayed = samples_in[:, num:]
            return samples_in[:, :num].copy()
        peaks = self._oversampler.push(samples, self._ceiling).astype(np.float64)
        over, high = np.zeros(num), np.flatnonzero(peaks > self._ceiling)
        over[high] = 20 * np.log10(peaks[high] / self._ceiling)
        # Linear release in dB: the running maximum of over + slope * n, minus slope * n.
        ramp = self._release_db * np.arange(1, num + 1)
        held = np.maximum(np.maximum.accumulate(np.concatenate([[self._held], over + ramp]))[1:] - ramp, 0.0)
        self._held = float(held[-1])
        wanted = np.concatenate([self._wanted, held])
        self._wanted = wanted[num:]
        samples_in = np.concatenate([self._delayed, samples], axis=1)
        self._delayed = samples_in[:, num:]
        out = samples_in[:, :num]
        if not wanted.any():
            return out.copy()
        # The highest reduction from each sample to look samples after it, then its mean over the look samples before:
        # every one of those windows holds the peak, so the reduction is there in time and moves smoothly.
        size = self._look + 1
        highest = scipy.ndimage.maximum_filter1d(wanted, size, origin=-(size // 2))[: self._look + num]
        sums = np.cumsum(np.concatenate([[0.0], highest]))
        reduction = (sums[self._look :] - sums[: num + 1])[1:] / self._look
        gain = np.exp(np.maximum(reduction, 0.0) * (-np.log(10.0) / 20)).astype(np.float32)
        return np.asarray(out * gain)

    def flush(self) -> FloatArray:
        """The last `latency_samples`, [C, latency_samples]."""
        return self.push(np.zeros((self._num_channels, self.latency_samples), np.float32))


class _Oversampler:
    """Per sample, the highest magnitude over all channels at the sample and the three points after it."""

    _FACTOR, _TAPS = 4, 12
    _CELL = 64
    LATENCY = _TAPS // 2

    def __init__(self, num_channels: int) -> None:
        kernel = scipy.signal.firwin(self._FACTOR * self._TAPS + 1, 1 / self._FACTOR, window=("kaiser", 5.0))
        phases = (kernel[:-1] * self._FACTOR / kernel.sum()).reshape(self._TAPS, self._FACTOR)[::-1, 1:]
        between = np.zeros((self._CELL + self._TAPS - 1, self._FACTOR - 1, self._CELL), np.float32)
        for sample in range(self._CELL):
            between[sample : sample + self._TAPS, :, sample] = phases
        self._between = between.reshape(len(between), -1)  # from a cell to the points after its samples, as one product
        self._history = np.zeros((num_channels, self._TAPS), np.float32)
        self._most_gain = float(np.abs(phases).sum(axis=0).max())

    def highest_possible(self, samples: FloatArray) -> float:
        """A bound for what `push` would give: no point between samples is higher than the filter's gain allows."""
        return self._most_gain * max(float(np.abs(samples).max()), float(np.abs(self._history).max()))

    def skip(self, samples: FloatArray) -> None:
        """Take the next block without looking at it."""
        self._history = np.concatenate([self._history, samples[:, -self._TAPS :]], axis=1)[:, -self._TAPS :]

    def push(self, samples: FloatArray, above: float) -> FloatArray:
        """Peaks [N], late by LATENCY samples; those that do not pass `above` may come out too low."""
        joined = np.concatenate([self._history, samples], axis=1)
        num, cell = samples.shape[1], self._CELL
        self._history = joined[:, num:]
        num_cells = -(-num // cell)
        padded = np.zeros((len(joined), (num_cells + 1) * cell), np.float32)
        padded[:, : num + self._TAPS - 1] = joined[:, 1:]
        sizes = np.abs(padded).max(axis=0)
        highest = sizes.reshape(-1, cell).max(axis=1)
        # Only where the samples around are high can a point between them be.
        places = np.flatnonzero(self._most_gain * np.maximum(highest[:-1], highest[1:]) > above)
        peaks = sizes[self._TAPS - self.LATENCY - 1 :][: num_cells * cell].reshape(num_cells, cell).copy()
        for channel in padded:
            between = overlapping(channel, len(self._between), cell)[places] @ self._between
            peaks[places] = np.maximum(peaks[places], np.abs(between).reshape(-1, self._FACTOR - 1, cell).max(axis=1))
        return peaks.reshape(-1)[:num]


def _power(lufs: float) -> float:
    return float(10 ** ((lufs + 0.691) / 10))


def _lufs(power: float) -> float:
    return -0.691 + 10 * float(np.log10(power))
