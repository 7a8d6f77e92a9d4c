"""Improve a voice: fine-tune what conditions the decoder on a person's own recordings.

The recordings are first disguised: converted, by the same models, into strangers with other prints, formants and pitch.
Fine-tuning then learns the way back, which is what conversion to this voice is: from a stranger's rendition to the
person's own envelopes, frame by frame. The networks stay as they are; the voice's prints, its condition and its bias
move, held near where they began. The last quarter of the recordings is held out, disguised by a stranger whom training
did not meet, and decides whether the result is kept.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from engine.conversion.bands import BAND_CENTRES_HZ, NUM_BANDS, SAMPLE_RATE
from engine.conversion.converter import AnalysedClip, Converter, load_converter, similarity
from engine.conversion.decoder import Conditioning, DecoderInputs, tensor_loudness
from engine.conversion.prints import PrintModel
from engine.conversion.source import SourceColour
from engine.conversion.voice import Voice, voice_model_id
from engine.errors import EnrollmentError, ModelError
from engine.jobs import JobContext
from engine.pitch import F0Contour, estimate_f0
from engine.signal import resample
from engine.signal.clip import AudioClip, FloatArray

STAGE = "Improving the voice"
_HELD_OUT = 0.25
_MIN_SECONDS, _MAX_SECONDS = 16.0, 180.0
_STRANGERS = ((-5.0, -2.0), (4.0, 2.0), (7.0, 0.5))  # (semitones of pitch, semitones of formants), for training
_UNMET_STRANGER = (-3.0, 1.2)
_STEPS = 240
_EXCERPTS, _FRAMES, _WARM_UP = 12, 160, 28
_RATES = {"prints": 4e-3, "condition": 4e-3, "bias": 4e-3}
_HOLD = {"prints": 3e-3, "condition": 3e-3, "bias": 3e-3}  # pull towards where each began


@dataclass(frozen=True)
class Improvement:
    """Outcome of fine-tuning.

    Attributes:
        voice: The better voice; the one given when it was not kept.
        similarity_before: Cosine between the held-out seconds and a stranger's rendition of them converted to the
            voice as it was.
        similarity_after: The same with the fine-tuned voice.
        kept: Whether the fine-tuned voice is the result.
    """

    voice: Voice
    similarity_before: float
    similarity_after: float
    kept: bool


@dataclass(frozen=True)
class _Lesson:
    """One disguised recording: what the decoder is given and the envelopes [T, 72] that it should give back."""

    posteriors: FloatArray
    deviation: FloatArray
    f0_hz: FloatArray
    loudness: FloatArray
    relative_loudness: FloatArray
    envelope: FloatArray
    weight: FloatArray


def improve_voice(voice: Voice, clips: Sequence[AudioClip], *, ctx: JobContext, steps: int = _STEPS) -> Improvement:
    """Fine-tune a voice on recordings of the person; the voice given is left as it is.

    Args:
        voice: Made by the installed models.
        clips: Mono, any rate; of three minutes at most the first are used.
        ctx: Progress and cancellation.
        steps: Of gradient descent.

    Returns:
        The voice with its prints, condition and bias moved, if similarity on held-out seconds rose.

    Raises:
        EnrollmentError: There are less than 16 seconds.
        ModelError: The voice was made by other models, or a model is absent.
        Cancelled: The job was stopped.
    """
    if voice.model_id != voice_model_id():
        raise ModelError(
            "This voice was made by another version of the models.", hint="Make it again from its recordings first."
        )
    converter = load_converter("studio")
    ctx.checkpoint(STAGE, 0.0)
    taught, held_out = _split(clips)
    lessons, share = [], 0.5 / len(_STRANGERS)
    own_f0 = estimate_f0(taught, tracker="swift", ctx=ctx.part(0.0, 0.02))
    own = converter.analyse(taught, f0=own_f0, ctx=ctx.part(0.02, 0.05))
    for number, stranger in enumerate(_STRANGERS):
        part = ctx.part(0.05 + number * share, 0.05 + (number + 1) * share)
        disguised = _disguise(converter, taught, own_f0, stranger, seed=number, ctx=part)
        lessons.append(_lesson(converter, own, own_f0, disguised, part))
    tuned = _fine_tune(converter, voice, lessons, steps, ctx.part(0.55, 0.9))
    held_f0 = estimate_f0(held_out, tracker="swift", ctx=ctx.part(0.9, 0.91))
    disguised = _disguise(converter, held_out, held_f0, _UNMET_STRANGER, seed=len(_STRANGERS), ctx=ctx.part(0.91, 0.94))
    before = _likeness(converter, voice, disguised, held_out, held_f0, ctx.part(0.94, 0.97))
    after = _likeness(converter, tuned, disguised, held_out, held_f0, ctx.part(0.97, 1.0))
    kept = after > before
    return Improvement(tuned if kept else voice, before, after, kept)


def _split(clips: Sequence[AudioClip]) -> tuple[AudioClip, AudioClip]:
    """All recordings at the models' rate, joined: what is taught, and what is held out."""
    joined = np.concatenate(
        [resample(clip.mono(), SAMPLE_RATE).samples for clip in clips] or [np.zeros((1, 0), np.float32)], axis=1
    )[:, : int(_MAX_SECONDS * SAMPLE_RATE)]
    if joined.shape[1] < _MIN_SECONDS * SAMPLE_RATE:
        raise EnrollmentError(
            "There is too little to improve this voice with.", hint="Add recordings: half a minute is enough."
        )
    border = int(joined.shape[1] * (1.0 - _HELD_OUT))
    taught, held_out = np.ascontiguousarray(joined[:, :border]), np.ascontiguousarray(joined[:, border:])
    return AudioClip(taught, SAMPLE_RATE), AudioClip(held_out, SAMPLE_RATE)


