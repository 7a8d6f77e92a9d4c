"""Conversion of audio as it comes; whole recordings go through the same code in larger blocks."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt
import torch

from engine.conversion.bands import (
    BAND_CENTRES_HZ,
    HOP_LENGTH,
    NUM_BANDS,
    NUM_SPEECH_BANDS,
    SAMPLE_RATE,
    envelopes,
    loudness,
    shifted,
)
from engine.conversion.content import ContentEncoder, ContentStream
from engine.conversion.decoder import NO_LEVEL, Conditioning, Decoder, DecoderInputs, DecoderStream, to_controls
from engine.conversion.prints import PrintModel, PrintStatistics
from engine.conversion.source import FrameReader, SourceColour, SourceFrames
from engine.conversion.synthesis import SourceFilter, StreamingSourceFilter
from engine.conversion.voice import Voice
from engine.signal.clip import FloatArray

if TYPE_CHECKING:
    from engine.pitch import F0Contour

DEFAULT_CONSONANTS = 0.7
# The decoder asks for a little too much noise. On dev speakers the lift brings the frames that the pitch judge
# misses from 8 to 6 % and costs no likeness.
HARMONIC_LIFT = 1.5  # added to the logit of the harmonic share
# Trained on recordings that mostly end at 8 kHz, it leaves the air above too faint: 7 dB below recordings that have it.
_AIR = np.float32(0.8) * np.clip((BAND_CENTRES_HZ - 7600.0) / 1500.0, 0.0, 1.0).astype(np.float32)  # ln of power
# Rooms hum and rumble where no consonant has energy; spread over the wide bands, that noise would sound like a voice at
# 60 to 200 Hz. Measured on dev speakers: voicing errors fall from 12.5 to 11.1 %, of resynthesis from 9.9 to 8.0 %, F0
# errors from 34 to 24 cents; words and DNSMOS stay.
_RUMBLE_DB, _RUMBLE_BELOW_HZ = 30.0, 250.0
_VOICE_FADE_FRAMES = 10
_MAX_FRAMES = 500
_RECENT_FRAMES = 300


class PitchFeed(Protocol):
    """Where the F0 of frames comes from; frame t is centred on sample 480 t."""

    latency_samples: int

    def push(self, samples: FloatArray) -> tuple[FloatArray, FloatArray]:
        """[N] at 48 kHz to the source's and the wanted F0 of the frames that are final, [T] each, NaN unvoiced."""


class GivenPitch:
    """F0 contours known beforehand.

    Args:
        source: Of the source.
        wanted: Of the conversion.
    """

    latency_samples = 0

    def __init__(self, source: "F0Contour", wanted: "F0Contour") -> None:
        self._source, self._wanted = source, wanted
        self._num_samples = 0
        self._num_frames = 0

    def push(self, samples: FloatArray) -> tuple[FloatArray, FloatArray]:
        """See `PitchFeed`."""
        self._num_samples += len(samples)
        end = self._num_samples // HOP_LENGTH + 1
        times = np.arange(self._num_frames, end) * (HOP_LENGTH / SAMPLE_RATE)
        self._num_frames = end
        return self._source.at(times).astype(np.float32), self._wanted.at(times).astype(np.float32)


class TrackedPitch:
    """F0 followed as the audio comes; the wanted one is the source's."""

    def __init__(self) -> None:
        from engine.pitch import StreamingF0

        # Two frames ahead: the content encoder looks further, so that they cost no latency.
        self._tracker = StreamingF0(SAMPLE_RATE, lookahead_frames=2)
        self.latency_samples = self._tracker.latency_samples

    def push(self, samples: FloatArray) -> tuple[FloatArray, FloatArray]:
        """See `PitchFeed`."""
        f0_hz = np.asarray(self._tracker.push(samples), np.float32)
        return f0_hz, f0_hz


