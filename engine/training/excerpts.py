"""What the decoder learns from: excerpts of a speaker, with prints of the same speaker's other recordings.

Everything lies on the torch device from the start; a batch is drawn as a `Plan` of a few numbers and gathered there, so
that no data loader can keep a GPU waiting.
"""

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, fields
from multiprocessing import get_context

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from engine.conversion.bands import (
    BAND_CENTRES_HZ,
    HOP_LENGTH,
    NUM_BANDS,
    NUM_SPEECH_BANDS,
    loudness,
    shifted,
)
from engine.conversion.decoder import CONDITION_SIZE, Conditioning, DecoderInputs
from engine.conversion.prints import (
    ACTIVE_DB,
    PrintModel,
    PrintStatistics,
    estimate_prints,
    fit_print_model,
    formant_distances,
)
from engine.conversion.source import DEVIATION_LIMIT, SMOOTHING, LoudnessReference
from engine.errors import TrainingError
from engine.signal.clip import FloatArray
from engine.training.pulses import pulse_trains

SPECTRUM_LENGTH = 2048
SPECTRUM_BINS = SPECTRUM_LENGTH // 2 + 1
_WARM_UP_FRAMES = 10
_DRAWS = 4  # sets of other recordings that stand for a speaker, drawn once for each utterance
_COLOURS = 8
_SHIFTS = np.arange(-9.0, 9.05, 0.1)  # semitones of which tables are kept
_KEY_KEPT = 0.3  # share of conversions that keep the source's pitch, as songs do
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
        teacher: [256] of the recording by the GE2E encoder.
        mean_levels: [NUM_SPEECH_BANDS] of the recording where it is no pause.
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
    teacher: FloatArray
    mean_levels: FloatArray
    statistics: PrintStatistics
    bandwidth_hz: float
    samples: npt.NDArray[np.int16]


