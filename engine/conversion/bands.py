"""The spectral envelope in 72 bands to 24 kHz: what phone prints, the decoder and the synthesis speak of.

The power spectrum of a frame is averaged over one F0 along the frequency axis, which removes the harmonics and leaves
the envelope (Morise, "CheapTrick", Speech Communication 2015), then over triangular bands whose width grows with
frequency, 70 Hz + 3.5 %. Levels are natural logarithms of power per bin.
"""

import math

import numpy as np
import numpy.typing as npt
import torch

from engine.signal.clip import FloatArray, overlapping

SAMPLE_RATE = 48000
HOP_LENGTH = 480
WINDOW_LENGTH = 1024
LOOKAHEAD_SAMPLES = WINDOW_LENGTH // 2
FFT_BINS = WINDOW_LENGTH // 2 + 1
NUM_BANDS = 72
FLOOR_DB = -100.0  # of a frame, below full scale: everything quieter is digital silence

_SLOPE = 0.035
_WIDTH_HZ = 70.0
_UNVOICED_SMOOTHING_HZ = 94.0
_LOUDNESS_EXPONENT = 0.3  # Stevens: a band's loudness grows as power^0.3, so no single low harmonic decides


def _band_centres() -> FloatArray:
    top = np.log1p(_SLOPE * SAMPLE_RATE / 2 / _WIDTH_HZ)
    return (_WIDTH_HZ / _SLOPE * np.expm1(np.linspace(0.0, top, NUM_BANDS))).astype(np.float32)


BAND_CENTRES_HZ = _band_centres()
NUM_SPEECH_BANDS = int(np.searchsorted(BAND_CENTRES_HZ, 7600.0))
"""Bands that any recording from 16 kHz up holds; loudness, deviations and the speaker encoder look at these alone."""


def band_matrix() -> FloatArray:
    """[513, 72]: from power at the bins to the mean power of each band's triangle."""
    bins_hz = np.arange(FFT_BINS) * SAMPLE_RATE / WINDOW_LENGTH
    position = np.interp(bins_hz, BAND_CENTRES_HZ, np.arange(NUM_BANDS))
    weights = np.maximum(0.0, 1.0 - np.abs(position[:, None] - np.arange(NUM_BANDS)))
    return (weights / weights.sum(axis=0)).astype(np.float32)


_BAND_MATRIX = band_matrix()
_WINDOW = np.hanning(WINDOW_LENGTH + 1)[:-1].astype(np.float32)
_WINDOW_POWER = float(np.sum(np.square(_WINDOW)))
_MEAN = np.full(NUM_SPEECH_BANDS, 1 / NUM_SPEECH_BANDS, np.float32)
_FLOOR = 10.0 ** (FLOOR_DB / 10) / WINDOW_LENGTH


