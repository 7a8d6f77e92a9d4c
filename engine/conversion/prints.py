"""Phone prints: how one voice colours each phone, as band levels, and how few recordings suffice for all of them.

Prints are what, weighted by the posteriors of the content encoder, comes nearest to a voice's own frames by least
squares, voiced and unvoiced apart, after the loudness of each frame is taken away. (A weighted mean blurs the phones of
a hesitant encoder together: its error on new recordings of a speaker was a fifth higher.) Phones that a recording
lacks are filled in by eigenvoices: the directions in which whole sets of prints differ between speakers (Kuhn et al.,
"Rapid speaker adaptation in eigenvoice space", IEEE TSAP 2000), fitted to the phones that are there.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch

from engine.conversion.bands import BAND_CENTRES_HZ, NUM_BANDS, NUM_SPEECH_BANDS, loudness, shifted
from engine.signal.clip import FloatArray

ACTIVE_DB = 35.0  # frames this far below the loud ones of a recording are pauses
_PRIOR_FRAMES = 12.0  # what is known beforehand of a phone counts as so many frames of it
_COORDINATE_FRAMES = 40.0  # frames that weigh as much as the prior of an eigenvoice coordinate
_EDGE_BANDS = 6
_FORMANT_STEPS = torch.arange(-4.0, 4.25, 0.5)  # semitones

_GROUP_TOPS_HZ = (3400.0, 7600.0, 10400.0, 15200.0, 19000.0, 24001.0)
_GROUPS = tuple(
    slice(int(np.searchsorted(BAND_CENTRES_HZ, low)), int(np.searchsorted(BAND_CENTRES_HZ, high)))
    for low, high in zip((0.0, *_GROUP_TOPS_HZ[:-1]), _GROUP_TOPS_HZ, strict=True)
)
"""Bands that recordings of common bandwidths hold or lack together; the first two are the speech bands."""


@dataclass(frozen=True)
class PrintModel:
    """What is known of prints before a voice is heard.

    Attributes:
        mean: [2, P, 72] float32: prints of the average speaker; 0 unvoiced, 1 voiced.
        directions: [K, 2, P, NUM_SPEECH_BANDS] float32 eigenvoices, scaled to unit variance of their coordinates.
        scatter: [NUM_SPEECH_BANDS] float32: variance that the eigenvoices leave, per band.
    """

    mean: FloatArray
    directions: FloatArray
    scatter: FloatArray

    @property
    def num_phones(self) -> int:
        """P."""
        return int(self.mean.shape[1])

    @cached_property
    def whitened(self) -> torch.Tensor:
        """[K, 2, P, NUM_SPEECH_BANDS] float64: the directions over the square root of the scatter."""
        # Products of this size are torch's: NumPy's library shares them among threads, and live conversion, of which
        # this is a part, would wait for those on a busy machine.
        return torch.from_numpy(self.directions.astype(np.float64) / np.sqrt(self.scatter.astype(np.float64)))

    @cached_property
    def whitened_by_phone(self) -> torch.Tensor:
        """[2, P, K * NUM_SPEECH_BANDS] float64: the same, in another order."""
        return self.whitened.permute(1, 2, 0, 3).flatten(2).contiguous()


class PrintStatistics:
    """Sums over the frames of one voice, all that least squares need.

    Args:
        num_phones: P.

    Attributes:
        gram: [6, 2, P, P] sums of products of posteriors, for each group of bands over the recordings that hold it.
        sums: [2, P, 72] sums of levels weighted by posteriors.
    """

    def __init__(self, num_phones: int) -> None:
        self.gram: npt.NDArray[np.floating] = np.zeros((len(_GROUPS), 2, num_phones, num_phones))
        self.sums: npt.NDArray[np.floating] = np.zeros((2, num_phones, NUM_BANDS))

    @property
    def num_frames(self) -> float:
        """Frames counted."""
        return float(self.gram[0].sum())

    def add(
        self,
        levels: FloatArray,
        posteriors: FloatArray,
        voiced: npt.NDArray[np.bool_],
        *,
        active: npt.NDArray[np.bool_],
        bandwidth_hz: float,
    ) -> None:
        """Count frames.

        Args:
            levels: [T, 72] envelopes.
            posteriors: [T, P].
            voiced: [T].
            active: [T]; other frames are pauses and are not counted.
            bandwidth_hz: Bands above say nothing of the voice.
        """
        self.add_shapes(
            levels - loudness(levels)[:, None], posteriors, voiced, active=active, bandwidth_hz=bandwidth_hz
        )

    def add_shapes(
        self,
        shapes: FloatArray,
        posteriors: FloatArray,
        voiced: npt.NDArray[np.bool_],
        *,
        active: npt.NDArray[np.bool_],
        bandwidth_hz: float,
    ) -> None:
        """`add` for envelopes [T, 72] whose loudness is taken away already."""
        if not active.any():
            return
        num_groups = sum(bandwidth_hz * 1.06 >= min(top_hz, 24000.0) for top_hz in _GROUP_TOPS_HZ)
        if not num_groups:
            return
        bands = slice(0, _GROUPS[num_groups - 1].stop)
        for is_voiced in (0, 1):
            chosen = active & (voiced == bool(is_voiced))
            if chosen.any():
                weights = posteriors[chosen]
                self.gram[:num_groups, is_voiced] += weights.T @ weights
                self.sums[is_voiced, :, bands] += weights.T @ shapes[chosen, bands]

    def include(self, other: "PrintStatistics") -> None:
        """Count the frames of other statistics, too."""
        self.gram = self.gram + other.gram
        self.sums = self.sums + other.sums

    def scale(self, factor: float) -> None:
        """Let all frames counted so far weigh less (or more)."""
        self.gram *= factor
        self.sums *= factor

    def forget_beyond(self, num_frames: float) -> None:
        """Let all frames counted so far weigh no more than so many."""
        counted = self.num_frames
        if counted > num_frames:
            self.scale(num_frames / counted)


def estimate_prints(statistics: PrintStatistics, model: PrintModel) -> FloatArray:
    """The prints of a voice, [2, P, 72] float32, from what was heard of it and what is known of voices.

    With nothing heard the result is the model's mean. Bands that the recordings lack continue the mean's from where
    the recordings end.
    """
    *_, prints = estimating_prints(statistics, model)
    assert prints is not None
    return prints


def estimating_prints(statistics: PrintStatistics, model: PrintModel) -> Iterator[FloatArray | None]:
    """`estimate_prints` in four steps of about a millisecond, for those in a hurry: the last gives the prints.

    Statistics that go on growing meanwhile do not matter.
    """
    heard = PrintStatistics(model.num_phones)
    heard.include(statistics)
    mean = model.mean.astype(np.float64)
    missed = _unexplained(heard, mean)
    yield None
    weighted = _weighted(heard.gram[0], model)
    yield None
    change = _by_eigenvoices(weighted, missed, model)
    yield None
    prior = _PRIOR_FRAMES * np.eye(model.num_phones)
    step = np.zeros((2, 1, 1))  # how far the voice lies from the prediction where its recordings end
    for gram, bands in _alike(heard):
        if gram.sum() < 1.0:
            change[:, :, bands] += step
            continue
        predicted = change[:, :, bands].copy()
        change[:, :, bands] = np.linalg.solve(gram + prior, missed[:, :, bands] + _PRIOR_FRAMES * predicted)
        counts = gram.sum(axis=2, keepdims=True)
        beyond = ((change[:, :, bands] - predicted)[:, :, -_EDGE_BANDS:] * counts).sum(axis=1, keepdims=True)
        step = (beyond / (counts.sum(axis=1, keepdims=True) + 1.0)).mean(axis=2, keepdims=True)
    yield (mean + change).astype(np.float32)


def _alike(statistics: PrintStatistics) -> list[tuple[npt.NDArray[np.floating], slice]]:
    """Sums of products, [2, P, P], and the bands they are of; neighbouring groups with equal ones are put together."""
    found: list[tuple[npt.NDArray[np.floating], slice]] = []
    for gram, bands in zip(statistics.gram, _GROUPS, strict=True):
        if found and np.array_equal(gram, found[-1][0]):
            bands = slice(found.pop()[1].start, bands.stop)
        found.append((gram, bands))
    return found


def _unexplained(statistics: PrintStatistics, prints: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """[2, P, 72] sums of what the prints leave of the levels, weighted by posteriors."""
    missed = np.array(statistics.sums, np.float64)
    for gram, bands in _alike(statistics):
        missed[:, :, bands] -= gram @ prints[:, :, bands]
    return missed


def _weighted(gram: npt.NDArray[np.floating], model: PrintModel) -> torch.Tensor:
    """[K, 2 * P * NUM_SPEECH_BANDS]: the whitened directions, their phones mixed as they were heard."""
    if not len(model.directions):
        return torch.zeros(0)
    weighted = torch.from_numpy(np.asarray(gram, np.float64)) @ model.whitened_by_phone
    return weighted.unflatten(2, (len(model.directions), -1)).permute(2, 0, 1, 3).flatten(1)


def _by_eigenvoices(
    weighted: torch.Tensor, missed: npt.NDArray[np.float64], model: PrintModel
) -> npt.NDArray[np.float64]:
    """[2, P, 72] deviation from the mean that the eigenvoices make of the evidence; level above the speech bands."""
    change = np.zeros(model.mean.shape)
    if not len(model.directions):
        return change
    # Neighbouring bands and frames are far from independent, so the evidence is scaled down before it counts.
    evidence = 1.0 / (_COORDINATE_FRAMES * NUM_SPEECH_BANDS / 8)
    flat = model.whitened.flatten(1)
    system = evidence * (flat @ weighted.T).numpy() + np.eye(len(flat))
    scale = np.sqrt(model.scatter.astype(np.float64))
    target = evidence * (flat @ torch.from_numpy((missed[:, :, :NUM_SPEECH_BANDS] / scale).reshape(-1))).numpy()
    found = torch.from_numpy(np.linalg.solve(system, target)) @ flat
    change[:, :, :NUM_SPEECH_BANDS] = found.numpy().reshape(model.directions.shape[1:]) * scale
    edge = change[:, :, NUM_SPEECH_BANDS - _EDGE_BANDS : NUM_SPEECH_BANDS]
    change[:, :, NUM_SPEECH_BANDS:] = edge.mean(axis=2, keepdims=True)
    return change


def pick(prints: FloatArray, posteriors: FloatArray, voiced: npt.NDArray[np.bool_]) -> FloatArray:
    """The print of each frame, [T, 72] float32: the mean over phones by their posteriors, of the frame's voicing."""
    return np.where(voiced[:, None], posteriors @ prints[1], posteriors @ prints[0]).astype(np.float32)


