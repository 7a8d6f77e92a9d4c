"""Source-filter synthesis: pulses at the wanted F0 and noise, each shaped by a minimum-phase filter per frame.

Every hop of excitation passes through the filters of the frames on both its sides and is cross-faded between them, so
that a change of any parameter takes a hop and never clicks. Minimum phase costs no latency: a filter only rings on.
Tensors everywhere, because training goes through the same code as `push`.
"""

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
import torch

from engine.conversion.bands import HOP_LENGTH, NUM_BANDS, SAMPLE_RATE, interpolation_matrix
from engine.conversion.graphs import CompiledGraph, Graph
from engine.signal.clip import FloatArray

FFT_LENGTH = 2048
NUM_BINS = FFT_LENGTH // 2 + 1
RINGING_SAMPLES = FFT_LENGTH - HOP_LENGTH

KERNEL_TAPS = 32
KERNEL_PHASES = 128
_SILENT_LEVEL = -18.5  # natural log of power per bin, -80 dBFS white noise: the synthesis fades to zero below
_SILENT_FADE = 2.3  # 10 dB
_FEW_HOPS = 16


def _pulse_kernels() -> FloatArray:
    """[phases + 1, taps]: one band-limited unit pulse at each fraction of a sample."""
    fraction = np.arange(KERNEL_PHASES + 1)[:, None] / KERNEL_PHASES
    time = np.arange(KERNEL_TAPS)[None, :] - (KERNEL_TAPS // 2 - 1) - fraction
    window = np.cos(np.pi * time / (KERNEL_TAPS + 1)) ** 2
    return (np.sinc(time * 0.97) * 0.97 * window).astype(np.float32)


KERNELS = _pulse_kernels()
_RAMP = np.arange(1, HOP_LENGTH + 1) / HOP_LENGTH
_RAMPS = _RAMP * HOP_LENGTH / SAMPLE_RATE, _RAMP * _RAMP / 2 * HOP_LENGTH / SAMPLE_RATE  # of F0 and its change: cycles


class Excitation:
    """Makes the two excitations hop by hop: pulses of unit power where voiced, white noise of unit power everywhere.

    The noise depends on the hop's number alone, so equal frames give equal audio however they are grouped.

    Args:
        seed: Seed of the noise.
    """

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed
        self.reset()

    def reset(self) -> None:
        """Forget all frames."""
        self._noise = np.random.default_rng(self._seed)
        self._phase = 0.0
        self._last_f0_hz = float("nan")
        self._tail = np.zeros(KERNEL_TAPS, np.float32)

    def push(self, f0_hz: FloatArray) -> tuple[FloatArray, FloatArray]:
        """The hops that end at the given frames.

        Args:
            f0_hz: [T] wanted F0 of the frames, NaN where unvoiced.

        Returns:
            Pulses and noise, each [T, 480] float32; hop t lies between frames t - 1 and t.
        """
        num_frames = len(f0_hz)
        noise = self._noise.standard_normal((num_frames, HOP_LENGTH), dtype=np.float32)
        pulses = np.zeros(num_frames * HOP_LENGTH + KERNEL_TAPS, np.float32)
        pulses[:KERNEL_TAPS] = self._tail
        for index, end in enumerate(f0_hz.tolist()):
            start = self._last_f0_hz
            self._last_f0_hz = end
            if math.isnan(start) and math.isnan(end):
                self._phase = 0.5
                continue
            start = end if math.isnan(start) else start
            end = start if math.isnan(end) else end
            # F0 runs linearly inside a hop; its integral crosses an integer at every pulse.
            cycles = _RAMPS[0] * start + _RAMPS[1] * (end - start)
            cycles += self._phase
            whole = np.floor(cycles)
            for hit in np.flatnonzero(np.diff(whole, prepend=math.floor(self._phase))).tolist():
                before = float(cycles[hit - 1]) if hit else self._phase
                step = float(cycles[hit]) - before
                row = KERNELS[round((float(whole[hit]) - before) / step * KERNEL_PHASES)]
                place = index * HOP_LENGTH + hit
                pulses[place : place + KERNEL_TAPS] += np.float32(math.sqrt(1.0 / step)) * row
            self._phase = float(cycles[-1] % 1.0)
        self._tail = pulses[num_frames * HOP_LENGTH :].copy()
        return pulses[: num_frames * HOP_LENGTH].reshape(num_frames, HOP_LENGTH), noise


class HopPhases:
    """Follows the phase of the pulses from hop to hop, as `Excitation` does, for `pulses_of_hops`."""

    def __init__(self) -> None:
        self._phase, self._last_f0_hz = 0.0, float("nan")

    def push(self, f0_hz: FloatArray) -> npt.NDArray[np.float64]:
        """The hops that end at frames of F0 [T], NaN unvoiced: F0 at start and end (0 unvoiced) and phase, [3, T]."""
        hops = []
        of_start, of_change = float(_RAMPS[0][-1]), float(_RAMPS[1][-1])
        for end in f0_hz.tolist():
            start, self._last_f0_hz = self._last_f0_hz, end
            if math.isnan(start) and math.isnan(end):
                self._phase = 0.5
                hops.append((0.0, 0.0, 0.5))
                continue
            start = end if math.isnan(start) else start
            end = start if math.isnan(end) else end
            hops.append((start, end, self._phase))
            self._phase = (of_start * start + of_change * (end - start) + self._phase) % 1.0
        return np.array(hops).reshape(-1, 3).T


def pulses_of_hops(start_hz: torch.Tensor, end_hz: torch.Tensor, phase: torch.Tensor) -> torch.Tensor:
    """The pulses of `Excitation`, of all hops at once.

    Args:
        start_hz: [B, H] float64, F0 where each hop starts, 0 in unvoiced hops.
        end_hz: [B, H] where it ends.
        phase: [B, H] cycles, 0 to 1, where it starts.

    Returns:
        [B, H * 480 + KERNEL_TAPS] float32, of unit power where voiced.
    """
    of_start, of_change = (torch.from_numpy(ramp).to(start_hz.device) for ramp in _RAMPS)
    cycles = of_start * start_hz[..., None] + of_change * (end_hz - start_hz)[..., None]
    cycles += phase[..., None]
    before = torch.cat([phase[..., None], cycles[..., :-1]], dim=-1)
    row, hop, sample = (cycles.floor() > before.floor()).nonzero(as_tuple=True)
    after_pulse, before_pulse = cycles[row, hop, sample], before[row, hop, sample]
    step = after_pulse - before_pulse
    fraction = (after_pulse.floor() - before_pulse) / step
    kernels = torch.from_numpy(KERNELS).to(step.device)
    shapes = kernels[(fraction * KERNEL_PHASES).round().long()] * step.rsqrt().float()[:, None]
    batch, num_hops = start_hz.shape
    length = num_hops * HOP_LENGTH + KERNEL_TAPS
    places = (row * length + hop * HOP_LENGTH + sample)[:, None] + torch.arange(KERNEL_TAPS, device=step.device)
    pulses = torch.zeros(batch * length, device=step.device)
    pulses.index_add_(0, places.reshape(-1), shapes.reshape(-1))
    return pulses.view(batch, length)


@dataclass(frozen=True)
class SynthesisControls:
    """What the synthesis needs per frame.

    Attributes:
        harmonic: [B, T, 72] natural log of power per bin of the harmonic part.
        noise: The same of the noise part.
    """

    harmonic: torch.Tensor
    noise: torch.Tensor


def _fades() -> FloatArray:
    """[2, 1, 480]: falling and rising, of the filters before and after a hop."""
    rising = np.sin(np.pi / 2 * (np.arange(HOP_LENGTH) + 0.5) / HOP_LENGTH) ** 2
    return np.stack([1.0 - rising, rising])[:, None].astype(np.float32)


def _fold() -> FloatArray:
    """[2048]: makes a cepstrum that of the minimum phase."""
    fold = np.zeros(FFT_LENGTH, np.float32)
    fold[0] = fold[FFT_LENGTH // 2] = 1.0
    fold[1 : FFT_LENGTH // 2] = 2.0
    return fold


def _logarithm_and_phase() -> FloatArray:
    """[72, 2 * 1025]: from band levels to logarithm and phase of the filter, both linear in the levels."""
    cepstrum = np.fft.irfft(interpolation_matrix(NUM_BINS).astype(np.float64) / 2, FFT_LENGTH)
    spectrum = np.fft.rfft(cepstrum * _fold())
    return np.concatenate([spectrum.real, spectrum.imag], 1).astype(np.float32)


_FADES = _fades()


class SourceFilter(torch.nn.Module):
    """Shapes excitation by band levels and overlap-adds it; no weights, a module so that tables move to a device."""

    _rising: torch.Tensor
    _to_bins: torch.Tensor
    _fold: torch.Tensor
    _to_logarithm_and_phase: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("_rising", torch.from_numpy(_FADES[1, 0]), persistent=False)
        self.register_buffer("_to_bins", torch.from_numpy(interpolation_matrix(NUM_BINS)), persistent=False)
        self.register_buffer("_fold", torch.from_numpy(_fold()), persistent=False)
        self.register_buffer("_to_logarithm_and_phase", torch.from_numpy(_logarithm_and_phase()), persistent=False)

    def filters(self, levels: torch.Tensor) -> torch.Tensor:
        """Minimum-phase spectra of band levels, [..., 72] to complex [..., 1025], by the cepstrum.

        Levels below -80 dBFS fade to nothing, so digital silence stays digital silence.
        """
        magnitude = (levels @ self._to_bins) / 2
        cepstrum = torch.fft.irfft(magnitude, n=FFT_LENGTH) * self._fold
        return torch.exp(torch.fft.rfft(cepstrum)) * _gain(levels)

    def tabled_filters(self, levels: torch.Tensor) -> torch.Tensor:
        """`filters` by one product instead of transforms: logarithm and phase are linear in the levels.

        Quicker, but no way for training, which multiplies with fewer digits than phases need.
        """
        both = levels.flatten(0, -2) @ self._to_logarithm_and_phase
        logarithm, phase = both.unflatten(0, levels.shape[:-1]).split(NUM_BINS, -1)
        return torch.polar(torch.exp(logarithm) * _gain(levels), phase)

    @property
    def torch_device(self) -> torch.device:
        """Where the tables are."""
        return self._rising.device

    def forward(self, pulses: torch.Tensor, noise: torch.Tensor, controls: SynthesisControls) -> torch.Tensor:
        """Shape whole stretches.

        Args:
            pulses: [B, T - 1, 480]; hop t lies between frames t and t + 1 of the controls.
            noise: [B, T - 1, 480].
            controls: T frames.

        Returns:
            [B, (T - 1) * 480 + RINGING_SAMPLES], where the last RINGING_SAMPLES ring on.
        """
        return self.shape(pulses, noise, self.filters(torch.stack([controls.harmonic, controls.noise])))

    def shape(self, pulses: torch.Tensor, noise: torch.Tensor, filters: torch.Tensor) -> torch.Tensor:
        """As `forward`, with the filters [2, B, T, 1025] of harmonics and noise already made."""
        both = torch.stack([pulses, noise])
        falling = torch.fft.rfft(both * (1.0 - self._rising), n=FFT_LENGTH)
        rising = torch.fft.rfft(both * self._rising, n=FFT_LENGTH)
        spectrum = (falling * filters[:, :, :-1] + rising * filters[:, :, 1:]).sum(0)
        return overlap_add(torch.fft.irfft(spectrum, n=FFT_LENGTH))


def _gain(levels: torch.Tensor) -> torch.Tensor:
    """[..., 72] to [..., 1]: fades to nothing below -80 dBFS."""
    return torch.clamp((levels.amax(-1, keepdim=True) - _SILENT_LEVEL) / _SILENT_FADE, 0.0, 1.0)


def overlap_add(hops: torch.Tensor) -> torch.Tensor:
    """[B, T, 2048] to [B, (T - 1) * 480 + 2048]: each hop's response starts 480 samples after the one before."""
    batch, num_hops, length = hops.shape
    num_parts = -(-length // HOP_LENGTH)
    padded = torch.nn.functional.pad(hops, (0, num_parts * HOP_LENGTH - length))
    parts = padded.reshape(batch, num_hops, num_parts, HOP_LENGTH)
    total = hops.new_zeros(batch, num_hops + num_parts - 1, HOP_LENGTH)
    for part in range(num_parts):
        total[:, part : part + num_hops] += parts[:, :, part]
    return total.reshape(batch, -1)[:, : (num_hops - 1) * HOP_LENGTH + length]


class StreamingSourceFilter:
    """`SourceFilter` over frames that arrive in any grouping.

    Args:
        source_filter: The tables.
        seed: Seed of the noise.
    """

    def __init__(self, source_filter: SourceFilter, seed: int = 0) -> None:
        self._source_filter = source_filter
        self._excitation = Excitation(seed)
        self.reset()

    def reset(self) -> None:
        """Forget all frames."""
        self._excitation.reset()
        self._last: npt.NDArray[np.complex64] | None = None  # filters of the frame before, [2, 1, 1025]
        self._ringing = np.zeros(RINGING_SAMPLES, np.float32)

    def push(self, f0_hz: FloatArray, harmonic: FloatArray, noise: FloatArray) -> FloatArray:
        """Synthesise the hops that end at the given frames; the first frame of all only opens the first hop.

        Args:
            f0_hz: [T] wanted F0, NaN where unvoiced.
            harmonic: [T, 72], see `SynthesisControls`.
            noise: The same.

        Returns:
            [T * 480] float32, or 480 fewer on the first call.
        """
        if not len(f0_hz):
            return np.zeros(0, np.float32)
        levels, excitation = np.stack([harmonic, noise]), np.stack(self._excitation.push(f0_hz))
        if self._last is None:
            excitation = excitation[:, 1:]
        num_hops = excitation.shape[1]
        audio = self._few(levels, excitation) if num_hops <= _FEW_HOPS else self._many(levels, excitation)
        audio[:RINGING_SAMPLES] += self._ringing
        self._ringing = audio[num_hops * HOP_LENGTH :].copy()
        return audio[: num_hops * HOP_LENGTH]

    def _few(self, levels: FloatArray, excitation: FloatArray) -> FloatArray:
        """Levels [2, T, 72] and hops [2, T or T - 1, 480] to audio with its ringing, quickly for a few of them."""
        filters = _few_filters(levels)
        if self._last is not None:
            filters = np.concatenate([self._last, filters], axis=1)
        self._last = filters[:, -1:]
        spectra = np.fft.rfft(excitation[:, None] * _FADES, FFT_LENGTH)
        spectra[:, 0] *= filters[:, :-1]
        spectra[:, 1] *= filters[:, 1:]
        num_hops = excitation.shape[1]
        audio = np.zeros(num_hops * HOP_LENGTH + RINGING_SAMPLES, np.float32)
        for hop, response in enumerate(np.fft.irfft(spectra.sum(axis=(0, 1)), FFT_LENGTH)):
            audio[hop * HOP_LENGTH : hop * HOP_LENGTH + FFT_LENGTH] += response
        return audio

    def _many(self, levels: FloatArray, excitation: FloatArray) -> FloatArray:
        """The same for long stretches, on the torch device."""
        torch_device = self._source_filter.torch_device
        filters = self._source_filter.tabled_filters(torch.from_numpy(levels[:, None]).to(torch_device))
        if self._last is not None:
            filters = torch.cat([torch.from_numpy(self._last[:, None]).to(torch_device), filters], 2)
        self._last = filters[:, 0, -1:].cpu().numpy()
        pulses, white = torch.from_numpy(excitation[:, None]).to(torch_device)
        shaped: FloatArray = self._source_filter.shape(pulses, white, filters)[0].cpu().numpy()
        return shaped


@cache
def _filter_graph() -> CompiledGraph:
    """Inputs "levels" [N, 72] and "gain" [N, 1]; gives the filters' real and imaginary parts, [N, 1025]."""
    graph = Graph()
    both = graph.add("MatMul", graph.input("levels", NUM_BANDS), graph.constant(_logarithm_and_phase()))
    size = graph.add("Mul", graph.add("Exp", graph.columns(both, 0, NUM_BINS)), graph.input("gain", 1))
    phase = graph.columns(both, NUM_BINS)
    graph.output(graph.add("Mul", size, graph.add("Cos", phase)), NUM_BINS)
    graph.output(graph.add("Mul", size, graph.add("Sin", phase)), NUM_BINS)
    return graph.compile()


def _few_filters(levels: FloatArray) -> npt.NDArray[np.complex64]:
    """`SourceFilter.filters` of [2, T, 72], [2, T, 1025]."""
    rows = levels.reshape(-1, NUM_BANDS)
    gain = np.clip((rows.max(axis=1, keepdims=True) - _SILENT_LEVEL) / _SILENT_FADE, 0.0, 1.0)
    filters = np.empty((*levels.shape[:2], NUM_BINS), np.complex64)
    real, imaginary = _filter_graph().run({"levels": rows, "gain": gain})
    filters.real, filters.imag = real.reshape(filters.shape), imaginary.reshape(filters.shape)
    return filters