def band_levels(samples: FloatArray, f0_hz: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Analyse frames.

    Args:
        samples: [(T - 1) * 480 + 1024] float32 at 48 kHz; frame t is samples [t * 480, t * 480 + 1024).
        f0_hz: [T], NaN where unvoiced.

    Returns:
        The envelope and the unsmoothed bands, each [T, 72] float32: natural logarithm of power per hertz, scaled so
        that white noise of variance 1 lies at 0.
    """
    envelope, raw = tensor_band_levels(torch.from_numpy(samples), torch.from_numpy(f0_hz))
    return envelope.numpy(), raw.numpy()


def envelopes(samples: FloatArray, f0_hz: FloatArray) -> FloatArray:
    """The first half of `band_levels`, quicker for a few frames."""
    return np.log(_smooth(_power(samples), f0_hz) @ _BAND_MATRIX + _FLOOR).astype(np.float32)


def raw_levels(samples: FloatArray) -> FloatArray:
    """The second half of `band_levels`."""
    return np.asarray(np.log(_power(samples) @ _BAND_MATRIX + _FLOOR), np.float32)


def tensor_band_levels(samples: torch.Tensor, f0_hz: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """`band_levels` for tensors, all frames at once, on the samples' device."""
    window, bands = (torch.from_numpy(table).to(samples.device) for table in (_WINDOW, _BAND_MATRIX))
    spectrum = torch.fft.rfft(samples.unfold(0, WINDOW_LENGTH, HOP_LENGTH) * window)
    power = (spectrum.real.square() + spectrum.imag.square()) / _WINDOW_POWER
    return torch.log(_tensor_smooth(power, f0_hz) @ bands + _FLOOR), torch.log(power @ bands + _FLOOR)


def _tensor_smooth(power: torch.Tensor, f0_hz: torch.Tensor) -> torch.Tensor:
    """`_smooth` for tensors."""
    exact, bin_hz = exact_device(power.device), SAMPLE_RATE / WINDOW_LENGTH
    pad = int(np.ceil(750.0 / bin_hz)) + 2
    mirrored = torch.nn.functional.pad(power, (pad, pad), mode="reflect").to(exact, torch.float64)
    sums = torch.nn.functional.pad(mirrored.cumsum(1), (1, 0))
    half = f0_hz.to(exact, torch.float64).nan_to_num(0.0).clamp(_UNVOICED_SMOOTHING_HZ, 1500.0) / bin_hz / 2
    bins = torch.arange(FFT_BINS, device=exact)

    def sums_from(position: torch.Tensor) -> torch.Tensor:
        index = position.long()
        places = index[:, None] + bins
        return torch.lerp(sums.gather(1, places), sums.gather(1, places + 1), (position - index)[:, None])

    smooth = (sums_from(pad + 0.5 + half) - sums_from(pad + 0.5 - half)) / (2 * half[:, None])
    return smooth.clamp(min=0.0).to(power.device, power.dtype)


def exact_device(torch_device: torch.device | str) -> torch.device:
    """Where to compute in double precision for a device: on it, but for Apple's, which knows none."""
    wanted = torch.device(torch_device)
    return torch.device("cpu") if wanted.type == "mps" else wanted


def _power(samples: FloatArray) -> FloatArray:
    spectrum = np.fft.rfft(overlapping(samples, WINDOW_LENGTH, HOP_LENGTH) * _WINDOW)
    return np.asarray((np.square(spectrum.real) + np.square(spectrum.imag)) / np.float32(_WINDOW_POWER), np.float32)


def _smooth(power: FloatArray, f0_hz: FloatArray) -> FloatArray:
    """Mean over one F0 along frequency, by differences of the cumulative sum; the spectrum is mirrored at its ends."""
    bin_hz = SAMPLE_RATE / WINDOW_LENGTH
    pad = int(np.ceil(750.0 / bin_hz)) + 2
    total = np.zeros((len(power), FFT_BINS + 2 * pad + 1))
    total[:, pad + 1 : pad + 1 + FFT_BINS] = power
    total[:, 1 : pad + 1] = power[:, pad:0:-1]
    total[:, pad + 1 + FFT_BINS :] = power[:, -2 : -pad - 2 : -1]
    np.cumsum(total, axis=1, out=total)
    smooth = np.empty_like(power)
    for row, sums, hz in zip(smooth, total, f0_hz.tolist(), strict=True):
        width = min(max(hz, _UNVOICED_SMOOTHING_HZ), 1500.0) if math.isfinite(hz) else _UNVOICED_SMOOTHING_HZ
        half = width / bin_hz / 2
        row[:] = (_from(sums, pad + 0.5 + half) - _from(sums, pad + 0.5 - half)) / (2 * half)
    return np.maximum(smooth, 0.0, out=smooth)


def _from(sums: npt.NDArray[np.float64], position: float) -> npt.NDArray[np.float64]:
    """Sums at a place between two of them, and at the places one further each, one for every bin."""
    index = int(position)
    share = position - index
    return sums[index : index + FFT_BINS] * (1.0 - share) + sums[index + 1 : index + 1 + FFT_BINS] * share


def loudness(levels: FloatArray) -> FloatArray:
    """Level of a frame that a spectral tilt hardly moves: the power mean of the speech bands, exponent 0.3.

    Adding c to all levels adds c to the result, so a frame can be set to any loudness by one gain.

    Args:
        levels: [..., 72] or [..., NUM_SPEECH_BANDS or more], natural logarithms of power.

    Returns:
        [...] natural logarithm of power.
    """
    mean = np.exp(_LOUDNESS_EXPONENT * levels[..., :NUM_SPEECH_BANDS]) @ _MEAN
    return (np.log(mean) / _LOUDNESS_EXPONENT).astype(np.float32)


def interpolation_matrix(num_bins: int) -> FloatArray:
    """[72, num_bins]: from band levels to a spectrum of `num_bins` bins from 0 to 24 kHz, linear between centres."""
    bins_hz = np.linspace(0.0, SAMPLE_RATE / 2, num_bins)
    position = np.interp(bins_hz, BAND_CENTRES_HZ, np.arange(NUM_BANDS))
    weights = np.maximum(0.0, 1.0 - np.abs(position[None, :] - np.arange(NUM_BANDS)[:, None]))
    return weights.astype(np.float32)


def shifted(levels: FloatArray, semitones: float) -> FloatArray:
    """Move envelopes along the frequency axis (formant shift), [..., 72] to [..., 72]."""
    if semitones == 0.0:
        return levels
    position = np.interp(BAND_CENTRES_HZ / 2.0 ** (semitones / 12), BAND_CENTRES_HZ, np.arange(NUM_BANDS))
    low = np.minimum(position.astype(np.int64), NUM_BANDS - 2)
    share = (position - low).astype(np.float32)
    return (levels[..., low] * (1 - share) + levels[..., low + 1] * share).astype(np.float32)