def fit_print_model(voices: list[PrintStatistics], *, num_directions: int, min_frames: float = 400.0) -> PrintModel:
    """Learn the average prints and the eigenvoices from the statistics of many speakers.

    Args:
        voices: One each speaker.
        num_directions: K.
        min_frames: Speakers heard for less do not shape the eigenvoices.
    """
    num_phones = voices[0].sums.shape[1]
    everyone = PrintStatistics(num_phones)
    for voice in voices:
        everyone.include(voice)
    prior = _PRIOR_FRAMES * np.eye(num_phones)
    mean = np.zeros(everyone.sums.shape)
    for group, bands in enumerate(_GROUPS):
        sums, gram = everyone.sums[:, :, bands], everyone.gram[group]
        overall = sums.sum(axis=1, keepdims=True) / (gram.sum(axis=(1, 2))[:, None, None] + 1.0)
        mean[:, :, bands] = np.linalg.solve(gram + prior, sums + _PRIOR_FRAMES * overall)
    speech = slice(0, NUM_SPEECH_BANDS)
    rows = []
    for voice in voices:
        if voice.num_frames < min_frames:
            continue
        missed, gram = _unexplained(voice, mean)[:, :, speech], voice.gram[0]
        average = missed.sum(axis=1, keepdims=True) / (gram.sum(axis=(1, 2))[:, None, None] + 1.0)
        rows.append(np.linalg.solve(gram + prior, missed + _PRIOR_FRAMES * average).reshape(-1))
    table = np.array(rows) if rows else np.zeros((0, 2 * num_phones * NUM_SPEECH_BANDS))
    num_directions = min(num_directions, len(table))
    _, singular, vectors = np.linalg.svd(table, full_matrices=False)
    directions = (vectors[:num_directions].T * singular[:num_directions] / np.sqrt(max(len(table), 1))).T
    rest = table - (table @ vectors[:num_directions].T) @ vectors[:num_directions]
    per_speaker = rest.reshape(len(table), 2 * num_phones, NUM_SPEECH_BANDS)
    scatter = np.square(per_speaker).sum(axis=(0, 1)) / max(len(table) * 2 * num_phones, 1)
    return PrintModel(
        mean.astype(np.float32),
        directions.reshape(num_directions, 2, num_phones, NUM_SPEECH_BANDS).astype(np.float32),
        (np.maximum(scatter, 0.02) + 0.1).astype(np.float32),
    )


