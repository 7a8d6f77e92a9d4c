"""A speaker encoder for judging only: no training of AutoVoice ever sees it.

It is of another kind than the neural encoders that train and steer the models: statistics of cepstra under a Gaussian
mixture, projected by linear discriminant analysis. Two of its traits matter for a judge. The mean cepstrum of each
clip is removed, so that equalising a source to the target's long-term spectrum does not fool it; and it is in closed
form, so anyone re-trains the very same judge from the corpus in a minute or two.

Source: Reynolds, Quatieri and Dunn, "Speaker verification using adapted Gaussian mixture models", 2000; Campbell et
al., "Support vector machines using GMM supervectors for speaker verification", 2006 (the scaling of the means).
"""

import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import safetensors
import scipy.linalg
from safetensors.numpy import save_file

from engine.bench.corpus import Utterance, by_speaker, read_manifest
from engine.jobs import JobContext
from engine.signal import AudioClip, FloatArray, resample

RECIPE = "1"  # part of the cache's file name: change it whenever the same corpus would give another judge

_RATE = 16_000
_FRAME, _HOP, _FFT, _MELS, _CEPSTRA = 400, 160, 512, 40, 20
_COMPONENTS, _PCA, _DIMENSIONS = 64, 400, 100
_SEGMENT = 400  # frames: 4 s
_SECONDS_PER_SPEAKER = 120.0
_RELEVANCE = 8.0


class SpeakerJudge:
    """Embeds clips into a space where one speaker's clips lie close together.

    Args:
        mixture: means [K, D], variances [K, D] and weights [K] of the background mixture.
        centre: [K * D], mean supervector.
        projection: [K * D, E], from supervector to embedding.
    """

    def __init__(
        self, mixture: tuple[FloatArray, FloatArray, FloatArray], centre: FloatArray, projection: FloatArray
    ) -> None:
        self.mixture, self.centre, self.projection = mixture, centre, projection

    def embed(self, clip: AudioClip) -> FloatArray:
        """The unit-length embedding [E] of a mono clip of any rate; half a second of voice is the least that helps.

        Silence gives zeros, which are like nobody.
        """
        features = _features(log_mel(clip))
        if len(features) < 10:
            return np.zeros(self.projection.shape[1], np.float32)
        vector = (_supervector(features, self.mixture) - self.centre) @ self.projection
        unit: FloatArray = (vector / max(float(np.linalg.norm(vector)), 1e-9)).astype(np.float32)
        return unit

    def save(self, path: Path) -> None:
        """Store the judge as safetensors."""
        means, variances, weights = self.mixture
        tensors = {
            "means": means,
            "variances": variances,
            "weights": weights,
            "centre": self.centre,
            "projection": self.projection,
        }
        part = path.with_name(path.name + ".part")
        save_file({name: np.ascontiguousarray(array) for name, array in tensors.items()}, part)
        part.replace(path)

    @classmethod
    def load(cls, path: Path) -> "SpeakerJudge":
        """Read what `save` wrote."""
        with safetensors.safe_open(path, framework="numpy") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dict
        return cls(
            (tensors["means"], tensors["variances"], tensors["weights"]), tensors["centre"], tensors["projection"]
        )


def load_or_train(corpus: Path, cache: Path, ctx: JobContext) -> SpeakerJudge:
    """The judge from the cache folder, or trained on `corpus/train` and put there."""
    path = cache / f"speaker-judge-{RECIPE}.safetensors"
    if path.is_file():
        return SpeakerJudge.load(path)
    judge = train(read_manifest(corpus / "train"), ctx)
    cache.mkdir(parents=True, exist_ok=True)
    judge.save(path)
    return judge


def train(utterances: Sequence[Utterance], ctx: JobContext, *, seed: int = 0) -> SpeakerJudge:
    """Train on labelled speech, at most two minutes of each speaker, half of it equalised and with noise at random.

    Args:
        utterances: Speech; speakers whose name ends in "unlabelled" are left out.
        ctx: Progress and cancellation.
        seed: Of the choice of utterances and of the disturbances.

    Raises:
        ValueError: Fewer than three speakers have four seconds of speech.
    """
    rng = np.random.default_rng(seed)
    spoken = [u for u in utterances if not u.speaker.endswith("unlabelled") and u.set_name != "producerspace"]
    segments: list[tuple[int, FloatArray]] = []
    speakers = by_speaker(spoken)
    for index, (_name, theirs) in enumerate(speakers.items()):
        random.Random(seed).shuffle(theirs)
        heard = 0.0
        for utterance in theirs:
            ctx.checkpoint("Training the speaker judge: listening", 0.7 * index / len(speakers))
            if heard > _SECONDS_PER_SPEAKER:
                break
            mel = log_mel(utterance.read(_RATE, max_seconds=16.0))
            heard += min(utterance.seconds, 16.0)
            starts = range(0, max(1, len(mel) - 150), _SEGMENT)
            segments += [(index, mel[s : s + _SEGMENT]) for s in starts if len(mel[s : s + _SEGMENT]) >= 200]
    if len({index for index, _mel in segments}) < 3:
        raise ValueError("the judge needs speech of at least three speakers")
    return train_on_segments(segments, rng, ctx.part(0.7, 1.0))


