"""Test signals as clips; tests.fakes has them as plain arrays."""

import numpy as np

from engine.signal import AudioClip


def tone(hz=220.0, seconds=1.0, sample_rate=16000, *, channels=1, level=0.5):
    """A sine, the same in every channel."""
    time_s = np.arange(round(seconds * sample_rate)) / sample_rate
    wave = (level * np.sin(2 * np.pi * hz * time_s)).astype(np.float32)
    return AudioClip(np.tile(wave, (channels, 1)), sample_rate)


def sweep(start_hz=110.0, end_hz=440.0, seconds=2.0, sample_rate=16000, *, level=0.5, harmonics=1):
    """A sine, or a sum of harmonics falling by 1/n, whose pitch glides exponentially."""
    time_s = np.arange(round(seconds * sample_rate)) / sample_rate
    growth = np.log(end_hz / start_hz) / seconds
    phase = 2 * np.pi * start_hz * np.expm1(growth * time_s) / growth
    wave = sum(np.sin(k * phase) / k for k in range(1, harmonics + 1)) / sum(1 / k for k in range(1, harmonics + 1))
    return AudioClip((level * wave).astype(np.float32)[None], sample_rate)


def noise(seed=0, seconds=1.0, sample_rate=16000, *, channels=1, level=0.1):
    """White noise of a given standard deviation."""
    generator = np.random.default_rng(seed)
    return AudioClip(
        (level * generator.standard_normal((channels, round(seconds * sample_rate)))).astype(np.float32), sample_rate
    )