def formant_distance(source: FloatArray, wanted: FloatArray) -> float:
    """By how many semitones the wanted voice's formants lie above the source's: the best shift of all voiced prints.

    Levels and slopes are left out of the comparison, as they tell of the recording and of the voice's effort, not of
    the length of its vocal tract.

    Args:
        source: [2, P, 72] prints.
        wanted: [2, P, 72] prints.
    """
    return float(formant_distances(torch.from_numpy(source)[None], torch.from_numpy(wanted)[None]))


def formant_distances(source: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """`formant_distance` of pairs, [B, 2, P, 72] each on any device: [B] semitones."""
    moved = (source[:, 1, 1:] @ _MOVED_SHAPES.to(source.device)).unflatten(2, (len(_FORMANT_STEPS), -1))
    target = wanted[:, 1, 1:, :NUM_SPEECH_BANDS] @ _SHAPE.to(source.device)
    errors = (moved - target[:, :, None]).square().mean(dim=(1, 3))
    steps = _FORMANT_STEPS.to(source.device)
    return steps[(errors + 0.002 * steps.square()).argmin(dim=1)]


def _shape_matrix() -> npt.NDArray[np.float64]:
    """[NUM_SPEECH_BANDS, NUM_SPEECH_BANDS - 3]: takes level and slowest curves away, leaves the lowest bands out."""
    smooth = np.cos(np.pi * np.arange(3)[:, None] * (np.arange(NUM_SPEECH_BANDS) + 0.5) / NUM_SPEECH_BANDS)
    basis = np.linalg.qr(smooth.T)[0]
    return np.asarray((np.eye(NUM_SPEECH_BANDS) - basis @ basis.T)[:, 3:])


def _moved_shapes() -> npt.NDArray[np.float64]:
    """[72, steps * (NUM_SPEECH_BANDS - 3)]: the shape of prints moved by each of _FORMANT_STEPS."""
    identity = np.eye(NUM_BANDS, dtype=np.float32)
    moved = [shifted(identity, float(step))[:, :NUM_SPEECH_BANDS] for step in _FORMANT_STEPS]
    return np.concatenate([levels @ _shape_matrix() for levels in moved], axis=1)


_SHAPE = torch.from_numpy(_shape_matrix().astype(np.float32))
_MOVED_SHAPES = torch.from_numpy(_moved_shapes().astype(np.float32))