def _stranger(model: PrintModel, voice_id: str, size: tuple[int, int], seed: int) -> Voice:
    """A voice that nobody has: the average one moved at random along the eigenvoices."""
    rng = np.random.default_rng(seed)
    prints = model.mean.copy()
    if len(model.directions):
        moved = np.tensordot(rng.standard_normal(len(model.directions)).astype(np.float32), model.directions, axes=1)
        prints[:, :, : moved.shape[-1]] += moved
    embedding_size, condition_size = size
    direction = rng.standard_normal(embedding_size).astype(np.float32)
    tensors = {
        "prints": prints,
        "condition": np.zeros(condition_size, np.float32),
        "bias": np.zeros((2, NUM_BANDS), np.float32),
    }
    return Voice("", direction / np.linalg.norm(direction), tensors, 150.0, (100.0, 250.0), voice_id)


def _disguise(
    converter: Converter,
    clip: AudioClip,
    f0: F0Contour,
    manner: tuple[float, float],
    *,
    seed: int,
    ctx: JobContext,
) -> tuple[AudioClip, F0Contour]:
    """A stranger's rendition and its F0."""
    semitones, formants = manner
    size = (converter.decoder.project.in_features, converter.decoder.project.out_features)
    stranger = _stranger(converter.print_model, voice_model_id(), size, seed)
    moved = f0.transposed(semitones)
    rendition = converter.convert(clip, stranger, moved, source_f0=f0, formant_semitones=formants, ctx=ctx)
    return rendition, moved


