"""From a recording as it was made to the one a voice is made of."""

import numpy as np
import numpy.typing as npt

from engine.enrollment.activity import FRAME_S, Heard, hear, voiced_regions
from engine.signal import AudioClip, FloatArray, Limiter, integrated_lufs

TARGET_LUFS = -23.0
_CEILING_DBTP = -1.0
_PAD_S, _LONGEST_GAP_S, _FADE_S = 0.12, 0.4, 0.01
_WINDOW_S = 0.032
_GAIN_FLOOR = 10 ** (-18 / 20)
_SMOOTHING = 0.98


def process(clip: AudioClip, *, reduce_noise: bool = False, heard: Heard | None = None) -> AudioClip:
    """High-pass, optional noise reduction, trim to the voice, bring to -23 LUFS with peaks below -1 dBTP.

    Args:
        clip: Any channel count; mixed to mono.
        reduce_noise: Lower steady background noise; see `noise_reduced`.
        heard: What `hear` gave for the clip, when it was asked before.

    Returns:
        [1, M] at the clip's rate; M is 0 when no voice is heard.
    """
    heard = heard or hear(clip)
    mono, probability = heard.mono, heard.probability
    if reduce_noise:
        mono = noise_reduced(mono, probability)
    trimmed = _trimmed(mono, probability)
    if not trimmed.num_samples:
        return trimmed
    gain = 10.0 ** ((TARGET_LUFS - integrated_lufs(trimmed)) / 20.0)
    if not np.isfinite(gain):
        return AudioClip(trimmed.samples[:, :0], trimmed.sample_rate)
    samples = trimmed.samples * np.float32(gain)
    limiter = Limiter(trimmed.sample_rate, _CEILING_DBTP, 1)
    limited = np.concatenate([limiter.push(samples), limiter.flush()], axis=1)
    return AudioClip(
        np.ascontiguousarray(limited[:, limiter.latency_samples :][:, : samples.shape[1]]), clip.sample_rate
    )


def noise_reduced(mono: AudioClip, probability: FloatArray) -> AudioClip:
    """Lower steady noise by at most 18 dB, learnt from where nobody speaks.

    A Wiener gain with decision-directed a-priori SNR: it leaves no musical noise and needs no further package, while a
    learnt denoiser (a second large model) would also change the timbre that a voice is made of.

    Args:
        mono: [1, N].
        probability: What `hear` gave for it.

    Returns:
        The same shape; unchanged when there is no pause to learn the noise from.

    Source: Ephraim and Malah, "Speech enhancement using a minimum mean-square error short-time spectral amplitude
    estimator", IEEE TASSP 1984 (decision-directed estimate, equation 51).
    """
    from scipy import signal

    rate = mono.sample_rate
    size = 1 << int(np.ceil(np.log2(rate * _WINDOW_S)))
    if mono.num_samples < 4 * size:
        return mono
    hop = size // 4
    _, times, spectrum = signal.stft(mono.samples[0], rate, nperseg=size, noverlap=size - hop)
    silent = probability < 0.1
    for start, end in voiced_regions(probability):
        silent[max(start - 2, 0) : end + 2] = False
    quiet = silent[np.clip((times / FRAME_S).astype(np.int64), 0, len(probability) - 1)]
    if quiet.sum() * hop / rate < 0.3:
        return mono
    power = np.square(np.abs(spectrum))
    # The median of exponentially distributed power, turned into its mean: stray clicks and words do not count.
    noise = np.median(power[:, quiet], axis=1) / np.log(2.0) + 1e-14
    gains = _wiener_gains(power / noise[:, None])
    _, samples = signal.istft(spectrum * gains, rate, nperseg=size, noverlap=size - hop)
    out = np.zeros(mono.num_samples, dtype=np.float32)
    count = min(len(samples), len(out))
    out[:count] = samples[:count]
    return AudioClip(out[np.newaxis], rate)


def _wiener_gains(posterior: npt.NDArray[np.float64]) -> FloatArray:
    gains = np.empty(posterior.shape, dtype=np.float32)
    before = np.ones(posterior.shape[0])
    for index in range(posterior.shape[1]):
        prior = _SMOOTHING * before + (1.0 - _SMOOTHING) * np.maximum(posterior[:, index] - 1.0, 0.0)
        gain = np.maximum(prior / (1.0 + prior), _GAIN_FLOOR)
        gains[:, index] = gain
        before = np.square(gain) * posterior[:, index]
    return gains


def _trimmed(mono: AudioClip, probability: FloatArray) -> AudioClip:
    """The voice with 0.12 s around it; longer pauses become 0.4 s at most, every cut a fade of 10 ms."""
    rate, total = mono.sample_rate, mono.num_samples
    pad, fade = round(_PAD_S * rate), max(round(_FADE_S * rate), 1)
    spans: list[list[int]] = []
    for start, end in voiced_regions(probability):
        first = max(round(start * FRAME_S * rate) - pad, 0)
        last = min(round(end * FRAME_S * rate) + pad, total)
        if spans and first - spans[-1][1] < round((_LONGEST_GAP_S - 2 * _PAD_S) * rate):
            spans[-1][1] = last
        else:
            spans.append([first, last])
    ramp = np.linspace(0.0, 1.0, fade, dtype=np.float32)
    parts = []
    for first, last in spans:
        part = mono.samples[0, first:last].copy()
        if len(part) > 2 * fade:
            part[:fade] *= ramp
            part[-fade:] *= ramp[::-1]
        parts.append(part)
    joined = np.concatenate(parts) if parts else np.zeros(0, dtype=np.float32)
    return AudioClip(joined[np.newaxis], rate)
