"""Speech of our own making: a small formant synthesiser, so that tests of shipped models need no recordings.

Source: the cascade of resonators of Klatt, "Software for a cascade/parallel formant synthesizer", JASA 1980.
"""

import numpy as np
import scipy.signal

from engine.signal.clip import AudioClip

RATE = 24000
# Phone: F1, F2, F3 in Hz, voicing 0-1, frication's centre in Hz (0: none), frication's level.
PHONES = {
    "a": (730, 1250, 2600, 1.0, 0, 0.0),
    "e": (530, 1850, 2500, 1.0, 0, 0.0),
    "i": (290, 2250, 3000, 1.0, 0, 0.0),
    "o": (500, 900, 2450, 1.0, 0, 0.0),
    "u": (320, 850, 2300, 1.0, 0, 0.0),
    "m": (260, 1100, 2200, 0.35, 0, 0.0),
    "n": (260, 1550, 2400, 0.35, 0, 0.0),
    "l": (370, 1050, 2850, 0.6, 0, 0.0),
    "r": (420, 1250, 1650, 0.6, 0, 0.0),
    "s": (300, 1700, 2600, 0.0, 6500, 0.5),
    "S": (300, 1800, 2500, 0.0, 3200, 0.6),
    "z": (300, 1700, 2600, 0.35, 6500, 0.3),
    "f": (300, 1100, 2300, 0.0, 5000, 0.15),
    "t": (300, 1700, 2600, 0.0, 4500, 0.0),
    "k": (300, 1900, 2400, 0.0, 2200, 0.0),
    ".": (500, 1500, 2500, 0.0, 0, 0.0),
}
_BURSTS = "tk"


def speak(
    phones: str, *, f0_hz: float, formants: float = 1.0, tilt: float = 0.9, seed: int = 0
) -> tuple[AudioClip, np.ndarray]:
    """Say phones of `PHONES`, 110 ms each.

    Args:
        phones: What to say; "." is a pause.
        f0_hz: Middle of the pitch, which falls by a fifth over each phrase and moves a little.
        formants: Scales the resonances: a shorter or longer vocal tract.
        tilt: Of the glottal source, 0 bright to 1 dull.
        seed: Of noise and movements.

    Returns:
        The clip [1, N], and its F0 every 10 ms, NaN where unvoiced.
    """
    rng = np.random.default_rng(seed)
    size = int(0.11 * RATE)
    hop = size // 11
    table = np.array([PHONES[phone] for phone in phones])
    frames = np.repeat(table, 11, axis=0)
    smoothed = (
        scipy.signal.convolve(np.pad(frames, ((3, 3), (0, 0)), mode="edge"), np.hanning(9)[1:-1, None], "valid") / 4
    )
    resonances = smoothed[:, :3] * formants
    voicing = smoothed[:, 3]
    time = np.arange(len(frames)) * 0.01
    f0 = f0_hz * 2 ** (0.12 * np.cos(2 * np.pi * time / 1.7) + 0.02 * np.sin(2 * np.pi * 5.1 * time))
    at = np.arange(len(frames) * hop) / hop
    phase = np.cumsum(np.interp(at, np.arange(len(f0)), f0)) / RATE
    pulses = np.diff(np.floor(phase), prepend=0.0)
    glottal = scipy.signal.lfilter([1.0, -1.0], [1.0, -1.8 * tilt, 0.81 * tilt**2], pulses)
    glottal *= np.interp(at, np.arange(len(f0)), voicing)
    breath = rng.standard_normal(len(glottal))
    voiced = glottal + 0.01 * breath * np.interp(at, np.arange(len(f0)), voicing)
    samples = _resonate(voiced, resonances, hop)
    samples *= 0.25 / max(np.abs(samples).max(), 1e-9)
    samples += _fricatives(phones, breath, formants, size)
    f0_of_frames = np.where(voicing > 0.3, f0, np.nan)
    return AudioClip(samples.astype(np.float32)[None], RATE), f0_of_frames


def _resonate(source: np.ndarray, resonances: np.ndarray, hop: int) -> np.ndarray:
    """Three moving resonators and two fixed ones in cascade."""
    output = source
    fixed = np.full(len(resonances), resonances[:, 2].mean() * 1.4)
    for order, track in enumerate((*resonances.T, fixed, fixed * 1.3)):
        state, pieces = np.zeros(2), []
        for index, hz in enumerate(track):
            radius = np.exp(-np.pi * (60 + 40 * order) / RATE)
            a1, a2 = -2 * radius * np.cos(2 * np.pi * hz / RATE), radius**2
            piece = output[index * hop : (index + 1) * hop]
            filtered, state = scipy.signal.lfilter([1 + a1 + a2], [1.0, a1, a2], piece, zi=state)
            pieces.append(filtered)
        output = np.concatenate(pieces)
    return output


def _fricatives(phones: str, breath: np.ndarray, formants: float, size: int) -> np.ndarray:
    samples = np.zeros_like(breath)
    for index, phone in enumerate(phones):
        centre, level = PHONES[phone][4:]
        if not centre:
            continue
        part = slice(index * size, (index + 1) * size)
        coloured = scipy.signal.lfilter(*scipy.signal.iirpeak(centre * formants**0.5, 1.5, fs=RATE), breath[part])
        shape = np.hanning(size)
        if phone in _BURSTS:
            shape = np.where(
                np.arange(size) > 0.6 * size, np.exp(-(np.arange(size) - 0.6 * size) / (0.012 * RATE)), 0.0
            )
            level = 0.25
        samples[part] = 0.12 * level * shape * coloured
    return samples