def make_utterance(
    speaker: str,
    envelope: FloatArray,
    f0_hz: FloatArray,
    posteriors: FloatArray,
    embedding: FloatArray,
    teacher: FloatArray,
    mean_levels: FloatArray,
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
        teacher,
        mean_levels,
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
class Plan:
    """What to gather for a step, B rows.

    Attributes:
        utterance: [B] indices of the sources.
        start: [B] first frames.
        draw: [B] which prints of the same speaker.
        target: [B] indices of utterances, mostly of other speakers: the targets of conversions.
        target_draw: [B] which prints of theirs.
        keeps_key: [B] bool: the conversion keeps the source's pitch.
        warp: [B] semitones by which the source's deviation is moved.
        colour: [B, 8] strengths of slow curves added to it.
        weight: [B] what it is multiplied by; 0 takes it away.
        conversion_weight: [B] the same in conversions.
    """

    utterance: torch.Tensor
    start: torch.Tensor
    draw: torch.Tensor
    target: torch.Tensor
    target_draw: torch.Tensor
    keeps_key: torch.Tensor
    warp: torch.Tensor
    colour: torch.Tensor
    weight: torch.Tensor
    conversion_weight: torch.Tensor

    def to(self, torch_device: str) -> "Plan":
        """The same on a device."""
        return Plan(**{each.name: getattr(self, each.name).to(torch_device) for each in fields(self)})


@dataclass(frozen=True)
class Batch:
    """Excerpts of a step, on the device.

    Attributes:
        inputs: Of the decoder, to restore the excerpts.
        voice: Each excerpt's speaker as other recordings show him.
        envelope: [B, T, 72] what should come out.
        weight: [B, T, 72], 0 where the recording says nothing.
        bandwidth_hz: [B] what the recordings hold, a little less where that is below 24 kHz.
        audio: [B, (T - 1) * 480] of the recording, from frame 0 to the last.
        power: [B, T, bins] power spectra of the recording.
        pulses: [B, T - 1, 480] at its pitch.
        pulse_power: [B, T, bins] of the pulses.
        source_shape: [B, T, NUM_SPEECH_BANDS] its envelope without loudness.
        deviation: [B, T, 72] what that has beyond its own speaker's print of the phone.
    """

    inputs: DecoderInputs
    voice: Conditioning
    envelope: torch.Tensor
    weight: torch.Tensor
    bandwidth_hz: torch.Tensor
    audio: torch.Tensor
    power: torch.Tensor
    pulses: torch.Tensor
    pulse_power: torch.Tensor
    source_shape: torch.Tensor
    deviation: torch.Tensor


@dataclass(frozen=True)
class Conversions:
    """The same excerpts asked for in other voices.

    Attributes:
        inputs: Of the decoder.
        voice: The wanted voices.
        pulses: [B, T - 1, 480] at the wanted pitch.
        teachers: [B, 256] GE2E embeddings of the wanted speakers.
        source_teachers: [B, 256] of the sources.
        mean_levels: [B, NUM_SPEECH_BANDS] long-term spectra of the wanted speakers, of any level.
    """

    inputs: DecoderInputs
    voice: Conditioning
    pulses: torch.Tensor
    teachers: torch.Tensor
    source_teachers: torch.Tensor
    mean_levels: torch.Tensor


class Excerpts:
    """Draws and gathers batches.

    Args:
        utterances: The training set.
        model: Its print model.
        frames: Of an excerpt.
        torch_device: Where everything lies.
        workers: Processes that estimate prints beforehand.

    Raises:
        TrainingError: No recording is long enough.
    """

    def __init__(
        self,
        utterances: Sequence[TrainingUtterance],
        model: PrintModel,
        frames: int,
        *,
        torch_device: str = "cpu",
        workers: int = 1,
    ) -> None:
        kept = [u for u in utterances if len(u.f0_hz) >= 40]
        if not kept:
            raise TrainingError("No recording is long enough to train the decoder.")
        self.frames, self.torch_device = frames, torch_device
        names = sorted({u.speaker for u in kept})
        self._speaker = np.array([names.index(u.speaker) for u in kept])
        self._lengths = np.array([len(u.f0_hz) for u in kept])
        # A speaker's chance grows with the root of what there is of them, so that few do not rule.
        counts = np.bincount(self._speaker)
        self._chance = _normalised(1.0 / np.sqrt(counts[self._speaker]))
        self._target_chance = _normalised(1.0 / counts[self._speaker])

        def on_device(values: npt.NDArray[np.generic] | torch.Tensor) -> torch.Tensor:
            return torch.as_tensor(values).to(torch_device)

        self._starts = on_device(np.cumsum([0, *self._lengths[:-1]]))
        self._ends = on_device(np.cumsum(self._lengths))
        self._envelope = on_device(np.concatenate([u.envelope for u in kept]))
        self._posteriors = on_device(np.concatenate([u.posteriors for u in kept]))
        self._f0 = on_device(np.nan_to_num(np.concatenate([u.f0_hz for u in kept])))
        self._loudness = on_device(np.concatenate([u.loudness for u in kept]))
        self._relative = on_device(np.concatenate([u.relative_loudness for u in kept]))
        self._samples = on_device(np.concatenate([_framed(u) for u in kept]))
        medians = [np.nanmedian(u.f0_hz) if np.isfinite(u.f0_hz).any() else np.nan for u in kept]
        self._median_f0 = on_device(np.array(medians, np.float32))
        self._bandwidth = on_device(np.array([u.bandwidth_hz for u in kept], np.float32))
        own, prints, embeddings = _prints_of(kept, self._speaker, model, workers)
        self._own_prints, self._prints = on_device(own), on_device(prints)
        self._embeddings = on_device(embeddings)
        self._teachers = on_device(_unit(_speaker_means(np.stack([u.teacher for u in kept]), self._speaker)))
        colours = np.stack([u.mean_levels - u.mean_levels.mean() for u in kept])
        self._mean_levels = on_device(_speaker_means(colours, self._speaker))
        self._tables = _Tables(torch_device)

    def plan(self, rng: np.random.Generator, count: int) -> Plan:
        """Choose `count` excerpts and how they are changed."""
        utterance = rng.choice(len(self._lengths), count, p=self._chance)
        target = rng.choice(len(self._lengths), count, p=self._target_chance)
        start = (rng.random(count) * np.maximum(1, self._lengths[utterance] - self.frames)).astype(np.int64)
        weight = rng.uniform(0.1, 0.8, count) * (rng.random(count) >= 0.25)
        return Plan(
            *(
                torch.from_numpy(np.asarray(values))
                for values in (
                    utterance,
                    start,
                    rng.integers(_DRAWS, size=count),
                    target,
                    rng.integers(_DRAWS, size=count),
                    rng.random(count) < _KEY_KEPT,
                    rng.normal(0.0, 3.0, count).astype(np.float32),
                    rng.normal(0.0, 0.5, (count, _COLOURS)).astype(np.float32),
                    weight.astype(np.float32),
                    rng.uniform(0.25, 0.55, count).astype(np.float32),
                )
            )
        )

    def gather(self, plan: Plan) -> Batch:
        """The excerpts of a plan on the device: to be restored from their perturbed selves and other recordings."""
        utterance, ends = plan.utterance, self._ends[plan.utterance][:, None]
        places = (self._starts[utterance] + plan.start)[:, None] + torch.arange(self.frames, device=self.torch_device)
        places, inside = torch.minimum(places, ends - 1), places < ends
        envelope = torch.where(inside[..., None], self._envelope[places].float(), _SILENT)
        level = torch.where(inside, self._loudness[places], _SILENT)
        relative = torch.where(inside, self._relative[places], -12.0)
        f0_hz = torch.where(inside, self._f0[places], 0.0)
        posteriors = self._posteriors[places].float() * inside[..., None]
        own = self._own_prints[utterance].float()
        printed = torch.where((f0_hz > 0)[..., None], posteriors @ own[:, 1], posteriors @ own[:, 0])
        shape = envelope - level[..., None]
        held = self._bandwidth[utterance, None] * 0.95 >= self._tables.centres_hz
        weight = torch.sigmoid(relative + 6.0)[..., None] * held[:, None].float()
        weight[:, :_WARM_UP_FRAMES] = 0.0
        audio = self._audio(utterance, plan.start)
        half = SPECTRUM_LENGTH // 2
        pulses = pulse_trains(f0_hz)
        padded = nn.functional.pad(pulses.flatten(1), (half, half))
        return Batch(
            DecoderInputs(posteriors, self._tables.perturbed(shape - printed, plan), f0_hz, level, relative),
            self._voice(utterance, plan.draw),
            envelope,
            weight,
            self._bandwidth[utterance] * 0.95,
            audio[:, half:-half],
            self._tables.spectra(audio),
            pulses,
            self._tables.spectra(padded),
            shape[..., :NUM_SPEECH_BANDS],
            shape - printed,
        )

    def conversions(self, plan: Plan, batch: Batch) -> Conversions:
        """The excerpts of a gathered batch, asked for in the voices and at the pitch of the plan's targets."""
        utterance, target, given = plan.utterance, plan.target, batch.inputs
        voice = self._voice(target, plan.target_draw)
        ratio = self._median_f0[target] / self._median_f0[utterance]
        ratio = torch.where(torch.isfinite(ratio) & ~plan.keeps_key, ratio, 1.0)
        f0_hz = given.f0_hz * ratio[:, None]
        f0_hz = torch.where(f0_hz > 0, f0_hz.clamp(55.0, 900.0), f0_hz)
        distance = formant_distances(self._own_prints[utterance].float(), voice.prints)
        deviation = self._tables.moved(self._tables.smoothed(batch.deviation), distance)
        deviation = deviation * plan.conversion_weight[:, None, None]
        inputs = DecoderInputs(given.posteriors, deviation, f0_hz, given.loudness, given.relative_loudness)
        pulses, teachers = pulse_trains(f0_hz), self._teachers
        return Conversions(inputs, voice, pulses, teachers[target], teachers[utterance], self._mean_levels[target])

    def _voice(self, utterance: torch.Tensor, draw: torch.Tensor) -> Conditioning:
        count = len(utterance)
        return Conditioning(
            self._embeddings[utterance, draw],
            self._prints[utterance, draw].float(),
            torch.zeros(count, CONDITION_SIZE, device=self.torch_device),
            torch.zeros(count, 2, NUM_BANDS, device=self.torch_device),
        )

    def _audio(self, utterance: torch.Tensor, start: torch.Tensor) -> torch.Tensor:
        """[B, (T - 1) * 480 + 2048] from half a spectrum before frame 0 on, zeros outside of the recording."""
        count = (self.frames - 1) * HOP_LENGTH + SPECTRUM_LENGTH
        first = (self._starts[utterance] + start) * HOP_LENGTH - SPECTRUM_LENGTH // 2
        places = first[:, None] + torch.arange(count, device=self.torch_device)
        low, high = self._starts[utterance][:, None] * HOP_LENGTH, self._ends[utterance][:, None] * HOP_LENGTH
        inside = (places >= low) & (places < high)
        return self._samples[places.clamp(0, len(self._samples) - 1)].float() / 32768.0 * inside


class _Tables:
    """Fixed matrices on the device, and what is done with them."""

    def __init__(self, torch_device: str) -> None:
        def on_device(values: npt.NDArray[np.floating]) -> torch.Tensor:
            return torch.from_numpy(values.astype(np.float32)).to(torch_device)

        identity = np.eye(NUM_BANDS, dtype=np.float32)
        self.centres_hz = on_device(BAND_CENTRES_HZ)
        self._shifts = on_device(np.stack([shifted(identity, float(step)) for step in _SHIFTS]))
        self._smoothing = on_device(SMOOTHING)
        position = np.linspace(0.0, np.pi, NUM_SPEECH_BANDS)
        self._curves = on_device(np.cos(np.arange(1, _COLOURS + 1)[:, None] * position))
        window = np.hanning(SPECTRUM_LENGTH + 1)[:-1]
        self._window = on_device(window / np.sqrt(np.square(window).sum()))

    def smoothed(self, deviation: torch.Tensor) -> torch.Tensor:
        """`engine.conversion.source.smooth_deviation`."""
        return (deviation[..., :NUM_SPEECH_BANDS] @ self._smoothing).clamp(-DEVIATION_LIMIT, DEVIATION_LIMIT)

    def moved(self, deviation: torch.Tensor, semitones: torch.Tensor) -> torch.Tensor:
        """[B, T, 44] along the frequency axis by [B] semitones."""
        missing = NUM_BANDS - NUM_SPEECH_BANDS
        padded = torch.cat([deviation, deviation[..., -1:].expand(*deviation.shape[:-1], missing)], dim=-1)
        return (padded @ self._shift_of(semitones))[..., :NUM_SPEECH_BANDS]

    def perturbed(self, deviation: torch.Tensor, plan: Plan) -> torch.Tensor:
        """[B, T, 72] as another speaker's might be: warped, coloured, of any weight, at times absent."""
        warped = (deviation @ self._shift_of(plan.warp))[..., :NUM_SPEECH_BANDS]
        coloured = warped + (plan.colour @ self._curves)[:, None]
        return self.smoothed(coloured) * plan.weight[:, None, None]

    def spectra(self, audio: torch.Tensor) -> torch.Tensor:
        """[B, T, bins] power of frames, scaled so that white noise of variance 1 lies at 1."""
        return torch.fft.rfft(audio.unfold(1, SPECTRUM_LENGTH, HOP_LENGTH) * self._window).abs().square()

    def _shift_of(self, semitones: torch.Tensor) -> torch.Tensor:
        index = ((semitones - float(_SHIFTS[0])) / 0.1).round().long().clamp(0, len(_SHIFTS) - 1)
        return self._shifts[index]


_SILENT = -23.0


def _framed(utterance: TrainingUtterance) -> npt.NDArray[np.int16]:
    """[T * 480] samples from that of frame 0 on."""
    wanted = len(utterance.f0_hz) * HOP_LENGTH
    return np.pad(utterance.samples[:wanted], (0, max(0, wanted - len(utterance.samples))))


def _normalised(chance: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    return chance / chance.sum()


def _speaker_means(vectors: FloatArray, speaker: npt.NDArray[np.integer]) -> FloatArray:
    """Each utterance's speaker's mean of [U, N]."""
    total = np.zeros((int(speaker.max()) + 1, vectors.shape[1]), np.float32)
    np.add.at(total, speaker, vectors)
    return (total / np.maximum(np.bincount(speaker), 1)[:, None]).astype(np.float32)[speaker]


def _unit(vectors: FloatArray) -> FloatArray:
    """[U, N], each row of unit length."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)


def _prints_of(
    utterances: Sequence[TrainingUtterance], speaker: npt.NDArray[np.integer], model: PrintModel, workers: int
) -> tuple[npt.NDArray[np.float16], npt.NDArray[np.float16], FloatArray]:
    """Own prints [U, 2, P, 72]; of the speaker elsewhere prints [U, 4, 2, P, 72] and embeddings [U, 4, 256]."""
    members = [np.flatnonzero(speaker == index) for index in range(int(speaker.max()) + 1)]
    parts = np.array_split(np.arange(len(utterances)), max(1, min(8 * workers, len(utterances))))
    job = _PrintJob(utterances, speaker, members, model)
    if workers <= 1:
        done = [job(part) for part in parts]
    else:
        global _job
        _job = job  # handed to the processes by forking: too large to send
        with ProcessPoolExecutor(workers, mp_context=get_context("fork")) as pool:
            done = list(pool.map(_run_job, parts))
        _job = None
    own, prints, embeddings = (np.concatenate(columns) for columns in zip(*done, strict=True))
    return own, prints, embeddings


@dataclass(frozen=True)
class _PrintJob:
    utterances: Sequence[TrainingUtterance]
    speaker: npt.NDArray[np.integer]
    members: Sequence[npt.NDArray[np.integer]]
    model: PrintModel

    def __call__(
        self, indices: npt.NDArray[np.integer]
    ) -> tuple[npt.NDArray[np.float16], npt.NDArray[np.float16], FloatArray]:
        own, prints, embeddings = [], [], []
        for index in indices:
            own.append(estimate_prints(self.utterances[index].statistics, self.model))
            rng = np.random.default_rng((0, int(index)))
            drawn = [self._elsewhere(rng, int(index)) for _ in range(_DRAWS)]
            prints.append([found for found, _ in drawn])
            embeddings.append([found for _, found in drawn])
        return np.array(own, np.float16), np.array(prints, np.float16), np.array(embeddings, np.float32)

    def _elsewhere(self, rng: np.random.Generator, index: int) -> tuple[FloatArray, FloatArray]:
        """Prints and embedding of the speaker from a few other recordings (this one where there is no other)."""
        members = self.members[self.speaker[index]]
        others = members[members != index] if len(members) > 1 else members
        chosen = rng.choice(others, min(int(rng.integers(1, 13)), len(others)), replace=False)
        statistics = PrintStatistics(self.model.num_phones)
        embedding = np.zeros_like(self.utterances[index].embedding)
        for other in chosen:
            statistics.include(self.utterances[other].statistics)
            embedding = embedding + self.utterances[other].embedding
        return estimate_prints(statistics, self.model), embedding / np.linalg.norm(embedding)


_job: _PrintJob | None = None


def _run_job(indices: npt.NDArray[np.integer]) -> tuple[npt.NDArray[np.float16], npt.NDArray[np.float16], FloatArray]:
    assert _job is not None
    return _job(indices)
