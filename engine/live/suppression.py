"""Lowering steady noise (fans, hum, hiss) before conversion."""

import numpy as np

from engine.signal.clip import FloatArray


class NoiseSuppressor:
    """Steady noise is estimated per frequency and lowered by a Wiener gain.

    Chosen over a neural suppressor because it needs no further library or model, costs a few percent of a core, and
    leaves the voice's fine structure, which conversion reads, alone. The noise is the minimum of each frequency's
    smoothed power over 3 s, so that notes shorter than that are safe; through longer ones it is kept as it was, see
    `HeldNotes`. The gain follows the decision-directed
    signal-to-noise ratio and lowers by `MOST_DB` at most (white noise by 9 dB, measured). Frames are 20 ms long and
    5 ms apart, but only their last 10 ms are synthesised, so that the delay is 10 ms.

    Sources: Martin, "Noise Power Spectral Density Estimation Based on Optimal Smoothing and Minimum Statistics", IEEE
    TSAP 2001; Ephraim and Malah, IEEE TASSP 1984 (decision-directed approach); Mauler and Martin, "A low delay,
    variable resolution, perfect reconstruction spectral analysis-synthesis system", EUSIPCO 2007 (windows).
    """

    FRAME, HOP, SYNTHESIS = 960, 240, 480  # samples at 48 kHz
    MOST_DB = 18.0
    PARTS, PART, BIAS = 10, 60, 3.5  # the minimum is over 10 parts of 60 frames, and too low by about 5 dB
    LEARNING_S = 0.1

    latency_samples = SYNTHESIS

    def __init__(self) -> None:
        analysis, synthesis = _windows(self.FRAME, self.HOP)
        self._analysis, self._synthesis = analysis, synthesis
        self._frame = np.zeros(self.FRAME, dtype=np.float32)
        self._pending = np.zeros(0, dtype=np.float32)
        self._overlap = np.zeros(self.SYNTHESIS, dtype=np.float32)
        self._ready = np.zeros(self.SYNTHESIS - self.HOP, dtype=np.float32)
        bins = self.FRAME // 2 + 1
        self._smooth = self._noise = np.zeros(bins)
        self._minima = np.full((self.PARTS, bins), np.inf)
        self._clean = np.zeros(bins)
        self._frames = 0
        self._is_learning = True
        self._floor = 10 ** (-self.MOST_DB / 20)

    def push(self, samples: FloatArray, *, note_is_held: bool = False) -> FloatArray:
        """Give [N], take [N], delayed by `latency_samples`; while a note is held, no noise is learnt."""
        self._is_learning = not note_is_held
        self._pending = np.concatenate([self._pending, samples])
        done = [self._ready]
        while len(self._pending) >= self.HOP:
            self._frame = np.concatenate([self._frame[self.HOP :], self._pending[: self.HOP]])
            self._pending = self._pending[self.HOP :]
            done.append(self._step())
        ready = np.concatenate(done)
        self._ready = ready[len(samples) :]
        return ready[: len(samples)]

    def _step(self) -> FloatArray:
        spectrum = np.fft.rfft(self._frame * self._analysis)
        gain = self._gains(np.square(np.abs(spectrum)) + 1e-20)
        frame = np.fft.irfft(spectrum * gain, self.FRAME)[-self.SYNTHESIS :] * self._synthesis
        self._overlap = (self._overlap + frame).astype(np.float32)
        out = self._overlap[: self.HOP].copy()
        self._overlap = np.concatenate([self._overlap[self.HOP :], np.zeros(self.HOP, dtype=np.float32)])
        return out

    def _gains(self, power: np.ndarray) -> np.ndarray:
        if self._frames == 0:
            self._smooth = power
        self._smooth = 0.95 * self._smooth + 0.05 * power
        if self._is_learning:
            place, first = divmod(self._frames, self.PART)
            place %= len(self._minima)
            self._minima[place] = self._smooth if first == 0 else np.minimum(self._minima[place], self._smooth)
            self._frames += 1
            self._noise = self.BIAS * self._minima.min(axis=0)
        posterior = power / self._noise
        prior_ratio = 0.985 * self._clean / self._noise + 0.015 * np.maximum(posterior - 1, 0.0)
        gain = np.maximum(prior_ratio / (1 + prior_ratio), self._floor)
        self._clean = np.square(gain) * power
        return gain


class HeldNotes:
    """Tells from the pitch whether a note is held so long that it would pass for noise.

    That is from `FROM_S` of voiced sound without a break on, in which the gate is open, to `TO_S`: nobody's breath
    lasts longer, so what goes on is a hum.
    """

    FROM_S, TO_S = 1.0, 20.0

    def __init__(self) -> None:
        self._frames = 0

    def listen(self, f0_hz: FloatArray, gate_is_open: bool) -> None:
        """Count new frames in, 10 ms apart, NaN unvoiced."""
        for is_voiced in np.isfinite(f0_hz).tolist():
            self._frames = self._frames + 1 if is_voiced and gate_is_open else 0

    @property
    def is_held(self) -> bool:
        """Whether a note is held now."""
        return self.FROM_S <= 0.01 * self._frames < self.TO_S


def _windows(frame: int, hop: int) -> tuple[np.ndarray, np.ndarray]:
    """Analysis [frame] rising slowly and falling within 2 hops; synthesis [2 hop]; their product is a Hann window."""
    rise = np.sqrt(0.5 - 0.5 * np.cos(np.pi * (np.arange(frame - hop) + 0.5) / (frame - hop)))
    fall = np.sqrt(0.5 + 0.5 * np.cos(np.pi * (np.arange(hop) + 0.5) / hop))
    analysis = np.concatenate([rise, fall])
    hann = 0.5 - 0.5 * np.cos(np.pi * (np.arange(2 * hop) + 0.5) / hop)
    return analysis, hann / np.maximum(analysis[-2 * hop :], 1e-9)