def train_on_segments(
    segments: Sequence[tuple[int, FloatArray]], rng: np.random.Generator, ctx: JobContext
) -> SpeakerJudge:
    """Train on log-mel segments (speaker's number, [T, 40])."""
    stage = "Training the speaker judge: mixture"
    frames = np.concatenate([_features(mel)[::5] for _index, mel in segments[::2]])
    mixture = _fit_mixture(frames[rng.permutation(len(frames))[:60_000]], rng, ctx.part(0.0, 0.3))
    vectors, labels = [], []
    for number, (index, mel) in enumerate(segments):
        ctx.checkpoint(stage, 0.3 + 0.5 * number / len(segments))
        for features in (_features(mel), _features(_disturbed(mel, rng))):
            if len(features) >= 80:
                vectors.append(_supervector(features, mixture))
                labels.append(index)
    ctx.checkpoint("Training the speaker judge: projection", 0.8)
    centre, projection = _discriminants(np.array(vectors), np.unique(labels, return_inverse=True)[1])
    ctx.checkpoint("Training the speaker judge: projection", 1.0)
    return SpeakerJudge(mixture, centre, projection)


def log_mel(clip: AudioClip) -> FloatArray:
    """Log-mel energies [T, 40] of a mono clip, 25 ms every 10 ms, 60-7600 Hz, after pre-emphasis."""
    samples = (clip if clip.sample_rate == _RATE else resample(clip, _RATE)).samples[0]
    if len(samples) < _FRAME:
        return np.zeros((0, _MELS), np.float32)
    emphasised = np.append(samples[:1], samples[1:] - 0.97 * samples[:-1]).astype(np.float32)
    frames = np.lib.stride_tricks.sliding_window_view(emphasised, _FRAME)[::_HOP] * np.hanning(_FRAME).astype(
        np.float32
    )
    power = np.abs(np.fft.rfft(frames, _FFT)).astype(np.float32) ** 2
    logs: FloatArray = np.log(power @ _MEL_FILTERS.T + 1e-8).astype(np.float32)
    return logs


def equal_error(genuine: npt.ArrayLike, impostor: npt.ArrayLike) -> tuple[float, float]:
    """Equal-error rate of scores and the threshold where it lies.

    Args:
        genuine: Scores of trials with the right speaker.
        impostor: Scores of trials with another.

    Returns:
        (rate, threshold): the mean of false rejection and false acceptance where they differ least.
    """
    right, wrong = np.sort(np.asarray(genuine, np.float64)), np.sort(np.asarray(impostor, np.float64))
    thresholds = np.concatenate([right, wrong])
    rejected = np.searchsorted(right, thresholds, side="left") / len(right)
    accepted = 1.0 - np.searchsorted(wrong, thresholds, side="left") / len(wrong)
    best = int(np.argmin(np.abs(rejected - accepted)))
    return float((rejected[best] + accepted[best]) / 2), float(thresholds[best])