class PosteriorStream:
    """The content encoder over audio at 16 kHz as it comes, giving probabilities.

    Args:
        encoder: Shared.
    """

    def __init__(self, encoder: ContentEncoder) -> None:
        self._stream = ContentStream(encoder)
        self.latency_samples = self._stream.latency_samples

    def push(self, samples: FloatArray) -> FloatArray:
        """See `engine.conversion.source.PhoneStream`."""
        log_posteriors = self._stream.push(torch.from_numpy(samples)[None])
        return np.exp(np.ascontiguousarray(log_posteriors[0].cpu().numpy().T))


@dataclass(frozen=True)
class StreamParts:
    """The models that a stream runs on, shared between streams.

    Attributes:
        content: The content encoder, in evaluation mode.
        decoder: In evaluation mode.
        source_filter: The synthesis.
        print_model: What is known of voices beforehand.
        torch_device: Where the decoder runs.
    """

    content: ContentEncoder
    decoder: Decoder
    source_filter: SourceFilter
    print_model: PrintModel
    torch_device: str


def conditioning_of(voice: Voice, torch_device: str = "cpu") -> Conditioning:
    """A voice as the decoder takes it, batch of one."""

    def tensor(array: FloatArray) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(array, np.float32))[None].to(torch_device)

    tensors = voice.tensors
    return Conditioning(
        tensor(voice.speaker_embedding),
        tensor(tensors["prints"]),
        tensor(tensors["condition"]),
        tensor(tensors["bias"]),
    )


