"""The front of voice conversion: make voices from recordings, compare them, convert recordings and streams."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt
import soxr
import torch

from engine.conversion.bands import (
    BAND_CENTRES_HZ,
    HOP_LENGTH,
    NUM_SPEECH_BANDS,
    SAMPLE_RATE,
    loudness,
    raw_levels,
)
from engine.conversion.content import ContentEncoder, load_content_encoder
from engine.conversion.decoder import CONDITION_SIZE
from engine.conversion.models import DecoderModel, load_decoder, load_speaker
from engine.conversion.prints import ACTIVE_DB, PrintModel, PrintStatistics, estimate_prints
from engine.conversion.recordings import FrameF0, Frames, RecordingConversion, analysed
from engine.conversion.source import MAX_COUNTED_FRAMES
from engine.conversion.speaker import embed_levels
from engine.conversion.streaming import (
    DEFAULT_CONSONANTS,
    ConversionStream,
    StreamParts,
    TrackedPitch,
)
from engine.conversion.synthesis import SourceFilter
from engine.conversion.voice import CONTENT_MODEL, DECODER_MODEL, Voice, voice_model_id
from engine.errors import EnrollmentError
from engine.jobs import JobContext
from engine.models import model_info
from engine.pitch import F0Contour, estimate_f0
from engine.signal.clip import AudioClip, FloatArray

if TYPE_CHECKING:
    from engine.conversion.streaming import PitchFactory

Kind = Literal["studio", "live"]

_SEGMENT_SECONDS = 5
_STRETCH_FRAMES = 30000  # five minutes
_MIN_ACTIVE_FRAMES = 100
_HELD_DB = 75.0  # a band so far below the loudest was never recorded
_NEPER = 10.0 / np.log(10.0)
# Half a minute leaves prints too near the average speaker. On dev speakers conversions come nearer to the target by two
# speaker encoders with it, words and DNSMOS stay.
_EMPHASIS = np.float32(0.3)  # of what sets a voice apart from the average


@dataclass(frozen=True)
class AnalysedClip:
    """A recording as frames, each 10 ms.

    Attributes:
        envelope: [T, 72] band levels.
        raw: [T, 72] unsmoothed.
        posteriors: [T, P].
        f0_hz: [T], NaN unvoiced.
        active: [T] bool, not a pause.
        bandwidth_hz: Highest frequency that it holds.
    """

    envelope: FloatArray
    raw: FloatArray
    posteriors: FloatArray
    f0_hz: FloatArray
    active: np.ndarray
    bandwidth_hz: float


class Converter:
    """Converts voices with one content encoder and decoder. Made by `load_converter` and shared; streams hold state."""

    sample_rate = SAMPLE_RATE

    def __init__(self, kind: Kind, content: ContentEncoder, model: DecoderModel, torch_device: str) -> None:
        self.kind = kind
        self.torch_device = torch_device
        self.content = content
        self.print_model: PrintModel = model.print_model
        self.decoder = model.decoder.to(torch_device)
        self._parts = StreamParts(
            content, self.decoder, SourceFilter().to(torch_device), model.print_model, torch_device
        )

    @property
    def model_ids(self) -> dict[str, str]:
        """SHA-256 of each model that takes part, by name."""
        return {name: model_info(name).sha256 for name in (CONTENT_MODEL, DECODER_MODEL)}

    def convert(
        self,
        clip: AudioClip,
        voice: Voice,
        f0: F0Contour,
        *,
        source_f0: F0Contour | None = None,
        formant_semitones: float = 0.0,
        consonants: float = DEFAULT_CONSONANTS,
        ctx: JobContext | None = None,
    ) -> AudioClip:
        """Say or sing a recording in another voice.

        Args:
            clip: Mono, any rate.
            voice: Who it should sound like; see `voice_model_id` for voices of other models.
            f0: The wanted contour, already transposed; it also says what is voiced.
            source_f0: The source's own contour, tracked here when not given.
            formant_semitones: Moves the envelope up or down.
            consonants: 0 to 1: how far unvoiced frames keep the source's own envelope.
            ctx: Progress and cancellation.

        Returns:
            [1, N] at 48 kHz, as long as the clip. Digital silence stays digital silence.

        Raises:
            ValueError: The clip is not mono.
            Cancelled: Through `ctx`.
        """
        samples = _at_model_rate(clip)
        if source_f0 is None:
            source_f0 = estimate_f0(clip, tracker="swift")
        ctx = ctx or JobContext()
        converted = self.convert_blocks(
            _watched(samples, ctx.part(0.0, 0.3)),
            voice,
            f0,
            source_f0=source_f0,
            formant_semitones=formant_semitones,
            consonants=consonants,
        )
        made, num_made = [np.zeros(0, np.float32)], 0
        for block in converted:
            made.append(block)
            num_made += len(block)
            ctx.checkpoint("Converting the voice", 0.3 + 0.7 * num_made / max(len(samples), 1))
        return AudioClip(np.concatenate(made)[None], SAMPLE_RATE)

    def convert_blocks(
        self,
        blocks: Iterable[FloatArray],
        voice: Voice,
        f0: F0Contour,
        *,
        source_f0: F0Contour,
        formant_semitones: float = 0.0,
        consonants: float = DEFAULT_CONSONANTS,
    ) -> Iterator[FloatArray]:
        """`convert` for a recording of any length, in memory that does not grow with it.

        Up to five minutes are heard before anything comes out: how the source colours its phones in them is what is
        taken away from them.

        Args:
            blocks: Mono, [N] at 48 kHz, one after another; of some seconds, since each is converted at once.
            voice: See `convert`.
            f0: The same.
            source_f0: The source's own contour.
            formant_semitones: The same.
            consonants: The same.

        Returns:
            [N] at 48 kHz, in all as many samples as went in.
        """
        num_samples = 0

        def counted() -> Iterator[FloatArray]:
            nonlocal num_samples
            for block in blocks:
                num_samples += len(block)
                yield block

        conversion = RecordingConversion(self._parts, voice, formant_semitones=formant_semitones, consonants=consonants)
        wanted, num_made = FrameF0(f0), 0
        for stretch, statistics in self._stretches(self._analysed(counted(), source_f0)):
            conversion.settle(estimate_prints(statistics, self.print_model))
            for frames in stretch:
                made = conversion.push(frames, wanted.cut(frames.first, len(frames.f0_hz)))[: num_samples - num_made]
                num_made += len(made)
                yield made

    def stream(
        self,
        voice: Voice,
        *,
        transpose_semitones: float = 0.0,
        formant_semitones: float = 0.0,
        consonants: float = DEFAULT_CONSONANTS,
        pitch: "PitchFactory | None" = None,
        primed: PrintStatistics | None = None,
    ) -> ConversionStream:
        """Convert audio as it comes.

        Args:
            voice: Who it should sound like.
            transpose_semitones: Added to the source's pitch.
            formant_semitones: Moves the envelope.
            consonants: See `convert`.
            pitch: Where F0 comes from; tracked from the audio when not given.
            primed: Statistics of the source's prints when it was heard before, see `source_statistics`: they stay
                then, and are learnt on the way otherwise.
        """
        return ConversionStream(
            self._parts,
            voice,
            pitch=pitch or TrackedPitch,
            primed=primed,
            transpose_semitones=transpose_semitones,
            formant_semitones=formant_semitones,
            consonants=consonants,
        )

    def source_statistics(self, clip: AudioClip, source_f0: F0Contour) -> PrintStatistics:
        """What `convert` learns of a source beforehand: how it colours its phones, in its first five minutes."""
        frames = self._analysed(_watched(_at_model_rate(clip)), source_f0)
        _, statistics = next(self._stretches(frames))
        return statistics

    def analyse(self, clip: AudioClip, *, f0: F0Contour | None = None, ctx: JobContext | None = None) -> AnalysedClip:
        """Frames of a mono recording, for making and adapting voices; T = 1 + N // 480 at 48 kHz."""
        samples = _at_model_rate(clip)
        f0 = f0 or estimate_f0(clip, tracker="swift")
        parts = list(self._analysed(_watched(samples, ctx), f0))
        count = 1 + len(samples) // HOP_LENGTH
        envelope, raw, posteriors = (
            torch.cat(tensors)[:count].cpu().numpy()
            for tensors in zip(*((part.envelope, part.raw, part.posteriors) for part in parts), strict=True)
        )
        f0_hz = np.concatenate([part.f0_hz for part in parts])[:count]
        active = _active(envelope, ACTIVE_DB)
        return AnalysedClip(envelope, raw, posteriors, f0_hz, active, _bandwidth(envelope[active], clip.sample_rate))

    def _analysed(self, blocks: Iterable[FloatArray], f0: F0Contour) -> Iterator[Frames]:
        return analysed(blocks, FrameF0(f0), self.content, self.torch_device)

    def _stretches(self, parts: Iterable[Frames]) -> Iterator[tuple[list[Frames], PrintStatistics]]:
        """Parts of some minutes in all, and the statistics of them and, a minute's weight, of what came before."""
        statistics, stretch, num_frames = PrintStatistics(self.print_model.num_phones), list[Frames](), 0
        for part in parts:
            stretch.append(part)
            num_frames += len(part.f0_hz)
            if num_frames >= _STRETCH_FRAMES:
                yield stretch, self._count(stretch, statistics)
                stretch, num_frames = [], 0
        if stretch:
            yield stretch, self._count(stretch, statistics)

    def _count(self, stretch: list[Frames], statistics: PrintStatistics) -> PrintStatistics:
        statistics.forget_beyond(MAX_COUNTED_FRAMES)
        envelope = torch.cat([part.envelope for part in stretch]).cpu().numpy()
        posteriors = torch.cat([part.posteriors for part in stretch]).cpu().numpy()
        voiced = np.isfinite(np.concatenate([part.f0_hz for part in stretch]))
        active = _active(envelope, ACTIVE_DB / 2)
        statistics.add(envelope, posteriors, voiced, active=active, bandwidth_hz=SAMPLE_RATE / 2)
        return statistics


