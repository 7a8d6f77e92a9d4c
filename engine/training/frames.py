"""What the speaker and decoder stages learn from: envelopes, F0 and teacher embeddings of utterances, cached once."""

import logging
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import soxr

from engine.conversion.bands import HOP_LENGTH, NUM_SPEECH_BANDS, SAMPLE_RATE, WINDOW_LENGTH, band_levels
from engine.signal.clip import AudioClip, FloatArray
from engine.training.cache import ArrayCache, AudioCache
from engine.training.config import Orders
from engine.training.manifest import Utterance, read_manifest, with_speeds

if TYPE_CHECKING:
    from engine.training.ge2e import Ge2e

_log = logging.getLogger(__name__)

MAX_SECONDS = 12.0  # of one utterance
_TEACHER_SECONDS = 4.8  # three of the windows of 1.6 s that it was trained on


@dataclass(frozen=True)
class Frames:
    """One utterance, analysed.

    Attributes:
        envelope: [T, 72] float16 band levels; see engine.conversion.bands.
        raw: [T, NUM_SPEECH_BANDS] float16, the same unsmoothed.
        f0_hz: [T] float32, NaN where unvoiced.
    """

    envelope: npt.NDArray[np.float16]
    raw: npt.NDArray[np.float16]
    f0_hz: FloatArray


def choose(
    utterances: Sequence[Utterance], seconds_per_speaker: dict[str, float], *, default_s: float, seed: int = 0
) -> list[Utterance]:
    """A fair sample: up to so many seconds of each speaker, by set, in an order that mixes all speakers.

    Args:
        utterances: What there is.
        seconds_per_speaker: Most seconds of one speaker, by set; a set at 0 is left out.
        default_s: For sets not named.
        seed: Of the order.
    """
    order = np.random.default_rng(seed).permutation(len(utterances))
    taken: dict[str, float] = defaultdict(float)
    chosen = []
    for index in order:
        utterance = utterances[index]
        limit = seconds_per_speaker.get(utterance.set_name, default_s)
        if utterance.seconds >= 0.5 and taken[utterance.speaker] < limit:
            taken[utterance.speaker] += min(utterance.seconds, MAX_SECONDS)
            chosen.append(utterance)
    return chosen


def chosen_and_measured(
    orders: Orders,
    seconds_per_speaker: dict[str, float],
    default_s: float,
    workers: int,
    speeds: Sequence[float] = (),
) -> tuple[list[Utterance], list[Utterance]]:
    """What a stage learns from (see `with_speeds`) and every third of the dev split, all of them analysed."""
    spoken = choose(read_manifest(orders.corpus, "train"), seconds_per_speaker, default_s=default_s)
    chosen = with_speeds(spoken, speeds)
    measured = read_manifest(orders.corpus, "dev")[::3]
    FrameCache(orders.cache).prepare([*chosen, *measured], workers)
    return chosen, measured


class FrameCache:
    """Analyses of utterances.

    Args:
        folder: The cache folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._audio = AudioCache(folder, SAMPLE_RATE)
        self._envelope = ArrayCache(folder, "envelope")
        self._raw = ArrayCache(folder, "raw-bands")
        self._f0 = ArrayCache(folder, "f0")
        self._teacher = ArrayCache(folder, "ge2e")

    def has(self, utterance: Utterance) -> bool:
        """Whether everything of the utterance is there."""
        return all(utterance.key in cache for cache in (self._teacher, self._envelope, self._raw, self._f0))

    def stored_samples(self, utterance: Utterance) -> npt.NDArray[np.int16]:
        """[N] int16 at 48 kHz, memory-mapped, at most MAX_SECONDS."""
        return self._audio.samples(utterance)[: int(MAX_SECONDS * SAMPLE_RATE)]

    def samples(self, utterance: Utterance) -> FloatArray:
        """[N] float32 at 48 kHz, at most MAX_SECONDS."""
        return self.stored_samples(utterance).astype(np.float32) / 32768.0

    def frames(self, utterance: Utterance) -> Frames:
        """The analysis of an utterance; made by `prepare`.

        Raises:
            TrainingError: It was not prepared.
        """
        key = utterance.key
        envelope = self._envelope.read(key, memory_mapped=False)
        raw = self._raw.read(key, memory_mapped=False)
        f0_hz = self._f0.read(key, memory_mapped=False)
        return Frames(envelope.astype(np.float16), raw.astype(np.float16), f0_hz.astype(np.float32))

    def teacher_embedding(self, utterance: Utterance) -> FloatArray:
        """[256] float32 GE2E embedding of the utterance's first seconds, of unit length."""
        return self._teacher.read(utterance.key, memory_mapped=False).astype(np.float32)

    def prepare(self, utterances: Sequence[Utterance], workers: int) -> None:
        """Analyse what is missing, in `workers` processes."""
        todo = [utterance for utterance in utterances if not self.has(utterance)]
        parts = [todo[start : start + 20] for start in range(0, len(todo), 20)]
        with ProcessPoolExecutor(max(workers, 1)) as pool:
            for done, _ in enumerate(pool.map(_prepare_part, parts, [self.folder] * len(parts)), start=1):
                _log.info("%d of %d parts analysed", done, len(parts))

    def make(self, utterance: Utterance, teacher: "Ge2e") -> None:
        """Analyse one utterance and store the result."""
        samples = self.samples(utterance)
        f0_hz, (envelope, raw) = analyse(samples)
        self._envelope.write(utterance.key, envelope.astype(np.float16))
        self._raw.write(utterance.key, raw[:, :NUM_SPEECH_BANDS].astype(np.float16))
        self._f0.write(utterance.key, f0_hz)
        excerpt = soxr.resample(samples[: int(_TEACHER_SECONDS * SAMPLE_RATE)], SAMPLE_RATE, 16000)
        self._teacher.write(utterance.key, teacher.embed(excerpt))


def analyse(samples: FloatArray) -> tuple[FloatArray, tuple[FloatArray, FloatArray]]:
    """F0 and band levels of a whole recording at 48 kHz: [T], ([T, 72], [T, 72]), T = 1 + N // 480."""
    from engine.pitch import estimate_f0

    num_frames = 1 + len(samples) // HOP_LENGTH
    contour = estimate_f0(AudioClip(samples[None], SAMPLE_RATE), tracker="swift")
    f0_hz = contour.at(np.arange(num_frames) * HOP_LENGTH / SAMPLE_RATE).astype(np.float32)
    padded = np.zeros((num_frames - 1) * HOP_LENGTH + WINDOW_LENGTH, np.float32)
    padded[WINDOW_LENGTH // 2 :][: len(samples)] = samples[: len(padded) - WINDOW_LENGTH // 2]
    return f0_hz, band_levels(padded, f0_hz)


_teacher: "Ge2e | None" = None  # one a process


def _prepare_part(utterances: Sequence[Utterance], folder: Path) -> None:
    global _teacher
    import torch

    from engine.training.ge2e import Ge2e

    torch.set_num_threads(1)
    _teacher = _teacher or Ge2e()
    cache = FrameCache(folder)
    for utterance in utterances:
        cache.make(utterance, _teacher)