def _lesson(
    converter: Converter, own: AnalysedClip, own_f0: F0Contour, disguised: tuple[AudioClip, F0Contour], ctx: JobContext
) -> _Lesson:
    """Read the rendition as conversion would, with the person's own frames as the goal."""
    rendition, moved = disguised
    heard = converter.analyse(rendition, f0=moved, ctx=ctx)
    colour = SourceColour(converter.print_model, converter.source_statistics(rendition, moved))
    frames = colour.push(heard.envelope, heard.posteriors, heard.f0_hz)
    count = min(len(own.envelope), len(heard.envelope))
    held = own.bandwidth_hz * 0.95 >= BAND_CENTRES_HZ
    audible = 1.0 / (1.0 + np.exp(-(frames.relative_loudness[:count] + 6.0)))
    return _Lesson(
        posteriors=heard.posteriors[:count],
        deviation=frames.deviation[:count],
        f0_hz=np.nan_to_num(own_f0.at(np.arange(count) * 0.01)).astype(np.float32),
        loudness=frames.loudness[:count],
        relative_loudness=frames.relative_loudness[:count],
        envelope=own.envelope[:count],
        weight=(audible[:, None] * held).astype(np.float32),
    )


def _fine_tune(converter: Converter, voice: Voice, lessons: Sequence[_Lesson], steps: int, ctx: JobContext) -> Voice:
    """Gradient descent on the conditioning tensors alone."""
    rng = np.random.default_rng(0)
    began = {name: torch.from_numpy(voice.tensors[name].copy()) for name in _RATES}
    moving = {name: tensor.clone().requires_grad_(True) for name, tensor in began.items()}
    optimizer = torch.optim.Adam([{"params": [moving[name]], "lr": rate} for name, rate in _RATES.items()])
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(steps, 1))
    embedding = torch.from_numpy(voice.speaker_embedding.copy())
    for step in range(steps):
        ctx.checkpoint(STAGE, step / steps)
        inputs, envelope, weight = _draw(lessons, rng)
        batch = len(envelope)
        conditioning = Conditioning(
            embedding.expand(batch, -1),
            moving["prints"].expand(batch, -1, -1, -1),
            moving["condition"].expand(batch, -1),
            moving["bias"].expand(batch, -1, -1),
        )
        shape, _share, _state = converter.decoder(inputs, conditioning)
        goal = envelope - tensor_loudness(envelope).unsqueeze(-1)
        error = (shape - tensor_loudness(shape).unsqueeze(-1) - goal).abs()
        loss = (error * weight).sum() / (weight.sum() + 1.0)
        for name, strength in _HOLD.items():
            loss = loss + strength * (moving[name] - began[name]).square().mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
    tensors = {**voice.tensors, **{name: tensor.detach().numpy().copy() for name, tensor in moving.items()}}
    return replace(voice, tensors=tensors)


def _draw(lessons: Sequence[_Lesson], rng: np.random.Generator) -> tuple[DecoderInputs, torch.Tensor, torch.Tensor]:
    """Excerpts of random lessons: inputs, envelopes, weights; none for the first frames, while state builds up."""
    columns: list[list[FloatArray]] = [[] for _ in range(7)]
    for _ in range(_EXCERPTS):
        lesson = lessons[int(rng.integers(len(lessons)))]
        start = int(rng.integers(0, max(1, len(lesson.f0_hz) - _FRAMES)))
        part = slice(start, start + min(_FRAMES, len(lesson.f0_hz)))
        weight = lesson.weight[part].copy()
        weight[:_WARM_UP] = 0.0
        cut = (
            lesson.posteriors[part],
            lesson.deviation[part],
            lesson.f0_hz[part],
            lesson.loudness[part],
            lesson.relative_loudness[part],
            lesson.envelope[part],
            weight,
        )
        for column, values in zip(columns, cut, strict=True):
            column.append(values)
    tensors = [torch.from_numpy(np.stack(column).astype(np.float32)) for column in columns]
    return DecoderInputs(*tensors[:5]), tensors[5], tensors[6]


def _likeness(
    converter: Converter,
    voice: Voice,
    disguised: tuple[AudioClip, F0Contour],
    held_out: AudioClip,
    f0: F0Contour,
    ctx: JobContext,
) -> float:
    """How much the stranger's rendition, converted to the voice, sounds like the person saying the same."""
    rendition, moved = disguised
    return similarity(converter.convert(rendition, voice, f0, source_f0=moved, ctx=ctx), held_out)
