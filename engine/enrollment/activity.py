"""Where somebody speaks or sings: silero-vad's own model for speech, pitch and pure harmonics for song."""

import functools
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.errors import ModelError
from engine.signal import AudioClip, FloatArray, resample

RATE = 16_000
FRAME = 512  # samples, 32 ms
FRAME_S = FRAME / RATE
_CONTEXT = 64
_FRAMES_A_CALL = 512
_ON, _OFF = 0.5, 0.35
_SHORTEST_VOICE_S, _SHORTEST_GAP_S = 0.2, 0.25
_HIGH_PASS_HZ = 60.0

_STFT, _STFT_HOP = 1024, 160  # 10 ms, the pitch grid
_BAND_HZ = (80.0, 4000.0)
_SUNG_PERIODICITY, _SUNG_PURITY, _SUNG_BELOW_LOUD_DB = 0.9, 0.8, 30.0


@dataclass(frozen=True, eq=False)
class Heard:
    """What was heard in a recording, before any judgement.

    Attributes:
        mono: The recording without rumble, [1, N].
        probability: [T] float32: how likely a voice is heard in the 32 ms from t * FRAME_S.
        f0_hz: [M] float32: the pitch of voiced 10 ms frames within the voice.
        purity: Median share of the power between 80 Hz and 4 kHz that lies on harmonics of that pitch, beyond chance:
            a voice alone gives 0.8 to 1, music beside it under 0.7; 1 when there is no pitch.
    """

    mono: AudioClip
    probability: FloatArray
    f0_hz: FloatArray
    purity: float

    @property
    def regions(self) -> list[tuple[int, int]]:
        """Stretches of voice as [start, end) frames, after hysteresis, with short gaps closed and clicks dropped."""
        return voiced_regions(self.probability)


def hear(clip: AudioClip) -> Heard:
    """Listen for a voice, spoken or sung.

    Speech detectors take long sung vowels for music, so frames with a sure pitch and nearly all power on its harmonics
    count as voice too; a chord or a band has more than one pitch and fails that.

    Args:
        clip: Any rate and channel count.

    Raises:
        ModelError: silero-vad is not installed whole.
    """
    from engine.pitch import estimate_f0

    mono = high_passed(clip.mono())
    if mono.num_samples < FRAME:
        nothing = np.zeros(0, dtype=np.float32)
        return Heard(mono, nothing, nothing, 1.0)
    at_16k = resample(mono, RATE)
    spoken = speech_probability(at_16k)
    contour = estimate_f0(at_16k, tracker="swift")
    purity, level_db = _harmonic_purity(at_16k, contour.f0_hz)
    length = len(purity)
    loud = level_db > np.percentile(level_db, 95) - _SUNG_BELOW_LOUD_DB
    voiced = np.isfinite(contour.f0_hz[:length]) & loud
    sung = voiced & (contour.periodicity[:length] >= _SUNG_PERIODICITY) & (purity >= _SUNG_PURITY)
    probability = np.maximum(spoken, _on_frames(sung, len(spoken)))
    inside = voiced & (probability[_frame_of(length, len(probability))] >= _ON)
    return Heard(
        mono=mono,
        probability=probability,
        f0_hz=contour.f0_hz[:length][inside],
        purity=float(np.median(purity[inside])) if inside.any() else 1.0,
    )


