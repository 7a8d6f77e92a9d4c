"""The log-mel front end that every voice model shares: 16 kHz audio, a frame every 10 ms, offline and streaming.

Frame t is centred on sample t * HOP_LENGTH and sees 10 ms to either side, so an utterance of N samples has
1 + N // HOP_LENGTH frames, and a stream knows frame t once sample t * HOP_LENGTH + LOOKAHEAD_SAMPLES - 1 has come.
"""

import numpy as np
import torch
from torch import Tensor, nn

from engine.signal.clip import FloatArray, overlapping

SAMPLE_RATE = 16000
HOP_LENGTH = 160
WINDOW_LENGTH = 320
LOOKAHEAD_SAMPLES = WINDOW_LENGTH // 2
NUM_MELS = 80
FRAME_RATE = SAMPLE_RATE / HOP_LENGTH
_FFT_LENGTH = 512
_POWER_FLOOR = 1e-9
SILENCE_LOG_MEL = -20.72326583694641  # ln(_POWER_FLOOR): the value of digital silence


class LogMel(nn.Module):
    """Natural logarithm of mel band power; a full-scale sine gives about 0, digital silence SILENCE_LOG_MEL."""

    window: Tensor
    filters: Tensor

    def __init__(self) -> None:
        super().__init__()
        window = torch.hann_window(WINDOW_LENGTH, periodic=True)
        self.register_buffer("window", window / (window.sum() / 2), persistent=False)
        self.register_buffer("filters", mel_filters(), persistent=False)

    def forward(self, samples: Tensor) -> Tensor:
        """Analyse whole recordings; silence is assumed before and after.

        Args:
            samples: [B, N] float32 at 16 kHz, N at least 1.

        Returns:
            [B, NUM_MELS, 1 + N // HOP_LENGTH] float32.
        """
        num_frames = 1 + samples.shape[-1] // HOP_LENGTH
        after = (num_frames - 1) * HOP_LENGTH + LOOKAHEAD_SAMPLES - samples.shape[-1]
        return self.frames(nn.functional.pad(samples, (LOOKAHEAD_SAMPLES, after)))

    def frames(self, samples: Tensor) -> Tensor:
        """Analyse without padding: [B, WINDOW_LENGTH + n * HOP_LENGTH] gives [B, NUM_MELS, n + 1]."""
        windowed = samples.unfold(-1, WINDOW_LENGTH, HOP_LENGTH) * self.window
        power = torch.fft.rfft(windowed, n=_FFT_LENGTH).abs().square()
        return (power @ self.filters).clamp_min(_POWER_FLOOR).log().transpose(1, 2)


class LogMelStream:
    """The same analysis of one stream, block by block; any block size.

    Args:
        front_end: The analysis to share.
    """

    latency_samples = LOOKAHEAD_SAMPLES

    def __init__(self, front_end: LogMel) -> None:
        self._window = front_end.window.cpu().numpy()
        self._filters = front_end.filters.cpu().numpy()
        self.reset()

    def reset(self) -> None:
        """Forget everything heard; silence lies before what comes next."""
        self._pending = np.zeros(LOOKAHEAD_SAMPLES, np.float32)
        self._received = self._made = 0

    def push(self, samples: Tensor) -> Tensor:
        """Take [1, N] samples at 16 kHz (N may be 0), give the frames [1, NUM_MELS, T] that are complete now."""
        self._received += samples.shape[-1]
        return self._analyse(samples[0].numpy())

    def flush(self) -> Tensor:
        """The frames still owed, silence assumed to follow: in all 1 + N // HOP_LENGTH for N samples pushed."""
        owed = 1 + self._received // HOP_LENGTH - self._made
        needed = WINDOW_LENGTH + (owed - 1) * HOP_LENGTH - len(self._pending)
        return self._analyse(np.zeros(max(needed, 0), np.float32))[..., :owed]

    def _analyse(self, samples: FloatArray) -> Tensor:
        """`LogMel.frames` by NumPy, which is quicker at a few frames."""
        pending = np.concatenate([self._pending, samples])
        count = 1 + (len(pending) - WINDOW_LENGTH) // HOP_LENGTH
        if count <= 0:
            self._pending = pending
            return torch.zeros(1, NUM_MELS, 0)
        self._made += count
        self._pending = pending[count * HOP_LENGTH :]
        windows = overlapping(pending, WINDOW_LENGTH, HOP_LENGTH) * self._window
        spectrum = np.fft.rfft(windows, _FFT_LENGTH)
        power = (np.square(spectrum.real) + np.square(spectrum.imag)) @ self._filters
        return torch.from_numpy(np.log(np.maximum(power, np.float32(_POWER_FLOOR)))).T[None]


def mel_filters() -> Tensor:
    """Triangular filters of unit peak, evenly spaced in mel from 30 Hz to 7.8 kHz: [_FFT_LENGTH // 2 + 1, NUM_MELS].

    The mel scale is O'Shaughnessy's, 2595 log10(1 + f / 700).
    """
    low, high = (2595.0 * torch.log10(1 + torch.tensor(f, dtype=torch.float64) / 700.0) for f in (30.0, 7800.0))
    edges = 700.0 * (10 ** (torch.linspace(float(low), float(high), NUM_MELS + 2, dtype=torch.float64) / 2595.0) - 1)
    bins = torch.arange(_FFT_LENGTH // 2 + 1, dtype=torch.float64) * (SAMPLE_RATE / _FFT_LENGTH)
    rising = (bins[:, None] - edges[:-2]) / (edges[1:-1] - edges[:-2]).clamp_min(1e-9)
    falling = (edges[2:] - bins[:, None]) / (edges[2:] - edges[1:-1]).clamp_min(1e-9)
    filters = torch.minimum(rising, falling).clamp_min(0.0)
    empty = filters.sum(dim=0) == 0  # the lowest bands are narrower than a bin: give them the nearest one
    nearest = (edges[1:-1] / (SAMPLE_RATE / _FFT_LENGTH)).round().long()
    filters[nearest[empty], empty.nonzero()[:, 0]] = 1.0
    return filters.float()
