"""Whole recordings, in long stretches on the torch device: what `streaming` does to blocks, without its haste."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch

from engine.conversion.bands import (
    HOP_LENGTH,
    LOOKAHEAD_SAMPLES,
    NUM_BANDS,
    NUM_SPEECH_BANDS,
    SAMPLE_RATE,
    WINDOW_LENGTH,
    exact_device,
    shifted,
    tensor_band_levels,
)
from engine.conversion.content import ContentEncoder, ContentFrameStream
from engine.conversion.decoder import DecoderInputs, tensor_loudness
from engine.conversion.features import HOP_LENGTH as CONTENT_HOP
from engine.conversion.features import LogMel
from engine.conversion.prints import formant_distance
from engine.conversion.source import (
    DECIMATOR_LATENCY_SAMPLES,
    DEVIATION_LIMIT,
    DEVIATION_WEIGHT,
    SMOOTHING,
    LoudnessReference,
    decimation_taps,
    moved_deviation,
)
from engine.conversion.streaming import StreamParts, conditioning_of, controls_of, protect
from engine.conversion.synthesis import RINGING_SAMPLES, HopPhases, pulses_of_hops
from engine.conversion.voice import Voice
from engine.pitch import F0Contour
from engine.signal.clip import FloatArray

_DECIMATION = HOP_LENGTH // CONTENT_HOP


@dataclass(frozen=True)
class Frames:
    """Frames of a recording one after another, tensors on the torch device.

    Attributes:
        first: Number of the first.
        envelope: [T, 72] band levels.
        raw: [T, 72] unsmoothed.
        posteriors: [T, P].
        f0_hz: [T] of the source, NaN unvoiced, in NumPy.
    """

    first: int
    envelope: torch.Tensor
    raw: torch.Tensor
    posteriors: torch.Tensor
    f0_hz: FloatArray


class FrameF0:
    """The F0 of a contour at the frames of conversion, frame t at sample 480 t; NaN unvoiced and beyond its end."""

    def __init__(self, contour: F0Contour) -> None:
        count = math.ceil(contour.num_frames * contour.hop_s * SAMPLE_RATE / HOP_LENGTH) + 1
        self._f0_hz = contour.at(np.arange(count) * (HOP_LENGTH / SAMPLE_RATE))

    def cut(self, first: int, count: int) -> FloatArray:
        """[count] Hz from a frame on."""
        held = self._f0_hz[first : first + count]
        return np.pad(held, (0, count - len(held)), constant_values=np.nan)


@torch.inference_mode()
def analysed(blocks: Iterable[FloatArray], f0: FrameF0, content: ContentEncoder, torch_device: str) -> Iterator[Frames]:
    """Analyse a recording, all frames of a block at once.

    Args:
        blocks: [N] at 48 kHz one after another; of some seconds, since each is a step on the device. Values that are
            not finite count as silence.
        f0: Of the source.
        content: The content encoder, on that device.
        torch_device: Where to.

    Returns:
        1 + ceil(N / 480) frames, as `FrameReader` and `band_levels` give them with silence before and after.
    """
    log_mel, to_content_rate = LogMel().to(torch_device), torch.from_numpy(_decimation()).to(torch_device)
    stream, behind = ContentFrameStream(content), content.lookahead_frames
    before = DECIMATOR_LATENCY_SAMPLES + HOP_LENGTH  # what a frame needs on both its sides
    audio = torch.zeros(before, device=torch_device)
    hops = torch.zeros(1, CONTENT_HOP, device=torch_device)  # at 16 kHz, from the one before the next frame on
    levels = torch.zeros(2, 0, NUM_BANDS, device=torch_device)  # envelope and raw of frames that wait for their phones
    given = num_samples = 0
    for block in chain(blocks, [None]):
        if block is None:  # the end
            block = np.zeros(-num_samples % HOP_LENGTH + behind * HOP_LENGTH + before, np.float32)
        num_samples += len(block)
        finite = np.nan_to_num(np.asarray(block, np.float32), nan=0.0, posinf=0.0, neginf=0.0)
        audio = torch.cat([audio, torch.from_numpy(finite).to(torch_device)])
        count = (len(audio) - 2 * before) // HOP_LENGTH + 1
        if count <= 0:
            continue
        unfolded = audio[HOP_LENGTH:].unfold(0, len(to_content_rate), HOP_LENGTH)[:count]
        hops = torch.cat([hops[-1:], unfolded @ to_content_rate])
        posteriors = stream.push(log_mel.frames(hops.view(1, -1)))[0].exp().T.to(torch_device)
        windows = audio[before - LOOKAHEAD_SAMPLES :][: (count - 1) * HOP_LENGTH + WINDOW_LENGTH]
        f0_hz = torch.from_numpy(f0.cut(given + levels.shape[1], count))
        levels = torch.cat([levels, torch.stack(tensor_band_levels(windows, f0_hz.to(torch_device)))], 1)
        audio = audio[count * HOP_LENGTH :]
        ready = len(posteriors)
        if ready:
            yield Frames(given, levels[0, :ready], levels[1, :ready], posteriors, f0.cut(given, ready))
            levels, given = levels[:, ready:], given + ready


def _decimation() -> FloatArray:
    """[622, 160]: from a hop and what the filter sees around it to the hop at 16 kHz, as one product."""
    taps = decimation_taps()
    matrix = np.zeros((HOP_LENGTH - _DECIMATION + len(taps), CONTENT_HOP), np.float32)
    for sample in range(CONTENT_HOP):
        matrix[sample * _DECIMATION :][: len(taps), sample] = taps
    return matrix


class RecordingConversion:
    """Converts the frames of one recording, in stretches of any length.

    Args:
        parts: The models.
        voice: Who it should sound like.
        formant_semitones: Moves the envelope.
        consonants: See `Converter.convert`.
        seed: Of the noise.
    """

    def __init__(
        self, parts: StreamParts, voice: Voice, *, formant_semitones: float, consonants: float, seed: int = 0
    ) -> None:
        self._decoder, self._source_filter, self._torch_device = parts.decoder, parts.source_filter, parts.torch_device
        self._voice, self._voice_prints = conditioning_of(voice, parts.torch_device), voice.tensors["prints"]
        self._shift = self._tensor(shifted(np.eye(NUM_BANDS, dtype=np.float32), formant_semitones))
        self._smoothing = self._tensor(SMOOTHING)
        self._consonants = consonants
        self._reference = LoudnessReference()
        self._state = parts.decoder.initial_state()
        self._noise, self._phases = np.random.default_rng(seed), HopPhases()
        self._tail: torch.Tensor | None = None  # of the last pulses
        self._last: torch.Tensor | None = None  # filters of the frame before, [2, 1, 1, 1025]
        self._ringing = torch.zeros(RINGING_SAMPLES, device=parts.torch_device)

    def settle(self, source_prints: FloatArray) -> None:
        """Take the source's own prints, [2, P, 72], as known for the frames to come."""
        self._own = self._tensor(source_prints[:, :, :NUM_SPEECH_BANDS])
        semitones = formant_distance(source_prints, np.asarray(self._voice_prints, np.float32))
        self._moving = self._tensor(moved_deviation(np.eye(NUM_SPEECH_BANDS, dtype=np.float32), semitones))

    @torch.inference_mode()
    def push(self, frames: Frames, f0_hz: FloatArray) -> FloatArray:
        """Convert the next frames.

        Args:
            frames: T of them.
            f0_hz: [T] wanted F0, NaN where unvoiced.

        Returns:
            [T * 480] samples that end at the last frame, 480 fewer on the first call.
        """
        inputs, source_shape = self._read(frames, f0_hz)
        shape, share, self._state = self._decoder(inputs, self._voice, self._state)
        shape = protect(shape @ self._shift, source_shape, inputs.f0_hz, self._consonants)
        return self._synthesise(f0_hz, controls_of(shape, share, inputs))

    def _read(self, frames: Frames, f0_hz: FloatArray) -> tuple[DecoderInputs, torch.Tensor]:
        """As `SourceColour` does once the prints are settled; and the source's own shape."""
        level = tensor_loudness(frames.envelope)
        relative, _ = self._reference.push(level.cpu().numpy())
        shape = (frames.envelope - level[:, None])[:, :NUM_SPEECH_BANDS]
        voiced = self._tensor(np.isfinite(frames.f0_hz))[:, None]
        own = torch.where(voiced, frames.posteriors @ self._own[1], frames.posteriors @ self._own[0])
        deviation = ((shape - own) @ self._smoothing).clamp(-DEVIATION_LIMIT, DEVIATION_LIMIT) @ self._moving
        inputs = DecoderInputs(
            frames.posteriors[None],
            deviation[None] * float(DEVIATION_WEIGHT),
            self._tensor(np.nan_to_num(f0_hz))[None],
            level[None],
            self._tensor(relative)[None],
        )
        return inputs, shape[None]

    def _synthesise(self, f0_hz: FloatArray, levels: torch.Tensor) -> FloatArray:
        """As `StreamingSourceFilter` does, levels [2, 1, T, 72]."""
        pulses = self._pulses(f0_hz)
        noise = self._tensor(self._noise.standard_normal((len(f0_hz), HOP_LENGTH), dtype=np.float32))
        filters = self._source_filter.tabled_filters(levels)
        if self._last is None:
            pulses, noise = pulses[1:], noise[1:]
        else:
            filters = torch.cat([self._last, filters], 2)
        self._last = filters[:, :, -1:].clone()
        if not len(pulses):
            return np.zeros(0, np.float32)
        audio = self._source_filter.shape(pulses[None], noise[None], filters)[0]
        audio[:RINGING_SAMPLES] += self._ringing
        self._ringing = audio[len(pulses) * HOP_LENGTH :].clone()
        made: FloatArray = audio[: len(pulses) * HOP_LENGTH].cpu().numpy()
        return made

    def _pulses(self, f0_hz: FloatArray) -> torch.Tensor:
        """As `Excitation.push`: [T, 480]."""
        hops = torch.from_numpy(self._phases.push(f0_hz)).to(exact_device(self._torch_device))
        pulses = pulses_of_hops(*hops[:, None])[0].to(self._torch_device)
        size = len(f0_hz) * HOP_LENGTH
        if self._tail is not None:
            pulses[: len(self._tail)] += self._tail
        self._tail = pulses[size:].clone()
        return pulses[:size].view(-1, HOP_LENGTH)

    def _tensor(self, array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self._torch_device)