def load_converter(kind: Kind, torch_device: str = "cpu") -> Converter:
    """The converter of a kind on a device, shared by all who ask.

    Args:
        kind: "studio" for recordings, "live" for streams of little delay.
        torch_device: As PyTorch calls it.

    Raises:
        ModelError: A model is absent, damaged or of another version.
    """
    hashes = (model_info(CONTENT_MODEL).sha256, model_info(DECODER_MODEL).sha256)
    return _converter(kind, torch_device, hashes)


@lru_cache(maxsize=4)
def _converter(kind: Kind, torch_device: str, hashes: tuple[str, str]) -> Converter:
    del hashes  # only the key of the cache: new weights load anew
    return Converter(kind, load_content_encoder(torch_device), load_decoder(), torch_device)


def embed_voice(
    clips: Sequence[AudioClip], *, name: str, torch_device: str = "cpu", ctx: JobContext | None = None
) -> Voice:
    """Make a voice of recordings of one person.

    Args:
        clips: Mono, any rate; 45 s in all are plenty.
        name: Of the voice.
        torch_device: Where the content encoder runs.
        ctx: Progress and cancellation.

    Raises:
        EnrollmentError: There is less than a second of voice in them.
        ModelError: A model is absent or damaged.
    """
    converter = load_converter("studio", torch_device)
    statistics = PrintStatistics(converter.print_model.num_phones)
    raw, f0 = [], []
    for index, clip in enumerate(clips):
        part = ctx.part(index / len(clips), (index + 1) / len(clips)) if ctx else None
        frames = converter.analyse(clip, ctx=part)
        statistics.add(
            frames.envelope,
            frames.posteriors,
            np.isfinite(frames.f0_hz),
            active=frames.active,
            bandwidth_hz=frames.bandwidth_hz,
        )
        raw.append(frames.raw[frames.active, :NUM_SPEECH_BANDS])
        f0.append(frames.f0_hz[frames.active & np.isfinite(frames.f0_hz)])
    heard, pitch = (np.concatenate(parts) if parts else np.zeros(0, np.float32) for parts in (raw, f0))
    if len(pitch) < _MIN_ACTIVE_FRAMES:
        raise EnrollmentError(
            "There is too little voice in these recordings.", hint="Record or choose at least 30 seconds of one person."
        )
    low, median, high = (float(value) for value in np.percentile(pitch, (5, 50, 95)))
    prints, mean = estimate_prints(statistics, converter.print_model), converter.print_model.mean
    prints = (prints + _EMPHASIS * (prints - mean)).astype(np.float32)
    tensors = {
        "prints": prints,
        "condition": np.zeros(CONDITION_SIZE, np.float32),
        "bias": np.zeros((2, prints.shape[-1]), np.float32),
    }
    embedding = embed_levels(load_speaker(), torch.from_numpy(heard)).numpy()
    return Voice(name, embedding, tensors, median, (low, high), voice_model_id())