class ConversionStream:
    """Converts one mono signal at 48 kHz as it comes.

    Made by `Converter.stream`. One thread pushes; any thread may set `voice`, `transpose_semitones` and
    `formant_semitones`, which take effect at the next frame and fade in without a click.
    """

    sample_rate_in = SAMPLE_RATE
    sample_rate_out = SAMPLE_RATE

    def __init__(
        self,
        parts: StreamParts,
        voice: Voice,
        *,
        pitch: "PitchFactory",
        transpose_semitones: float = 0.0,
        formant_semitones: float = 0.0,
        consonants: float = DEFAULT_CONSONANTS,
        primed: PrintStatistics | None = None,
        seed: int = 0,
    ) -> None:
        self._parts = parts
        self._pitch, self._primed, self._seed = pitch, primed, seed
        self.transpose_semitones = transpose_semitones
        self.formant_semitones = formant_semitones
        self.consonants = consonants
        self._voice = voice
        self._wanted_voice = conditioning_of(voice, parts.torch_device)
        self.reset()

    @property
    def latency_samples(self) -> int:
        """How many samples, at 48 kHz, the output lags behind the input."""
        return self._latency_samples

    @property
    def voice(self) -> Voice:
        """The wanted voice; a new one fades in over 0.1 s."""
        return self._voice

    @voice.setter
    def voice(self, voice: Voice) -> None:
        self._wanted_voice = conditioning_of(voice, self._parts.torch_device)
        self._voice = voice

    @property
    def recent_f0(self) -> tuple[FloatArray, FloatArray]:
        """Source and converted F0 of the last three seconds, [T] each at 10 ms, NaN where unvoiced."""
        source, converted = self._recent
        return source, converted

    def reset(self) -> None:
        """Start anew, as if nothing had been heard."""
        content, self._feed = PosteriorStream(self._parts.content), self._pitch()
        self._reader = FrameReader(content)
        lookahead = max(FrameReader.lookahead_samples(content.latency_samples), self._feed.latency_samples)
        self._latency_samples = lookahead + HOP_LENGTH
        self._f0: tuple[FloatArray, FloatArray] = (np.zeros(0, np.float32), np.zeros(0, np.float32))
        self._colour = SourceColour(self._parts.print_model, self._primed)
        self._finish = Finish()
        self._synthesis = StreamingSourceFilter(self._parts.source_filter, self._seed)
        self._decoder = DecoderStream(self._parts.decoder)
        self._used_voice = self._ramp_target = self._wanted_voice
        self._ramp_origin = self._used_voice
        self._ramp_left = 0
        self._colour.aim_at(self._ramp_target.prints[0].cpu().numpy())
        self._output = np.zeros(self._latency_samples, np.float32)
        self._recent = np.zeros((2, 0), np.float32)

    def push(self, samples: FloatArray) -> FloatArray:
        """Convert.

        Args:
            samples: [N] float32 at 48 kHz, any N; values that are not finite count as silence.

        Returns:
            [N] float32: what was pushed `latency_samples` ago, converted.
        """
        samples = np.asarray(samples, np.float32)
        if not np.isfinite(samples).all():
            samples = np.nan_to_num(samples, nan=0.0, posinf=0.0, neginf=0.0)
        parts = [self._output]
        for start in range(0, len(samples), _MAX_FRAMES * HOP_LENGTH):
            part = samples[start : start + _MAX_FRAMES * HOP_LENGTH]
            self._reader.push(part)
            source, wanted = self._feed.push(part)
            self._f0 = np.concatenate([self._f0[0], source]), np.concatenate([self._f0[1], wanted])
            num_ready = min(self._reader.num_ready, len(self._f0[0]))
            if num_ready:
                parts.append(self._convert(num_ready))
        joined = np.concatenate(parts)
        self._output = joined[len(samples) :].copy()
        return joined[: len(samples)]

    def flush(self) -> FloatArray:
        """The last `latency_samples` of output; push nothing after it but through `reset`."""
        return self.push(np.zeros(self._latency_samples, np.float32))

    @torch.inference_mode()
    def _convert(self, num_frames: int) -> FloatArray:
        audio, posteriors = self._reader.take(num_frames)
        source_f0, wanted_f0 = (values[:num_frames] for values in self._f0)
        self._f0 = self._f0[0][num_frames:], self._f0[1][num_frames:]
        wanted_f0 = wanted_f0 * np.float32(2.0 ** (self.transpose_semitones / 12))
        self._recent = np.concatenate([self._recent, [source_f0, wanted_f0]], axis=1)[:, -_RECENT_FRAMES:]
        frames = self._colour.push(envelopes(audio, source_f0), posteriors, source_f0)
        formant_semitones, consonants = self.formant_semitones, self.consonants
        produced = []
        start = 0
        while start < num_frames:
            fading = self._next_voice()
            end = start + 1 if fading else num_frames
            part = slice(start, end)
            produced.append(self._synthesise(_cut(frames, part), wanted_f0[part], formant_semitones, consonants))
            start = end
        return np.concatenate(produced)

    def _next_voice(self) -> bool:
        """Move on to the wanted voice; True while it still fades in."""
        if self._wanted_voice is not self._ramp_target:
            self._ramp_origin, self._ramp_target = self._used_voice, self._wanted_voice
            self._ramp_left = _VOICE_FADE_FRAMES
            self._colour.aim_at(self._ramp_target.prints[0].cpu().numpy())
        if not self._ramp_left:
            return False
        self._ramp_left -= 1
        share = 1.0 - self._ramp_left / _VOICE_FADE_FRAMES
        origin, target = self._ramp_origin, self._ramp_target
        self._used_voice = Conditioning(
            torch.lerp(origin.embedding, target.embedding, share),
            torch.lerp(origin.prints, target.prints, share),
            torch.lerp(origin.condition, target.condition, share),
            torch.lerp(origin.bias, target.bias, share),
        )
        return True

    def _synthesise(self, frames: SourceFrames, f0_hz: FloatArray, formant: float, consonants: float) -> FloatArray:
        shape, share = self._decoder.push(frames, f0_hz, self._used_voice)
        voiced = f0_hz[:, None] > 0
        shape = self._finish.push(shape, frames.shape, voiced, formant, consonants)
        # As `engine.conversion.decoder.to_controls`, in NumPy.
        levels = shape + _AIR + (frames.loudness - loudness(shape))[:, None]
        share = share + np.float32(HARMONIC_LIFT)
        of_harmonics = levels - np.logaddexp(0, -share)  # the noise lies below them by the logit of their share
        harmonic = np.where(voiced, of_harmonics, np.float32(NO_LEVEL))
        noise = np.where(voiced, of_harmonics - share, levels - _RUMBLE)
        return self._synthesis.push(f0_hz, harmonic, noise)