def _mel_filters() -> FloatArray:
    def mel(hz: npt.ArrayLike) -> npt.NDArray[np.float64]:
        return 2595.0 * np.log10(1.0 + np.asarray(hz) / 700.0)

    edges = 700.0 * (10.0 ** (np.linspace(mel(60.0), mel(7600.0), _MELS + 2) / 2595.0) - 1.0)
    bins = np.arange(_FFT // 2 + 1) * _RATE / _FFT
    rising = (bins - edges[:-2, None]) / np.diff(edges)[:-1, None]
    falling = (edges[2:, None] - bins) / np.diff(edges)[1:, None]
    return np.maximum(0.0, np.minimum(rising, falling)).astype(np.float32)


def _cosines() -> FloatArray:
    order, band = np.arange(1, _CEPSTRA)[:, None], np.arange(_MELS)[None]
    return (np.cos(np.pi * order * (band + 0.5) / _MELS) * np.sqrt(2.0 / _MELS)).astype(np.float32)


_MEL_FILTERS, _COSINES = _mel_filters(), _cosines()


def _features(mel: FloatArray) -> FloatArray:
    """Cepstra without their mean and their slopes, [T', 39], of the frames that hold voice."""
    if len(mel) < 5:
        return np.zeros((0, 2 * _CEPSTRA - 1), np.float32)
    cepstra = mel @ np.concatenate([np.full((1, _MELS), np.sqrt(1.0 / _MELS), np.float32), _COSINES]).T
    slopes = np.zeros_like(cepstra)
    slopes[2:-2] = (2 * (cepstra[4:] - cepstra[:-4]) + cepstra[3:-1] - cepstra[1:-3]) / 10
    level = mel.mean(axis=1)
    loud = level > np.percentile(level, 95) - 4.5
    if np.percentile(level, 95) < -15.0:  # near digital silence throughout
        loud[:] = False
    kept = cepstra[loud, 1:]
    features: FloatArray = np.concatenate([kept - (kept.mean(axis=0) if len(kept) else 0), slopes[loud]], axis=1)
    return features


def _disturbed(mel: FloatArray, rng: np.random.Generator) -> FloatArray:
    """A smooth random equaliser, and in half the cases a steady noise floor."""

    def curve() -> npt.NDArray[np.float64]:
        return np.interp(np.arange(_MELS), [0, 8, 16, 24, 32, 39], rng.normal(0.0, 0.9, 6))

    disturbed = mel + curve()
    if rng.random() < 0.5:
        floor = disturbed.max() - rng.uniform(5.0, 9.0) + curve()
        disturbed = np.logaddexp(disturbed, floor - rng.gumbel(0.0, 0.5, mel.shape))
    return disturbed.astype(np.float32)


def _posteriors(features: FloatArray, mixture: tuple[FloatArray, FloatArray, FloatArray]) -> tuple[FloatArray, float]:
    """[T, K] and the mean log-likelihood."""
    means, variances, weights = mixture
    precision = 1.0 / variances
    constant = np.log(weights) - 0.5 * (np.log(variances) + means**2 * precision).sum(axis=1)
    logs = constant + features @ (means * precision).T - 0.5 * (features**2) @ precision.T
    top = logs.max(axis=1, keepdims=True)
    likely = np.exp(logs - top)
    total = likely.sum(axis=1, keepdims=True)
    return likely / total, float(np.mean(top[:, 0] + np.log(total[:, 0])))


def _fit_mixture(
    frames: FloatArray, rng: np.random.Generator, ctx: JobContext
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Expectation maximisation of a diagonal mixture, started from random frames."""
    count = min(_COMPONENTS, len(frames) // 20)
    spread = frames.var(axis=0)
    mixture = (
        frames[rng.choice(len(frames), count, replace=False)].copy(),
        np.tile(spread, (count, 1)),
        np.full(count, 1.0 / count, np.float32),
    )
    rounds = 30
    for number in range(rounds):
        ctx.checkpoint("Training the speaker judge: mixture", number / rounds)
        shares, _likelihood = _posteriors(frames, mixture)
        mass = shares.sum(axis=0) + 1e-6
        means = shares.T @ frames / mass[:, None]
        variances = shares.T @ frames**2 / mass[:, None] - means**2
        mixture = (means, np.maximum(variances, 0.02 * spread), (mass / mass.sum()).astype(np.float32))
    return mixture


def _supervector(features: FloatArray, mixture: tuple[FloatArray, FloatArray, FloatArray]) -> FloatArray:
    """Shifts of the means adapted to the clip, in units of the components' spread, weighted by their mass."""
    means, variances, weights = mixture
    shares, _likelihood = _posteriors(features, mixture)
    mass = shares.sum(axis=0)
    shift = (shares.T @ features - mass[:, None] * means) / (mass[:, None] + _RELEVANCE)
    scaled: FloatArray = (shift * np.sqrt(weights)[:, None] / np.sqrt(variances)).ravel().astype(np.float32)
    return scaled


def _discriminants(vectors: FloatArray, labels: npt.NDArray[np.int64]) -> tuple[FloatArray, FloatArray]:
    """Centre and projection of linear discriminant analysis after principal components."""
    centre = vectors.mean(axis=0)
    centred = vectors - centre
    order = min(_PCA, len(vectors) - 1, len(centre))
    if len(vectors) < len(centre):
        axes = np.linalg.svd(centred, full_matrices=False)[2][:order].T
    else:
        highest = (len(centre) - order, len(centre) - 1)
        axes = scipy.linalg.eigh(centred.T @ centred / len(centred), subset_by_index=highest)[1]
    reduced = centred @ axes
    counts = np.bincount(labels)
    means = np.zeros((len(counts), order), reduced.dtype)
    np.add.at(means, labels, reduced)
    means /= counts[:, None]
    within = reduced - means[labels]
    scatter = within.T @ within / len(within) + 1e-4 * centred.var(axis=0).sum() / order * np.eye(order)
    between = np.cov(means.T, bias=True)
    dimensions = min(_DIMENSIONS, len(counts) - 1, order)
    _ratios, directions = scipy.linalg.eigh(between, scatter, subset_by_index=(order - dimensions, order - 1))
    return centre.astype(np.float32), (axes @ directions).astype(np.float32)
