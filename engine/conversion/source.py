"""What conversion reads from the source: aligned frames of envelope and phones, and its own colour of each phone."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np
import numpy.typing as npt
import scipy.signal

from engine.conversion.bands import (
    HOP_LENGTH,
    LOOKAHEAD_SAMPLES,
    NUM_BANDS,
    NUM_SPEECH_BANDS,
    SAMPLE_RATE,
    WINDOW_LENGTH,
    loudness,
    shifted,
)
from engine.conversion.prints import (
    PrintModel,
    PrintStatistics,
    estimate_prints,
    estimating_prints,
    formant_distance,
    pick,
)
from engine.signal.clip import FloatArray

CONTENT_RATE = 16000
_DECIMATION = SAMPLE_RATE // CONTENT_RATE
_DECIMATOR_TAPS = 145
DECIMATOR_LATENCY_SAMPLES = (_DECIMATOR_TAPS - 1) // 2

_UPDATE_FRAMES, _STEP_FRAMES = 50, 5  # a renewal of the prints, and one of the steps that it takes
MAX_COUNTED_FRAMES = 6000.0  # a minute
DEVIATION_LIMIT = 5.0
_KEPT_COSINES = 20
DEVIATION_WEIGHT = np.float32(0.6)
_ABSOLUTE_SILENCE = -13.8  # natural log of power, -60 dBFS
_ACTIVE_BELOW_MEAN = 4.0  # natural log of power, 17 dB
_MEAN_FRAMES = 400


class PhoneStream(Protocol):
    """The content encoder over audio at 16 kHz as it comes; frame t is centred at sample 160 t."""

    latency_samples: int

    def push(self, samples: FloatArray) -> FloatArray:
        """[N] at 16 kHz to the posteriors [T, P] that are final."""


def decimation_taps() -> FloatArray:
    """[145]: the filter from 48 to 16 kHz, symmetric."""
    return np.asarray(scipy.signal.firwin(_DECIMATOR_TAPS, 7600, fs=SAMPLE_RATE, window=("kaiser", 6.0)), np.float32)


class Decimator:
    """48 kHz to 16 kHz by a symmetric filter; output sample n is centred at input sample 3 n."""

    def __init__(self) -> None:
        self._taps = decimation_taps()
        self._kept = np.zeros(DECIMATOR_LATENCY_SAMPLES, np.float32)

    def push(self, samples: FloatArray) -> FloatArray:
        """[N] to about N / 3 samples; each needs 72 input samples that follow it."""
        joined = np.concatenate([self._kept, samples])
        count = (len(joined) - _DECIMATOR_TAPS) // _DECIMATION + 1
        if count <= 0:
            self._kept = joined
            return np.zeros(0, np.float32)
        self._kept = joined[count * _DECIMATION :].copy()
        return np.convolve(joined, self._taps, "valid")[::_DECIMATION][:count]


class FrameReader:
    """Cuts audio at 48 kHz into frames that are ready: their window of audio and their posteriors.

    Args:
        content: A fresh stream of the content encoder.
    """

    def __init__(self, content: PhoneStream) -> None:
        self._content = content
        self._decimator = Decimator()
        self._audio = np.zeros(LOOKAHEAD_SAMPLES, np.float32)  # begins where the window of the next frame does
        self._posteriors: FloatArray | None = None

    @staticmethod
    def lookahead_samples(content_latency_samples: int) -> int:
        """Frame t is ready once 480 t plus so many samples have come, 48 kHz."""
        through_content = DECIMATOR_LATENCY_SAMPLES + _DECIMATION * content_latency_samples
        return max(LOOKAHEAD_SAMPLES, through_content)

    @property
    def num_ready(self) -> int:
        """Frames ready to take."""
        windows = (len(self._audio) - WINDOW_LENGTH) // HOP_LENGTH + 1
        return max(0, min(windows, 0 if self._posteriors is None else len(self._posteriors)))

    def push(self, samples: FloatArray) -> None:
        """Add [N] samples at 48 kHz."""
        self._audio = np.concatenate([self._audio, samples])
        posteriors = self._content.push(self._decimator.push(samples))
        if len(posteriors):
            kept = self._posteriors
            self._posteriors = posteriors if kept is None else np.concatenate([kept, posteriors])

    def take(self, num_frames: int) -> tuple[FloatArray, FloatArray]:
        """Take ready frames: audio for `band_levels` [(T - 1) * 480 + 1024], posteriors [T, P]."""
        assert self._posteriors is not None
        audio = self._audio[: (num_frames - 1) * HOP_LENGTH + WINDOW_LENGTH]
        posteriors = self._posteriors[:num_frames]
        self._audio = self._audio[num_frames * HOP_LENGTH :].copy()
        self._posteriors = self._posteriors[num_frames:].copy()
        return audio, posteriors


class LoudnessReference:
    """The running mean loudness of the active frames, over some four seconds."""

    def __init__(self) -> None:
        self._mean = 0.0
        self._count = 0

    def push(self, levels: FloatArray) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
        """Follow frames.

        Args:
            levels: [T] loudness, natural log of power.

        Returns:
            [T] loudness above the mean so far, and [T] bool, whether the frame is active rather than a pause.
        """
        relative = np.empty(len(levels), np.float32)
        active = np.zeros(len(levels), np.bool_)
        for index, level in enumerate(levels.astype(np.float64)):
            if level > _ABSOLUTE_SILENCE and (not self._count or level > self._mean - _ACTIVE_BELOW_MEAN):
                self._count = min(self._count + 1, _MEAN_FRAMES)
                self._mean += (level - self._mean) / self._count
                active[index] = True
            relative[index] = level - self._mean if self._count else -12.0
        return relative, active


@dataclass(frozen=True)
class SourceFrames:
    """What the decoder reads of the source.

    Attributes:
        posteriors: [T, P] of the phones.
        deviation: [T, NUM_SPEECH_BANDS], from the source's own print of the phone, weighted.
        shape: [T, NUM_SPEECH_BANDS] the source's envelope without its loudness.
        loudness: [T].
        relative_loudness: [T].
    """

    posteriors: FloatArray
    deviation: FloatArray
    shape: FloatArray
    loudness: FloatArray
    relative_loudness: FloatArray


def _smoothing_matrix() -> FloatArray:
    """[44, 44]: keeps the slowest cosines along the bands, so that no single harmonic of the source shows through."""
    order, band = np.arange(_KEPT_COSINES)[:, None], np.arange(NUM_SPEECH_BANDS)[None, :]
    cosines = np.cos(np.pi * order * (band + 0.5) / NUM_SPEECH_BANDS) * np.sqrt(2.0 / NUM_SPEECH_BANDS)
    cosines[0] /= np.sqrt(2.0)
    return (cosines.T @ cosines).astype(np.float32)


SMOOTHING = _smoothing_matrix()


def smooth_deviation(deviation: FloatArray, semitones: float = 0.0) -> FloatArray:
    """What the decoder sees of deviations [T, NUM_SPEECH_BANDS]: without fine structure, bounded, moved up or down."""
    smooth = np.clip(deviation @ SMOOTHING, -DEVIATION_LIMIT, DEVIATION_LIMIT).astype(np.float32)
    return moved_deviation(smooth, semitones)


def moved_deviation(deviation: FloatArray, semitones: float) -> FloatArray:
    """Move deviations [T, NUM_SPEECH_BANDS] along the frequency axis; beyond their last band that one goes on."""
    if semitones == 0.0:
        return deviation
    return deviation @ _movement(semitones)


@lru_cache(maxsize=4)
def _movement(semitones: float) -> FloatArray:
    """[44, 44]: moves speech bands up or down, the highest going on above."""
    padded = np.pad(
        np.eye(NUM_SPEECH_BANDS, dtype=np.float32), ((0, 0), (0, NUM_BANDS - NUM_SPEECH_BANDS)), mode="edge"
    )
    return shifted(padded, semitones)[:, :NUM_SPEECH_BANDS]


class SourceColour:
    """Knows the source's own phone prints, so that they can be taken away: from before, or learnt while it is heard.

    Args:
        model: What is known of voices beforehand.
        primed: Statistics of the source heard earlier, if any: then the prints are settled.
    """

    def __init__(self, model: PrintModel, primed: PrintStatistics | None = None) -> None:
        self._model = model
        self._statistics = PrintStatistics(model.num_phones)
        self._is_settled = primed is not None
        self._prints = estimate_prints(primed or self._statistics, model)
        self._wanted: FloatArray | None = None
        self._formant_semitones = 0.0
        self._reference = LoudnessReference()
        self._index = 0
        self._renewal: Iterator[FloatArray | None] = iter(())
        self._is_formant_due = False

    def aim_at(self, prints: FloatArray) -> None:
        """Move the deviations from here on to where a wanted voice of these prints has its formants."""
        self._wanted = prints
        self._formant_semitones = formant_distance(self._prints, prints)

    def push(self, envelope: FloatArray, posteriors: FloatArray, f0_hz: FloatArray) -> SourceFrames:
        """Describe frames [T, 72], [T, P], [T]; what is learnt counts from every half second on, however grouped."""
        level = loudness(envelope)
        relative, active = self._reference.push(level)
        voiced = np.isfinite(f0_hz)
        shape = envelope - level[:, None]
        speech_shape = shape[:, :NUM_SPEECH_BANDS]
        deviation = np.empty_like(speech_shape)
        start = 0
        while start < len(level):
            end = len(level)
            if not self._is_settled:
                end = min(end, start + _STEP_FRAMES - self._index % _STEP_FRAMES)
            part = slice(start, end)
            own = pick(self._prints, posteriors[part], voiced[part])[:, :NUM_SPEECH_BANDS]
            deviation[part] = smooth_deviation(speech_shape[part] - own, self._formant_semitones)
            if not self._is_settled:
                self._learn(shape[part], posteriors[part], voiced[part], active[part])
            start = end
        return SourceFrames(posteriors, deviation * DEVIATION_WEIGHT, speech_shape, level, relative)

    def _learn(
        self, shape: FloatArray, posteriors: FloatArray, voiced: npt.NDArray[np.bool_], active: npt.NDArray[np.bool_]
    ) -> None:
        self._statistics.add_shapes(shape, posteriors, voiced, active=active, bandwidth_hz=SAMPLE_RATE / 2)
        self._index += len(shape)
        if self._index % _STEP_FRAMES == 0:
            self._renew_a_little()

    def _renew_a_little(self) -> None:
        """Go on renewing the prints, or begin anew: step by step, so that no block of a live stream takes all of it."""
        if self._index % _UPDATE_FRAMES == 0:
            self._statistics.forget_beyond(MAX_COUNTED_FRAMES)
            self._renewal = estimating_prints(self._statistics, self._model)
        elif self._is_formant_due:
            self._is_formant_due = False
            if self._wanted is not None:
                self._formant_semitones = formant_distance(self._prints, self._wanted)
        prints = next(self._renewal, None)
        if prints is not None:
            self._prints, self._is_formant_due = prints, True
