"""Judges of the optional 'bench' extra: words, naturalness, a second opinion on speakers, pitch, and the WORLD vocoder.

Each says which package is missing when it is made, not when it is used.
"""

import importlib.metadata
import importlib.util
import re
import signal
import threading
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

from engine.bench import speaker_judge
from engine.bench.frame import missing_extra, require_extra
from engine.pitch import F0Contour
from engine.signal import AudioClip, FloatArray, resample

_RATE = 16_000
_HOP_S = 0.010


@dataclass(frozen=True)
class WordCount:
    """Errors of one transcript.

    Attributes:
        errors: Substituted, missing and added words.
        words: Words of the true text.
    """

    errors: int
    words: int


class WordJudge:
    """Word errors by PocketSphinx, English, with the language model that the package brings.

    The same recogniser hears sources and conversions, so that what it gets wrong anyway cancels out.
    """

    def __init__(self) -> None:
        pocketsphinx = require_extra("pocketsphinx", purpose="word errors")
        self._decoder = pocketsphinx.Decoder(samprate=_RATE, loglevel="FATAL")

    def transcribe(self, clip: AudioClip) -> list[str]:
        """The words heard in a mono clip of any rate."""
        samples = _at_judging_rate(clip)
        self._decoder.start_utt()
        self._decoder.process_raw((np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes(), full_utt=True)
        self._decoder.end_utt()
        hypothesis = self._decoder.hyp()
        return words_of(hypothesis.hypstr) if hypothesis is not None else []

    def count(self, clip: AudioClip, text: str) -> WordCount:
        """Word errors of a clip against what is truly said."""
        truth = words_of(text)
        return WordCount(edit_distance(truth, self.transcribe(clip)), len(truth))


class NaturalnessJudge:
    """DNSMOS overall quality, 1 to 5, of one window of 9.01 s; shorter clips are repeated to fill it.

    Source: Reddy, Gopal and Cutler, "DNSMOS P.835", ICASSP 2022; the network and its calibration come with the package
    speechmos, whose own call hears the same window but also runs a second network that is not needed here.
    """

    _WINDOW = int(9.01 * _RATE)

    def __init__(self) -> None:
        spec = importlib.util.find_spec("speechmos")
        if spec is None or spec.origin is None:
            raise missing_extra("speechmos", purpose="naturalness")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        path = Path(spec.origin).parent / "dnsmos_models" / "sig_bak_ovr.onnx"
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def score(self, clip: AudioClip) -> float:
        """Overall quality of a mono clip of any rate."""
        samples = np.clip(_at_judging_rate(clip), -1.0, 1.0)
        if not len(samples):
            raise ValueError("an empty clip has no quality")
        window = np.resize(samples, self._WINDOW)[None].astype(np.float32)
        _signal, _background, overall = self._session.run(None, {"input_1": window})[0][0]
        return float(np.polyval([-0.06766283, 1.11546468, 0.04602535], overall))


class Ge2eJudge:
    """Speaker embeddings of resemblyzer (256 values, unit length).

    The trainer of our own speaker encoder uses it as teacher, so it is a second opinion, not an independent one.

    Source: Wan et al., "Generalized end-to-end loss for speaker verification", ICASSP 2018.
    """

    def __init__(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # webrtcvad imports pkg_resources, which warns
            self._package = require_extra("resemblyzer", purpose="the GE2E cosine", extra="training")
        self._encoder = self._package.VoiceEncoder("cpu", verbose=False)

    def embed(self, clip: AudioClip) -> FloatArray:
        """Unit-length embedding [256] of a mono clip of any rate; silence gives zeros."""
        samples = _at_judging_rate(clip)
        if not np.any(samples):
            return np.zeros(256, np.float32)
        trimmed = self._package.preprocess_wav(samples.astype(np.float32), source_sr=_RATE)
        if len(trimmed) < _RATE // 5:
            trimmed = samples.astype(np.float32)
        embedding: FloatArray = np.asarray(self._encoder.embed_utterance(trimmed), np.float32)
        return embedding


class PitchJudge:
    """F0 by WORLD's Harvest, which no rendering uses, with voicing by D4C's "love train" of the same package.

    Harvest alone calls almost everything voiced. A frame counts as voiced when Harvest finds a pitch, the love train
    hears a harmonic signal and the frame is within 40 dB of the clip's loud frames.

    Source: Morise, "Harvest", Interspeech 2017; Morise, "D4C", 2016.
    """

    def __init__(self) -> None:
        self._world = require_extra("pyworld", purpose="judging pitch")

    def track(self, clip: AudioClip, *, fmin_hz: float = 60.0, fmax_hz: float = 1100.0) -> F0Contour:
        """The contour of a mono clip of any rate on a grid of 10 ms."""
        samples = _at_judging_rate(clip).astype(np.float64)
        f0_hz, times_s = self._world.harvest(
            samples, _RATE, f0_floor=fmin_hz, f0_ceil=fmax_hz, frame_period=1000.0 * _HOP_S
        )
        aperiodicity = self._world.d4c(samples, f0_hz, times_s, _RATE, threshold=0.85)
        harmonic = 1.0 - aperiodicity[:, : max(2, aperiodicity.shape[1] // 4)].mean(axis=1)
        loud = _level_db(samples, len(f0_hz)) > -40.0
        voiced = (f0_hz > 0.0) & (aperiodicity[:, 0] < 0.999) & loud
        return F0Contour(
            f0_hz=np.where(voiced, f0_hz, np.nan).astype(np.float32),
            periodicity=np.clip(np.where(voiced, harmonic, 0.0), 0.0, 1.0).astype(np.float32),
            hop_s=_HOP_S,
        )


class WorldConverter:
    """The floor to beat: WORLD analysis, F0 moved to the target's median and spread, envelope unchanged, synthesis.

    Source: Morise, Yokomori and Ozawa, "WORLD", 2016.
    """

    def __init__(self) -> None:
        self._world = require_extra("pyworld", purpose="the WORLD conversion")

    def convert(self, clip: AudioClip, contour: F0Contour, target_log_f0: tuple[float, float]) -> AudioClip:
        """Convert a mono clip.

        Args:
            clip: Any rate.
            contour: Its F0 on a grid of 10 ms.
            target_log_f0: Median and standard deviation of the natural logarithm of the target's F0 in Hz.

        Returns:
            [1, N] at 16 kHz.
        """
        samples = _at_judging_rate(clip).astype(np.float64)
        f0_hz = np.nan_to_num(contour.f0_hz.astype(np.float64))
        times_s = np.arange(len(f0_hz)) * contour.hop_s
        envelope = self._world.cheaptrick(samples, f0_hz, times_s, _RATE)
        aperiodicity = self._world.d4c(samples, f0_hz, times_s, _RATE, threshold=0.0)
        voiced = f0_hz > 0
        if voiced.any():
            logs = np.log(f0_hz[voiced])
            median, spread = float(np.median(logs)), max(float(logs.std()), 1e-3)
            moved = target_log_f0[0] + (logs - median) * target_log_f0[1] / spread
            f0_hz[voiced] = np.clip(np.exp(moved), 50.0, 1100.0)
        converted = self._world.synthesize(f0_hz, envelope, aperiodicity, _RATE, 1000.0 * contour.hop_s)
        fitted = np.zeros(len(samples), np.float32)
        fitted[: min(len(samples), len(converted))] = converted[: len(samples)]
        return AudioClip(fitted[None], _RATE)


@dataclass(frozen=True)
class Hearing:
    """What the judges say of one clip.

    Attributes:
        independent: Embedding of the speaker judge.
        ge2e: Embedding of GE2E.
        dnsmos: Overall quality, 1 to 5.
        words: Word errors; None without a text.
        f0: Contour by Harvest.
    """

    independent: FloatArray
    ge2e: FloatArray
    dnsmos: float
    words: WordCount | None
    f0: F0Contour


_WORKER = threading.local()
# Package -> (what it measures, the extra that brings it).
_PACKAGES = {
    "pocketsphinx": ("word errors", "bench"),
    "speechmos": ("naturalness", "bench"),
    "resemblyzer": ("the GE2E cosine", "training"),
    "pyworld": ("pitch and the WORLD conversion", "bench"),
}


def check_installed() -> None:
    """Find out about missing packages before any work is done, without importing them.

    Raises:
        MissingExtraError: A package is missing; the message names it and what it is for, the hint how to install it.
    """
    for package, (purpose, extra) in _PACKAGES.items():
        if importlib.util.find_spec(package) is None:
            raise missing_extra(package, purpose=purpose, extra=extra)


def versions() -> str:
    """Names the judges: their packages' versions and the recipe of the speaker judge. Other judges, other hearings."""
    found = "-".join(importlib.metadata.version(package) for package in _PACKAGES)
    return f"{speaker_judge.RECIPE}-{found}"


def start_worker(judge_path: str) -> None:
    """Make the judges of one worker process (initializer of a process pool)."""
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which then stops the pool
    torch.set_num_threads(1)
    _WORKER.speaker = speaker_judge.SpeakerJudge.load(Path(judge_path))
    _WORKER.ge2e, _WORKER.naturalness, _WORKER.pitch = Ge2eJudge(), NaturalnessJudge(), PitchJudge()
    _WORKER.words = WordJudge()


def hear(clip: AudioClip, text: str) -> Hearing:
    """All judges on one mono clip, in a process prepared by `start_worker`; no words are counted without a text."""
    return Hearing(
        independent=_WORKER.speaker.embed(clip),
        ge2e=_WORKER.ge2e.embed(clip),
        dnsmos=_WORKER.naturalness.score(clip),
        words=_WORKER.words.count(clip, text) if text else None,
        f0=_WORKER.pitch.track(clip),
    )


def hear_recording(clip: AudioClip, text: str, path: Path) -> Hearing:
    """`hear` of something that no model changes: read from `path` when it was heard before, else written there."""
    if path.is_file():
        return load_hearing(path)
    hearing = hear(clip, text)
    save_hearing(hearing, path)
    return hearing


def hear_world(clip: AudioClip, enrolment: AudioClip, path: Path) -> Hearing:
    """`hear` of the WORLD conversion of a clip to the pitch of another speaker's enrolment; `path` as above."""
    if path.is_file():
        return load_hearing(path)
    log_f0 = np.log(_WORKER.pitch.track(enrolment).f0_hz)
    goal = (float(np.nanmedian(log_f0)), float(np.nanstd(log_f0)))
    hearing = hear(WorldConverter().convert(clip, _WORKER.pitch.track(clip), goal), "")
    save_hearing(hearing, path)
    return hearing


def save_hearing(hearing: Hearing, path: Path) -> None:
    """Keep a hearing for later runs."""
    words = [] if hearing.words is None else [hearing.words.errors, hearing.words.words]
    part = path.with_name(path.name + ".part")
    with part.open("wb") as file:
        np.savez(
            file,
            independent=hearing.independent,
            ge2e=hearing.ge2e,
            dnsmos=hearing.dnsmos,
            words=np.array(words, np.int64),
            f0_hz=hearing.f0.f0_hz,
            periodicity=hearing.f0.periodicity,
        )
    part.replace(path)


def load_hearing(path: Path) -> Hearing:
    """Read what `save_hearing` wrote."""
    with np.load(path, allow_pickle=False) as file:
        words = file["words"]
        return Hearing(
            independent=file["independent"],
            ge2e=file["ge2e"],
            dnsmos=float(file["dnsmos"]),
            words=WordCount(int(words[0]), int(words[1])) if len(words) else None,
            f0=F0Contour(file["f0_hz"], file["periodicity"], _HOP_S),
        )


def embed_speaker(clip: AudioClip) -> tuple[FloatArray, FloatArray]:
    """Embeddings of the speaker judge and of GE2E, in a process prepared by `start_worker`."""
    return _WORKER.speaker.embed(clip), _WORKER.ge2e.embed(clip)


def words_of(text: str) -> list[str]:
    """Lower-case words without punctuation; apostrophes stay."""
    return re.findall(r"[a-z0-9']+", text.lower())


def edit_distance(truth: Sequence[str], heard: Sequence[str]) -> int:
    """Fewest substitutions, deletions and insertions of words that turn one into the other."""
    row = list(range(len(heard) + 1))
    for i, word in enumerate(truth, 1):
        diagonal, row[0] = row[0], i
        for j, other in enumerate(heard, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (word != other))
    return row[-1]


def high_band_db(clip: AudioClip) -> float | None:
    """Energy from 8 to 20 kHz against the energy from 100 Hz to 8 kHz, dB; None below 40 kHz or for silence.

    Only frames within 40 dB of the loudest count, so that background noise does not.
    """
    if clip.sample_rate < 40_000:
        return None
    samples = clip.samples[0]
    size = 2048
    if len(samples) < size or not np.any(samples):
        return None
    frames = np.lib.stride_tricks.sliding_window_view(samples, size)[:: size // 2] * np.hanning(size).astype(np.float32)
    power = np.abs(np.fft.rfft(frames)) ** 2
    energy = power.sum(axis=1)
    spectrum = power[energy > energy.max() * 1e-4].sum(axis=0)
    bins_hz = np.arange(len(spectrum)) * clip.sample_rate / size
    high = spectrum[(bins_hz >= 8_000) & (bins_hz < 20_000)].sum()
    low = spectrum[(bins_hz >= 100) & (bins_hz < 8_000)].sum()
    return float(10 * np.log10((high + 1e-20) / (low + 1e-20)))


def _at_judging_rate(clip: AudioClip) -> FloatArray:
    return (clip if clip.sample_rate == _RATE else resample(clip, _RATE)).mono().samples[0]


def _level_db(samples: npt.NDArray[np.float64], num_frames: int) -> npt.NDArray[np.float64]:
    """Level of 30 ms around each frame against the 95th percentile, dB."""
    half, hop = int(0.015 * _RATE), int(_HOP_S * _RATE)
    total = np.concatenate([[0.0], np.cumsum(np.pad(samples, half) ** 2)])
    starts = np.minimum(np.arange(num_frames) * hop, len(total) - 1 - 2 * half)
    power = total[starts + 2 * half] - total[starts]
    db: Any = 10 * np.log10(np.maximum(power, 1e-12))
    return np.asarray(db - np.percentile(db, 95), np.float64)
