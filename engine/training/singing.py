"""Sung phrases made of spoken ones: singers for the separator, who are scarcer than speakers.

A recording is taken apart into F0, loudness and band levels, its voiced frames are drawn out, its melody is replaced by
notes of a scale with glides, vibrato and drift, its formants are moved a little, and the source-filter synthesis of
`engine.conversion` puts it together again. What comes out is no beautiful song, but a voice on held notes, by as many
people as the corpus has.
"""

import numpy as np

from engine.conversion.bands import BAND_CENTRES_HZ, HOP_LENGTH, NUM_BANDS, SAMPLE_RATE, band_levels, loudness, shifted
from engine.conversion.bands import LOOKAHEAD_SAMPLES as HALF_WINDOW
from engine.conversion.decoder import NO_LEVEL
from engine.conversion.synthesis import SourceFilter, StreamingSourceFilter
from engine.pitch import estimate_f0
from engine.signal import AudioClip, FloatArray, resample
from engine.training.critics import PAUSE_BELOW

_FRAME_S = HOP_LENGTH / SAMPLE_RATE
_SCALES = ((0, 2, 4, 5, 7, 9, 11), (0, 2, 3, 5, 7, 8, 10), (0, 3, 5, 7, 10))
_LONGEST_S = 30.0
_RUMBLE_BELOW_HZ, _RUMBLE = 120.0, np.float32(7.0)  # what rooms and microphones add; natural log of power


def sing(clip: AudioClip, rng: np.random.Generator, *, bandwidth_hz: float) -> AudioClip | None:
    """Make a sung phrase.

    Args:
        clip: Speech, mono, any rate.
        rng: Draws melody, tempo and colour.
        bandwidth_hz: Above it the recording holds nothing, and its envelope is continued.

    Returns:
        [1, N] at 48 kHz of the same level, or None where there is too little voice.
    """
    clip = resample(clip, SAMPLE_RATE)
    f0 = estimate_f0(clip, tracker="swift")
    num_frames = 1 + clip.num_samples // HOP_LENGTH
    f0_hz = f0.at(np.arange(num_frames) * _FRAME_S).astype(np.float32)
    voiced = np.isfinite(f0_hz)
    if voiced.sum() < 50:
        return None
    padded = np.pad(clip.samples[0], (HALF_WINDOW, 2 * HOP_LENGTH + HALF_WINDOW))
    levels = band_levels(padded[: (num_frames - 1) * HOP_LENGTH + 2 * HALF_WINDOW], f0_hz)[0]
    levels = shifted(_continued(levels, bandwidth_hz, rng), float(rng.uniform(-2.5, 2.5)))
    position = _drawn_out(voiced, loudness(levels), rng)
    low = np.minimum(position.astype(int), num_frames - 2)
    share = (position - low).astype(np.float32)[:, None]
    sung = levels[low] * (1 - share) + levels[low + 1] * share
    is_voiced = voiced[np.round(position).astype(int)]
    wanted = np.where(is_voiced, _melody(len(position), float(np.median(f0_hz[voiced])), rng), np.nan)
    audio = _spoken_by_filter(sung.astype(np.float32), wanted.astype(np.float32), rng)
    scale = np.sqrt(np.square(clip.samples).mean() / max(float(np.square(audio).mean()), 1e-9))
    return AudioClip((audio * np.float32(scale))[None], SAMPLE_RATE)


def _continued(levels: FloatArray, bandwidth_hz: float, rng: np.random.Generator) -> FloatArray:
    """Band levels [T, 72] whose bands above the bandwidth fall gently instead of ending."""
    edge = int(np.searchsorted(BAND_CENTRES_HZ, 0.92 * bandwidth_hz))
    if edge >= NUM_BANDS - 1:
        return levels
    octaves = np.log2(BAND_CENTRES_HZ[edge:] / BAND_CENTRES_HZ[edge])
    fall = np.float32(rng.uniform(1.5, 4.0)) * octaves
    levels = levels.copy()
    levels[:, edge:] = levels[:, edge - 4 : edge].mean(axis=1, keepdims=True) - fall
    return levels


def _drawn_out(voiced: np.ndarray, level: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Where in the recording, in frames, each sung frame comes from: voiced ones last longer, pauses end sooner."""
    lasts = np.where(voiced, rng.uniform(1.2, 3.2), rng.uniform(0.8, 1.2))
    lasts = np.where(level < np.percentile(level, 95) - PAUSE_BELOW, rng.uniform(0.2, 0.8), lasts)
    ends = np.cumsum(lasts)
    count = int(min(ends[-1], _LONGEST_S / _FRAME_S))
    return np.interp(np.arange(count), ends, np.arange(len(lasts))).astype(np.float32)


def _melody(num_frames: int, spoken_hz: float, rng: np.random.Generator) -> FloatArray:
    """[T] Hz: a walk on a scale from a little above the speaking voice on, with glides, vibrato and drift."""
    scale = _SCALES[int(rng.integers(len(_SCALES)))]
    tonic = np.log2(spoken_hz) + rng.uniform(-1, 9) / 12
    slow = float(rng.uniform(0.2, 0.9))
    octaves, vibrato, degree, start = np.empty(num_frames), np.zeros(num_frames), int(rng.integers(0, 5)), 0
    depth, rate = float(rng.choice([0.0, 0.15, 0.3, 0.5])), float(rng.uniform(4.8, 6.6))
    while start < num_frames:
        end = start + max(8, int(slow * np.exp(rng.normal(0, 0.6)) / _FRAME_S))
        degree = int(np.clip(degree + rng.integers(-3, 4), -3, 9))
        octave, step = divmod(degree, len(scale))
        octaves[start:end] = tonic + octave + scale[step] / 12
        since = np.arange(min(end, num_frames) - start) * _FRAME_S
        swell = np.clip((since - 0.2) / 0.3, 0, 1)
        vibrato[start:end] = depth / 12 * swell * np.sin(2 * np.pi * rate * since + rng.uniform(0, 6.3))
        start = end
    glide = np.hanning(2 * int(rng.integers(2, 8)) + 3)
    octaves = np.convolve(np.pad(octaves, len(glide) // 2, mode="edge"), glide / glide.sum(), "valid")
    drift = np.convolve(rng.normal(0, 0.02, num_frames + 40), np.hanning(41) / 20, "valid")
    return np.asarray(np.clip(2.0 ** (octaves + vibrato + drift), 65.0, 1000.0), np.float32)


def _spoken_by_filter(levels: FloatArray, f0_hz: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Pulses and noise through the levels [T, 72]: harmonics below some kilohertz, noise above."""
    share = np.float32(rng.uniform(2.5, 5.0)) - BAND_CENTRES_HZ / np.float32(rng.uniform(1500, 3500))
    voiced = np.isfinite(f0_hz)[:, None]
    harmonic = np.where(voiced, levels - np.logaddexp(0, -share), np.float32(NO_LEVEL)).astype(np.float32)
    noise = np.where(voiced, levels - np.logaddexp(0, share), levels).astype(np.float32)
    noise[:, BAND_CENTRES_HZ < _RUMBLE_BELOW_HZ] -= _RUMBLE
    synthesis = StreamingSourceFilter(SourceFilter(), seed=int(rng.integers(1 << 31)))
    parts = [
        synthesis.push(f0_hz[start : start + 500], harmonic[start : start + 500], noise[start : start + 500])
        for start in range(0, len(f0_hz), 500)
    ]
    return np.concatenate(parts)
