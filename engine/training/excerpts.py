"""What the decoder learns from: excerpts of a speaker, with prints of the same speaker's other recordings."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from engine.conversion.bands import (
    BAND_CENTRES_HZ,
    HOP_LENGTH,
    NUM_BANDS,
    NUM_SPEECH_BANDS,
    loudness,
    shifted,
)
from engine.conversion.decoder import CONDITION_SIZE, Conditioning, DecoderInputs
from engine.conversion.prints import ACTIVE_DB, PrintModel, PrintStatistics, estimate_prints, fit_print_model, pick
from engine.conversion.source import LoudnessReference, smooth_deviation
from engine.conversion.synthesis import Excitation
from engine.errors import TrainingError
from engine.signal.clip import FloatArray

SPECTRUM_LENGTH = 2048
SPECTRUM_BINS = SPECTRUM_LENGTH // 2 + 1
_WARM_UP_FRAMES = 10
_NEPER = 10.0 / np.log(10.0)


@dataclass(frozen=True)
class TrainingUtterance:
    """One recording, ready for excerpts.

    Attributes:
        speaker: Who speaks.
        envelope: [T, 72] float16.
        f0_hz: [T], NaN unvoiced.
        posteriors: [T, P] float16.
        loudness: [T].
        relative_loudness: [T].
        embedding: [256] of the recording.
        statistics: What the recording says of the speaker's prints.
        bandwidth_hz: What the recording holds.
        samples: [N] int16 at 48 kHz, memory-mapped.
    """

    speaker: str
    envelope: npt.NDArray[np.float16]
    f0_hz: FloatArray
    posteriors: npt.NDArray[np.float16]
    loudness: FloatArray
    relative_loudness: FloatArray
    embedding: FloatArray
    statistics: PrintStatistics
    bandwidth_hz: float
    samples: npt.NDArray[np.int16]


def make_utterance(
    speaker: str,
    envelope: FloatArray,
    f0_hz: FloatArray,
    posteriors: FloatArray,
    embedding: FloatArray,
    bandwidth_hz: float,
    samples: npt.NDArray[np.int16],
) -> TrainingUtterance:
    """Derive what training needs of one recording's frames."""
    num_frames = min(len(envelope), len(f0_hz), len(posteriors))
    envelope, f0_hz = envelope[:num_frames].astype(np.float32), f0_hz[:num_frames].astype(np.float32)
    level = loudness(envelope)
    relative, _ = LoudnessReference().push(level)
    active = (level > np.percentile(level, 95) - ACTIVE_DB / _NEPER) & (level > -60.0 / _NEPER)
    statistics = PrintStatistics(posteriors.shape[1])
    statistics.add(
        envelope,
        posteriors[:num_frames].astype(np.float32),
        np.isfinite(f0_hz),
        active=active,
        bandwidth_hz=bandwidth_hz,
    )
    statistics.gram = statistics.gram.astype(np.float32)  # thousands of recordings stay in memory
    statistics.sums = statistics.sums.astype(np.float32)
    return TrainingUtterance(
        speaker,
        envelope.astype(np.float16),
        f0_hz,
        posteriors[:num_frames].astype(np.float16),
        level,
        relative,
        embedding,
        statistics,
        bandwidth_hz,
        samples,
    )


def print_model_of(utterances: Sequence[TrainingUtterance], num_directions: int) -> PrintModel:
    """Fit the print model on the speakers of the utterances."""
    voices: dict[str, PrintStatistics] = {}
    for utterance in utterances:
        voice = voices.setdefault(utterance.speaker, PrintStatistics(utterance.statistics.sums.shape[1]))
        voice.include(utterance.statistics)
    return fit_print_model(list(voices.values()), num_directions=num_directions)