def similarity(a: Voice | AudioClip, b: Voice | AudioClip) -> float:
    """How alike two voices are by our own speaker encoder: the cosine of their embeddings, -1 to 1."""
    return float(np.dot(_embedding(a), _embedding(b)))


def _embedding(of: Voice | AudioClip) -> FloatArray:
    return of.speaker_embedding if isinstance(of, Voice) else speaker_embedding(of)


def speaker_embedding(clip: AudioClip) -> FloatArray:
    """Who is heard: [256] float32 of unit length, by our own speaker encoder.

    Args:
        clip: [1, N], any rate.

    Raises:
        ModelError: The encoder is absent or damaged.
    """
    samples = _at_model_rate(clip)
    num_frames = 1 + len(samples) // HOP_LENGTH
    padded = np.zeros((num_frames + 2) * HOP_LENGTH + 1024, np.float32)
    padded[512:][: len(samples)] = samples
    raw = raw_levels(padded)
    level = loudness(raw)
    active = level > np.percentile(level, 95) - ACTIVE_DB / _NEPER
    return embed_levels(load_speaker(), torch.from_numpy(raw[active, :NUM_SPEECH_BANDS])).numpy()


def _watched(samples: FloatArray, ctx: JobContext | None = None) -> Iterator[FloatArray]:
    """A recording [N] in blocks."""
    for start in range(0, len(samples), _SEGMENT_SECONDS * SAMPLE_RATE):
        if ctx:
            ctx.checkpoint("Listening to the voice", start / len(samples))
        yield samples[start : start + _SEGMENT_SECONDS * SAMPLE_RATE]


def _active(envelope: FloatArray, below_db: float) -> npt.NDArray[np.bool_]:
    """[T]: frames that are neither silent nor so far below the loud ones."""
    level = loudness(envelope)
    return (level > np.percentile(level, 95) - below_db / _NEPER) & (level > -60.0 / _NEPER)


def _at_model_rate(clip: AudioClip) -> FloatArray:
    if clip.num_channels != 1:
        raise ValueError(f"the clip must be mono, not of {clip.num_channels} channels")
    samples = clip.samples[0]
    if clip.sample_rate != SAMPLE_RATE:
        samples = soxr.resample(samples, clip.sample_rate, SAMPLE_RATE)
        wanted = round(clip.num_samples * SAMPLE_RATE / clip.sample_rate)
        samples = np.pad(samples, (0, max(0, wanted - len(samples))))[:wanted]
    return np.ascontiguousarray(samples, np.float32)


def _bandwidth(envelope: FloatArray, sample_rate: int) -> float:
    if not len(envelope):
        return sample_rate / 2
    level = np.mean(envelope, axis=0) * _NEPER
    held = np.flatnonzero(level > level.max() - _HELD_DB)
    return min(float(BAND_CENTRES_HZ[held[-1]]), sample_rate / 2)