def speech_probability(clip: AudioClip) -> FloatArray:
    """How likely speech is heard, frame by frame.

    Args:
        clip: Mono, 16 kHz.

    Returns:
        [T] float32 in [0, 1]; frame t covers 32 ms from t * FRAME_S.

    Raises:
        ModelError: silero-vad is not installed whole.

    Source: the "sequence" export of silero-vad 6.2 (MIT); framing as in its sequence_vad.py.
    """
    samples = clip.samples[0]
    frames = -(-len(samples) // FRAME)
    padded = np.zeros(_CONTEXT + frames * FRAME, dtype=np.float32)
    padded[_CONTEXT : _CONTEXT + len(samples)] = samples
    windows = np.lib.stride_tricks.sliding_window_view(padded, _CONTEXT + FRAME)[::FRAME]
    hidden = cell = np.zeros((1, 1, 128), dtype=np.float32)
    session, found = _session(), []
    for start in range(0, frames, _FRAMES_A_CALL):
        block = np.ascontiguousarray(windows[start : start + _FRAMES_A_CALL])
        values, hidden, cell = session.run(["speech_probs", "hn", "cn"], {"input": block, "h": hidden, "c": cell})
        found.append(np.asarray(values, dtype=np.float32).reshape(-1))
    return np.concatenate(found) if found else np.zeros(0, dtype=np.float32)


def voiced_regions(probability: FloatArray) -> list[tuple[int, int]]:
    """See `Heard.regions`."""
    active = np.zeros(len(probability), dtype=bool)
    on = False
    for index, value in enumerate(probability.tolist()):
        on = value >= (_OFF if on else _ON)
        active[index] = on
    regions: list[tuple[int, int]] = []
    for start, end in runs(active):
        if regions and (start - regions[-1][1]) * FRAME_S < _SHORTEST_GAP_S:
            regions[-1] = (regions[-1][0], end)
        else:
            regions.append((start, end))
    return [(start, end) for start, end in regions if (end - start) * FRAME_S >= _SHORTEST_VOICE_S]


def runs(mask: npt.NDArray[np.bool_]) -> list[tuple[int, int]]:
    """[start, end) of every stretch of True."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], mask, [False])).astype(np.int8)))
    return [(int(start), int(end)) for start, end in zip(edges[::2], edges[1::2], strict=True)]


def take_regions(clip: AudioClip, regions: list[tuple[int, int]]) -> AudioClip:
    """The stretches of a clip that lie in some frames, one after the other."""
    rate = clip.sample_rate
    parts = [clip.samples[:, round(start * FRAME_S * rate) : round(end * FRAME_S * rate)] for start, end in regions]
    samples = np.concatenate(parts, axis=1) if parts else clip.samples[:, :0]
    return AudioClip(np.ascontiguousarray(samples), rate)


def high_passed(clip: AudioClip) -> AudioClip:
    """Without rumble: 4th order Butterworth from 60 Hz, run both ways so that nothing is delayed."""
    from scipy import signal

    if clip.num_samples < 64:
        return clip
    sections = _high_pass_sections(clip.sample_rate)
    samples = signal.sosfiltfilt(sections, clip.samples, axis=1, padlen=min(clip.num_samples - 1, 2048))
    return AudioClip(np.ascontiguousarray(samples, dtype=np.float32), clip.sample_rate)


@functools.lru_cache(maxsize=8)
def _high_pass_sections(sample_rate: int) -> npt.NDArray[np.float64]:
    from scipy import signal

    return np.asarray(signal.butter(4, _HIGH_PASS_HZ, "highpass", fs=sample_rate, output="sos"))


def _harmonic_purity(clip: AudioClip, f0_hz: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Per 10 ms frame: share of the power on harmonics beyond chance (0 when unvoiced), and the power in dB."""
    from scipy import signal

    _, _, spectrum = signal.stft(clip.samples[0], RATE, nperseg=_STFT, noverlap=_STFT - _STFT_HOP)
    length = min(spectrum.shape[1], len(f0_hz))
    bins = np.arange(spectrum.shape[0], dtype=np.float32) * np.float32(RATE / _STFT)
    band = (bins >= _BAND_HZ[0]) & (bins <= _BAND_HZ[1])
    power = np.square(np.abs(spectrum[band, :length]))
    total = power.sum(axis=0) + 1e-14
    purity = np.zeros(length, dtype=np.float32)
    voiced = np.flatnonzero(np.isfinite(f0_hz[:length]))
    for start in range(0, len(voiced), 4096):
        frames = voiced[start : start + 4096]
        f0, frequencies = f0_hz[frames], bins[band][:, None]
        number = np.maximum(np.round(frequencies / f0), 1.0)
        near = np.abs(frequencies - number * f0) < 1.5 * RATE / _STFT
        chance = near.mean(axis=0)
        share = (power[:, frames] * near).sum(axis=0) / total[frames]
        purity[frames] = (share - chance) / np.maximum(1.0 - chance, 0.05)
    return purity, (10.0 * np.log10(total)).astype(np.float32)


def _frame_of(num_pitch_frames: int, num_frames: int) -> npt.NDArray[np.int64]:
    times = np.arange(num_pitch_frames) * (_STFT_HOP / RATE)
    return np.minimum((times / FRAME_S).astype(np.int64), num_frames - 1)


def _on_frames(mask: npt.NDArray[np.bool_], num_frames: int) -> FloatArray:
    """Share of True among the 10 ms frames of each 32 ms frame, [num_frames]."""
    place = _frame_of(len(mask), num_frames)
    counts = np.bincount(place, minlength=num_frames)
    hits = np.bincount(place, weights=mask, minlength=num_frames)
    return (hits / np.maximum(counts, 1)).astype(np.float32)


@functools.lru_cache(maxsize=1)
def _session() -> Any:
    import onnxruntime

    # Found without importing the package, which would import torch.
    spec = importlib.util.find_spec("silero_vad")
    folders = list(spec.submodule_search_locations or []) if spec else []
    path = Path(folders[0]) / "data" / "silero_vad_16k_sequence.onnx" if folders else None
    if path is None or not path.is_file():
        raise ModelError("The voice detector is missing.", hint="Install AutoVoice again: silero-vad is incomplete.")
    options = onnxruntime.SessionOptions()
    options.inter_op_num_threads = options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), sess_options=options, providers=["CPUExecutionProvider"])