@dataclass(frozen=True)
class Batch:
    """Excerpts of a step.

    Attributes:
        inputs: Of the decoder.
        voice: Each excerpt's speaker as other recordings show him.
        envelope: [B, T, 72] what should come out.
        weight: [B, T, 72], 0 where the recording says nothing.
        power: [B, T, bins] of the recording; None when not asked for.
        pulses: [B, T, bins] of the pulses.
        audio: [B, (T - 1) * 480] of the recording, from frame 0 to the last; None when not asked for.
        excitation: Pulses and noise for the same stretch, [B, 2, T - 1, 480].
    """

    inputs: DecoderInputs
    voice: Conditioning
    envelope: torch.Tensor
    weight: torch.Tensor
    power: torch.Tensor | None
    pulses: torch.Tensor | None
    audio: torch.Tensor | None
    excitation: torch.Tensor | None

    def to(self, torch_device: str) -> "Batch":
        """The same on a device."""

        def moved(value: Any) -> Any:
            if isinstance(value, torch.Tensor):
                return value.to(torch_device, non_blocking=True)
            if isinstance(value, DecoderInputs | Conditioning):
                return replace(value, **{f.name: moved(getattr(value, f.name)) for f in fields(value)})
            return value

        return Batch(**{f.name: moved(getattr(self, f.name)) for f in fields(self)})