class PitchFactory(Protocol):
    """Makes a fresh feed of F0."""

    def __call__(self) -> PitchFeed:
        """A feed at its start."""


class Finish:
    """The last touch to the decoder's envelopes, all of it linear: formants moved, consonants kept."""

    def __init__(self) -> None:
        self._consonants = 0.0

    def push(
        self,
        shape: FloatArray,
        source_shape: FloatArray,
        voiced: npt.NDArray[np.bool_],
        formant: float,
        consonants: float,
    ) -> FloatArray:
        """Finish frames.

        Args:
            shape: [T, 72] as decoded.
            source_shape: [T, NUM_SPEECH_BANDS].
            voiced: [T, 1].
            formant: Semitones.
            consonants: 0 to 1: how far unvoiced frames are drawn back to the source's own envelope, so that
                consonants stay as they were said.
        """
        shape = shifted(shape, formant)
        if voiced.all():
            return shape
        if consonants != self._consonants:
            self._towards, self._consonants = np.float32(consonants) * _consonant_matrix(), consonants
        unvoiced = shape
        if consonants:
            unvoiced = shape + (source_shape - shape[:, :NUM_SPEECH_BANDS]) @ self._towards
        return np.where(voiced, shape, unvoiced)


def protect(shape: torch.Tensor, source_shape: torch.Tensor, f0_hz: torch.Tensor, amount: float) -> torch.Tensor:
    """What `Finish` does to unvoiced frames, for tensors.

    Args:
        shape: [B, T, 72] converted.
        source_shape: [B, T, NUM_SPEECH_BANDS].
        f0_hz: [B, T] wanted F0; voiced frames stay.
        amount: 0 (as converted) to 1 (the source's).
    """
    towards = torch.from_numpy(np.float32(amount) * _consonant_matrix()).to(shape)
    change = (source_shape - shape[..., :NUM_SPEECH_BANDS]) @ towards
    return shape + torch.where((f0_hz > 0).unsqueeze(-1), torch.zeros_like(change), change)


def controls_of(shape: torch.Tensor, share: torch.Tensor, inputs: DecoderInputs) -> torch.Tensor:
    """What `ConversionStream` makes of finished envelopes [1, T, 72]: levels of harmonics and noise, [2, 1, T, 72]."""
    air, rumble = (torch.from_numpy(levels).to(shape.device) for levels in (_AIR, _RUMBLE))
    controls = to_controls(shape + air, share + HARMONIC_LIFT, inputs, inputs.loudness)
    noise = torch.where((inputs.f0_hz > 0).unsqueeze(-1), controls.noise, controls.noise - rumble)
    return torch.stack([controls.harmonic, noise])


def _consonant_matrix() -> FloatArray:
    """[NUM_SPEECH_BANDS, 72]: a difference of envelopes without its level; above, the mean of the highest four."""
    without_level = np.eye(NUM_SPEECH_BANDS, dtype=np.float32) - np.float32(1 / NUM_SPEECH_BANDS)
    top = without_level[:, -4:].mean(axis=1, keepdims=True)
    return np.concatenate([without_level, np.repeat(top, NUM_BANDS - NUM_SPEECH_BANDS, axis=1)], axis=1)


def _rumble_levels() -> FloatArray:
    """[72] natural logarithm of power: what is taken off the noise of unvoiced frames, fading out below the limit."""
    share = np.interp(BAND_CENTRES_HZ, [0.7 * _RUMBLE_BELOW_HZ, _RUMBLE_BELOW_HZ], [1.0, 0.0])
    return np.asarray(share * _RUMBLE_DB * np.log(10.0) / 10.0, np.float32)


_RUMBLE = _rumble_levels()


def _cut(frames: SourceFrames, part: slice) -> SourceFrames:
    return SourceFrames(
        frames.posteriors[part],
        frames.deviation[part],
        frames.shape[part],
        frames.loudness[part],
        frames.relative_loudness[part],
    )
