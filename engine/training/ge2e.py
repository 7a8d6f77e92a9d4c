"""Resemblyzer's GE2E speaker encoder on tensors: the teacher of our own encoder, and a critic of conversions.

Source: Wan et al., "Generalized end-to-end loss for speaker verification", ICASSP 2018; checked against the package
`resemblyzer`, whose weights it reads. Needed in training alone.
"""

import importlib.util
from pathlib import Path

import torch
import torchaudio
from torch import Tensor, nn

from engine.errors import TrainingError
from engine.signal.clip import FloatArray

SAMPLE_RATE = 16000
WINDOW_FRAMES = 160  # 1.6 s, what the encoder was trained on
_HOP, _FFT, _MELS, _HIDDEN = 160, 400, 40, 256
_LEVEL = 10.0 ** (-30.0 / 20.0)  # RMS that the package brings recordings to


class Ge2e(nn.Module):
    """Embeds stretches of 1.6 s at 16 kHz; differentiable, its weights fixed.

    Raises:
        TrainingError: The package's weights are not installed.
    """

    window: Tensor
    filters: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(_MELS, _HIDDEN, 3, batch_first=True)
        self.linear = nn.Linear(_HIDDEN, _HIDDEN)
        self.register_buffer("window", torch.hann_window(_FFT), persistent=False)
        filters = torchaudio.functional.melscale_fbanks(
            _FFT // 2 + 1, 0.0, SAMPLE_RATE / 2, _MELS, SAMPLE_RATE, norm="slaney", mel_scale="slaney"
        )
        self.register_buffer("filters", filters, persistent=False)
        state = torch.load(_weights(), map_location="cpu", weights_only=True)["model_state"]
        self.load_state_dict({name: value for name, value in state.items() if name.split(".")[0] in ("lstm", "linear")})
        self.requires_grad_(False)

    def forward(self, samples: Tensor) -> Tensor:
        """[B, N] at 16 kHz, N some 25,600, to [B, 256] of unit length; loudness does not matter."""
        level = (samples.square().mean(dim=1, keepdim=True) + 1e-10).sqrt()  # silence has no gradient else
        spectra = torch.stft(
            samples * (_LEVEL / level),
            _FFT,
            _HOP,
            window=self.window,
            pad_mode="constant",
            return_complex=True,
        )
        _, (hidden, _) = self.lstm(spectra.abs().square().transpose(1, 2) @ self.filters)
        return nn.functional.normalize(torch.relu(self.linear(hidden[-1])), dim=1)

    @torch.inference_mode()
    def embed(self, samples: FloatArray) -> FloatArray:
        """[N] float32 at 16 kHz to [256], the mean over windows of 1.6 s that follow each other."""
        length = WINDOW_FRAMES * _HOP
        whole = torch.from_numpy(samples)
        if len(whole) < length:
            whole = nn.functional.pad(whole, (0, length - len(whole)))
        windows = whole[: len(whole) // length * length].reshape(-1, length)
        mean = self(windows.to(self.window.device)).mean(dim=0)
        embedding: FloatArray = nn.functional.normalize(mean, dim=0).cpu().numpy()
        return embedding


def _weights() -> Path:
    found = importlib.util.find_spec("resemblyzer")
    path = Path(found.origin).parent / "pretrained.pt" if found and found.origin else Path("absent")
    if not path.exists():
        raise TrainingError("Resemblyzer's weights are missing.", hint="pip install 'autovoice[training]'.")
    return path
