"""Change the sample rate, of a clip at once or of a stream block by block."""

import numpy as np
import soxr

from engine.signal.clip import AudioClip, FloatArray


def resample(clip: AudioClip, sample_rate: int) -> AudioClip:
    """A clip at another rate.

    Args:
        clip: Any rate, [C, N].
        sample_rate: Wanted rate, Hz.

    Returns:
        [C, round(N * sample_rate / clip.sample_rate)]; sample 0 stays at time 0. The same object when the rate
        already fits.
    """
    if clip.sample_rate == sample_rate:
        return clip
    num_out = _num_out(clip.num_samples, clip.sample_rate, sample_rate)
    if not clip.num_samples:
        return AudioClip(np.zeros((clip.num_channels, 0), np.float32), sample_rate)
    samples = soxr.resample(np.ascontiguousarray(clip.samples.T), clip.sample_rate, sample_rate, quality="HQ")
    return AudioClip(_fit(np.asarray(samples, np.float32).T, num_out), sample_rate)


class StreamingResampler:
    """Changes the rate of a stream; all outputs joined equal `resample` of all inputs joined.

    Blocks come out late (the filter looks ahead) but without a shift in time: the delay is not filled with zeros.

    Args:
        in_rate: Rate of what is pushed, Hz.
        out_rate: Rate of what comes back, Hz.
        num_channels: C.
    """

    def __init__(self, in_rate: int, out_rate: int, num_channels: int) -> None:
        self._in_rate, self._out_rate, self._num_channels = in_rate, out_rate, num_channels
        self._stream = (
            None
            if in_rate == out_rate
            else soxr.ResampleStream(in_rate, out_rate, num_channels, dtype="float32", quality="HQ")
        )
        self._num_in = self._num_out = 0

    def push(self, samples: FloatArray) -> FloatArray:
        """Give [C, N] at the input rate, take what is ready, [C, M] float32 at the output rate (M may be 0)."""
        if self._stream is None or not samples.shape[1]:
            return samples
        self._num_in += samples.shape[1]
        out = self._stream.resample_chunk(np.ascontiguousarray(samples.T, dtype=np.float32))
        return self._count(np.ascontiguousarray(out.T))

    def flush(self) -> FloatArray:
        """The rest, [C, M]; nothing may be pushed afterwards."""
        empty = np.zeros((self._num_channels, 0), np.float32)
        if self._stream is None or not self._num_in:
            return empty
        rest = self._stream.resample_chunk(np.ascontiguousarray(empty.T), last=True)
        wanted = _num_out(self._num_in, self._in_rate, self._out_rate) - self._num_out
        return _fit(rest.T, max(wanted, 0))

    def _count(self, out: FloatArray) -> FloatArray:
        self._num_out += out.shape[1]
        return out


def _num_out(num_in: int, in_rate: int, out_rate: int) -> int:
    return round(num_in * out_rate / in_rate)


def _fit(samples: FloatArray, num_samples: int) -> FloatArray:
    if samples.shape[1] < num_samples:
        samples = np.pad(samples, ((0, 0), (0, num_samples - samples.shape[1])))
    return np.ascontiguousarray(samples[:, :num_samples])
