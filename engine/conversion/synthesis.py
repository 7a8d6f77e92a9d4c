"""Source-filter synthesis: pulses at the wanted F0 and noise, each shaped by a minimum-phase filter per frame.

Every hop of excitation passes through the filters of the frames on both its sides and is cross-faded between them, so
that a change of any parameter takes a hop and never clicks. Minimum phase costs no latency: a filter only rings on.
Tensors everywhere, because training goes through the same code as `push`.
"""

from dataclasses import dataclass

import numpy as np
import torch

from engine.conversion.bands import HOP_LENGTH, SAMPLE_RATE, interpolation_matrix
from engine.signal.clip import FloatArray

FFT_LENGTH = 2048
NUM_BINS = FFT_LENGTH // 2 + 1
RINGING_SAMPLES = FFT_LENGTH - HOP_LENGTH

KERNEL_TAPS = 32
KERNEL_PHASES = 128
_SILENT_LEVEL = -18.5  # natural log of power per bin, -80 dBFS white noise: the synthesis fades to zero below
_SILENT_FADE = 2.3  # 10 dB


def _pulse_kernels() -> FloatArray:
    """[phases + 1, taps]: one band-limited unit pulse at each fraction of a sample."""
    fraction = np.arange(KERNEL_PHASES + 1)[:, None] / KERNEL_PHASES
    time = np.arange(KERNEL_TAPS)[None, :] - (KERNEL_TAPS // 2 - 1) - fraction
    window = np.cos(np.pi * time / (KERNEL_TAPS + 1)) ** 2
    return (np.sinc(time * 0.97) * 0.97 * window).astype(np.float32)


KERNELS = _pulse_kernels()


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
        ramp = np.arange(1, HOP_LENGTH + 1) / HOP_LENGTH
        for index, end in enumerate(f0_hz.astype(np.float64)):
            start = self._last_f0_hz
            self._last_f0_hz = end
            if np.isnan(start) and np.isnan(end):
                self._phase = 0.5
                continue
            start = end if np.isnan(start) else start
            end = start if np.isnan(end) else end
            # F0 runs linearly inside a hop; its integral crosses an integer at every pulse.
            cycles = (start * ramp + (end - start) * ramp * ramp / 2) * HOP_LENGTH / SAMPLE_RATE + self._phase
            before = np.concatenate([[self._phase], cycles[:-1]])
            hits = np.flatnonzero(np.floor(cycles) > np.floor(before))
            for hit in hits:
                fraction = (np.floor(cycles[hit]) - before[hit]) / (cycles[hit] - before[hit])
                period = 1.0 / (cycles[hit] - before[hit])
                row = KERNELS[int(round(fraction * KERNEL_PHASES))]
                place = index * HOP_LENGTH + hit
                pulses[place : place + KERNEL_TAPS] += np.float32(np.sqrt(period)) * row
            self._phase = float(cycles[-1] % 1.0)
        self._tail = pulses[num_frames * HOP_LENGTH :].copy()
        return pulses[: num_frames * HOP_LENGTH].reshape(num_frames, HOP_LENGTH), noise


@dataclass(frozen=True)
class SynthesisControls:
    """What the synthesis needs per frame.

    Attributes:
        harmonic: [B, T, 72] natural log of power per bin of the harmonic part.
        noise: The same of the noise part.
    """

    harmonic: torch.Tensor
    noise: torch.Tensor


class SourceFilter(torch.nn.Module):
    """Shapes excitation by band levels and overlap-adds it; no weights, a module so that tables move to a device."""

    _rising: torch.Tensor
    _to_bins: torch.Tensor
    _fold: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        rising = torch.from_numpy(np.sin(np.pi / 2 * (np.arange(HOP_LENGTH) + 0.5) / HOP_LENGTH) ** 2).float()
        self.register_buffer("_rising", rising, persistent=False)
        self.register_buffer("_to_bins", torch.from_numpy(interpolation_matrix(NUM_BINS)), persistent=False)
        fold = torch.zeros(FFT_LENGTH)
        fold[0] = fold[FFT_LENGTH // 2] = 1.0
        fold[1 : FFT_LENGTH // 2] = 2.0
        self.register_buffer("_fold", fold, persistent=False)

    def filters(self, levels: torch.Tensor) -> torch.Tensor:
        """Minimum-phase spectra of band levels, [..., 72] to complex [..., 1025], by the cepstrum.

        Levels below -80 dBFS fade to nothing, so digital silence stays digital silence.
        """
        magnitude = (levels @ self._to_bins) / 2
        cepstrum = torch.fft.irfft(magnitude, n=FFT_LENGTH) * self._fold
        gain = torch.clamp((levels.amax(-1, keepdim=True) - _SILENT_LEVEL) / _SILENT_FADE, 0.0, 1.0)
        return torch.exp(torch.fft.rfft(cepstrum)) * gain

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
        self._last: torch.Tensor | None = None
        self._ringing = torch.zeros(0)

    def push(self, f0_hz: FloatArray, controls: SynthesisControls) -> FloatArray:
        """Synthesise the hops that end at the given frames; the first frame of all only opens the first hop.

        Args:
            f0_hz: [T] wanted F0, NaN where unvoiced.
            controls: The same T frames, batch of one.

        Returns:
            [T * 480] float32, or 480 fewer on the first call.
        """
        if not len(f0_hz):
            return np.zeros(0, np.float32)
        filters = self._source_filter.filters(torch.stack([controls.harmonic, controls.noise]))
        pulses, noise = self._excitation.push(f0_hz)
        if self._last is None:
            self._ringing = controls.noise.new_zeros(1, RINGING_SAMPLES)
            pulses, noise = pulses[1:], noise[1:]
        else:
            filters = torch.cat([self._last, filters], 2)
        self._last = filters[:, :, -1:].clone()
        if not len(pulses):
            return np.zeros(0, np.float32)
        torch_device = controls.noise.device
        audio = self._source_filter.shape(
            torch.from_numpy(pulses)[None].to(torch_device), torch.from_numpy(noise)[None].to(torch_device), filters
        )
        audio[:, :RINGING_SAMPLES] += self._ringing
        num_ready = len(pulses) * HOP_LENGTH
        self._ringing = audio[:, num_ready:].clone()
        return audio[0, :num_ready].cpu().numpy()