class Excerpts:
    """Draws batches.

    Args:
        utterances: The training set.
        model: Its print model.
        frames: Of an excerpt.

    Raises:
        TrainingError: No recording is long enough.
    """

    def __init__(self, utterances: Sequence[TrainingUtterance], model: PrintModel, frames: int) -> None:
        self._utterances = [u for u in utterances if len(u.f0_hz) >= 40]
        if not self._utterances:
            raise TrainingError("No recording is long enough to train the decoder.")
        self._model, self._frames = model, frames
        self._by_speaker: dict[str, list[int]] = defaultdict(list)
        for index, utterance in enumerate(self._utterances):
            self._by_speaker[utterance.speaker].append(index)
        # A speaker's chance grows with the root of what there is of them, so that few do not rule.
        chance = np.array([1.0 / np.sqrt(len(self._by_speaker[u.speaker])) for u in self._utterances])
        self._chance = chance / chance.sum()
        self._window = np.hanning(SPECTRUM_LENGTH + 1)[:-1].astype(np.float32)

    def draw(self, rng: np.random.Generator, count: int, *, with_spectrum: bool, with_audio: bool) -> Batch:
        """A batch of `count` excerpts; power spectra and audio only when asked for, as they cost time."""
        chosen = rng.choice(len(self._utterances), count, p=self._chance)
        rows = [self._excerpt(rng, int(index), with_spectrum, with_audio) for index in chosen]

        def column(name: str) -> torch.Tensor:
            return torch.from_numpy(np.stack([row[name] for row in rows]).astype(np.float32))

        return Batch(
            DecoderInputs(
                column("posteriors"),
                column("deviation"),
                column("f0_hz"),
                column("loudness"),
                column("relative_loudness"),
            ),
            Conditioning(
                column("embedding"),
                column("prints"),
                torch.zeros(count, CONDITION_SIZE),
                torch.zeros(count, 2, NUM_BANDS),
            ),
            column("envelope"),
            column("weight"),
            column("power") if with_spectrum else None,
            column("pulses") if with_spectrum else None,
            column("audio") if with_audio else None,
            column("excitation") if with_audio else None,
        )

    def _excerpt(
        self, rng: np.random.Generator, index: int, with_spectrum: bool, with_audio: bool
    ) -> dict[str, FloatArray]:
        num_frames = self._frames
        utterance = self._utterances[index]
        start = int(rng.integers(0, max(1, len(utterance.f0_hz) - num_frames)))
        part = slice(start, start + num_frames)

        def cut(values: npt.NDArray[Any], fill: float = 0.0) -> FloatArray:
            piece = values[part].astype(np.float32)
            pad = [(0, num_frames - len(piece))] + [(0, 0)] * (piece.ndim - 1)
            return np.pad(piece, pad, constant_values=fill)

        envelope, posteriors = cut(utterance.envelope, -23.0), cut(utterance.posteriors)
        f0_hz = cut(utterance.f0_hz, np.nan)
        level, relative = cut(utterance.loudness, -23.0), cut(utterance.relative_loudness, -12.0)
        prints, embedding = self._voice_elsewhere(rng, index)
        own = estimate_prints(utterance.statistics, self._model)
        deviation = self._deviation(rng, envelope, level, pick(own, posteriors, np.isfinite(f0_hz)))
        held = utterance.bandwidth_hz * 0.95 >= BAND_CENTRES_HZ
        heard = 1.0 / (1.0 + np.exp(-(relative + 6.0)))
        weight = (heard[:, None] * held).astype(np.float32)
        weight[:_WARM_UP_FRAMES] = 0.0
        row = {
            "posteriors": posteriors,
            "deviation": deviation,
            "f0_hz": np.nan_to_num(f0_hz),
            "loudness": level,
            "relative_loudness": relative,
            "embedding": embedding,
            "prints": prints,
            "envelope": envelope,
            "weight": weight,
        }
        if with_spectrum:
            half = SPECTRUM_LENGTH // 2
            first = start * HOP_LENGTH - half
            piece = self._audio(utterance.samples, first, (num_frames - 1) * HOP_LENGTH + SPECTRUM_LENGTH)
            row |= {"power": self._spectra(piece), "pulses": self._pulse_power(f0_hz)}
        if with_audio:
            excitation = Excitation(int(rng.integers(1 << 31)))
            excitation.push(f0_hz[:1])
            row |= {
                "audio": self._audio(utterance.samples, start * HOP_LENGTH, (num_frames - 1) * HOP_LENGTH),
                "excitation": np.stack(excitation.push(f0_hz[1:])),
            }
        return row

    def _voice_elsewhere(self, rng: np.random.Generator, index: int) -> tuple[FloatArray, FloatArray]:
        """Prints and embedding of the speaker from a few other recordings (this one where there is no other)."""
        others = [other for other in self._by_speaker[self._utterances[index].speaker] if other != index] or [index]
        count = int(rng.integers(1, 9))
        chosen = rng.choice(len(others), min(count, len(others)), replace=False)
        statistics = PrintStatistics(self._model.num_phones)
        embedding = np.zeros_like(self._utterances[index].embedding)
        for place in chosen:
            other = self._utterances[others[place]]
            statistics.include(other.statistics)
            embedding = embedding + other.embedding
        return estimate_prints(statistics, self._model), embedding / np.linalg.norm(embedding)

    def _deviation(
        self, rng: np.random.Generator, envelope: FloatArray, level: FloatArray, own: FloatArray
    ) -> FloatArray:
        """The source's deviation as another speaker's might be: warped, coloured, of any weight, at times absent."""
        if rng.random() < 0.25:
            return np.zeros((len(envelope), NUM_SPEECH_BANDS), np.float32)
        deviation = shifted(envelope - level[:, None] - own, float(rng.normal(0.0, 3.0)))[:, :NUM_SPEECH_BANDS]
        position = np.linspace(0.0, np.pi, NUM_SPEECH_BANDS)
        colour = sum(rng.normal(0.0, 0.5) * np.cos(order * position) for order in range(1, 9))
        return (smooth_deviation(deviation + colour) * rng.uniform(0.1, 0.8)).astype(np.float32)

    def _audio(self, samples: npt.NDArray[np.int16], first: int, count: int) -> FloatArray:
        """[count] float32 from sample `first` on, zeros before and after the recording."""
        piece = samples[max(first, 0) : max(first + count, 0)].astype(np.float32) / 32768.0
        piece = np.pad(piece, (max(-first, 0), 0))
        return np.pad(piece, (0, count - len(piece)))

    def _pulse_power(self, f0_hz: FloatArray) -> FloatArray:
        around = SPECTRUM_LENGTH // HOP_LENGTH // 2 + 1
        padded = np.concatenate([np.repeat(f0_hz[:1], around), f0_hz, np.repeat(f0_hz[-1:], around)])
        pulses, _ = Excitation().push(padded)
        audio = pulses.reshape(-1)  # hop j ends at frame j of the padded contour
        first = (around + 1) * HOP_LENGTH - SPECTRUM_LENGTH // 2
        return self._spectra(audio[first : first + (len(f0_hz) - 1) * HOP_LENGTH + SPECTRUM_LENGTH])

    def _spectra(self, audio: FloatArray) -> FloatArray:
        """[T, bins] power, scaled so that white noise of variance 1 lies at 1."""
        frames = np.lib.stride_tricks.sliding_window_view(audio, SPECTRUM_LENGTH)[::HOP_LENGTH]
        spectra = torch.fft.rfft(torch.from_numpy(frames * self._window)).abs().square()
        return (spectra / float(np.square(self._window).sum())).numpy()
