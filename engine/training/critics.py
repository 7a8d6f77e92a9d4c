"""Losses on audio: multi-resolution spectra, discriminators over periods and resolutions, the speaker of a conversion.

Sources: multi-period discriminator of HiFi-GAN (Kong et al., NeurIPS 2020), multi-resolution discriminator of UnivNet
(Jang et al., Interspeech 2021), multi-resolution spectral distance of Parallel WaveGAN (Yamamoto et al., ICASSP 2020).
"""

import torch
from torch import Tensor, nn

from engine.conversion.bands import HOP_LENGTH, NUM_SPEECH_BANDS, WINDOW_LENGTH, band_matrix
from engine.conversion.speaker import SpeakerEncoder

_RESOLUTIONS = ((512, 128), (1024, 256), (2048, 512), (4096, 1024))
_PERIODS = (2, 3, 5, 7, 11)
_SLOPE = 0.1


def _magnitude(audio: Tensor, length: int, hop: int) -> Tensor:
    window = torch.hann_window(length, device=audio.device)
    return torch.stft(audio, length, hop, window=window, return_complex=True).abs()


def spectral_distance(made: Tensor, real: Tensor) -> Tensor:
    """Mean over resolutions of spectral convergence and the L1 distance of log magnitudes, [B, N] each."""
    total = made.new_zeros(())
    for length, hop in _RESOLUTIONS:
        ours, theirs = _magnitude(made, length, hop), _magnitude(real, length, hop)
        convergence = (theirs - ours).norm() / (theirs.norm() + 1e-6)
        total = total + convergence + ((ours + 1e-5).log() - (theirs + 1e-5).log()).abs().mean()
    return total / len(_RESOLUTIONS)


def speaker_distance(encoder: SpeakerEncoder, audio: Tensor, wanted: Tensor) -> Tensor:
    """1 - cosine of the speaker of [B, N] at 48 kHz to the wanted embeddings [B, 256]; differentiable."""
    window = torch.hann_window(WINDOW_LENGTH, device=audio.device)
    spectra = torch.stft(audio, WINDOW_LENGTH, HOP_LENGTH, window=window, return_complex=True)
    power = spectra.abs().square() / window.square().sum()
    matrix = torch.from_numpy(band_matrix()).to(audio.device)[:, :NUM_SPEECH_BANDS]
    levels = torch.log(power.transpose(1, 2) @ matrix + 1e-10)
    return (1.0 - (encoder(levels) * wanted).sum(-1)).mean()


class _Critic(nn.Module):
    """Convolutions over a two-dimensional view of audio; gives a score map and its hidden maps."""

    def __init__(self, channels: tuple[int, ...], kernel: tuple[int, int], stride: tuple[int, int]) -> None:
        super().__init__()
        padding = (kernel[0] // 2, kernel[1] // 2)
        sizes = (1, *channels)
        self.layers = nn.ModuleList(
            nn.utils.parametrizations.weight_norm(nn.Conv2d(before, after, kernel, stride, padding))
            for before, after in zip(sizes[:-1], sizes[1:], strict=True)
        )
        self.score = nn.utils.parametrizations.weight_norm(nn.Conv2d(channels[-1], 1, (3, 1), padding=(1, 0)))

    def forward(self, view: Tensor) -> tuple[Tensor, list[Tensor]]:
        hidden = []
        for layer in self.layers:
            view = nn.functional.leaky_relu(layer(view), _SLOPE)
            hidden.append(view)
        return self.score(view), hidden


class Critics(nn.Module):
    """All discriminators together; least-squares losses (Mao et al., ICCV 2017).

    Args:
        width: Channels of the first layers.
    """

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        growing, wide = (width, 2 * width, 4 * width, 8 * width), (width, width, 2 * width, 2 * width)
        self.periods = nn.ModuleList(_Critic(growing, (5, 1), (3, 1)) for _ in _PERIODS)
        self.resolutions = nn.ModuleList(_Critic(wide, (3, 9), (1, 2)) for _ in _RESOLUTIONS)

    def forward(self, audio: Tensor) -> list[tuple[Tensor, list[Tensor]]]:
        """Scores and hidden maps of [B, N]."""
        found = []
        for period, critic in zip(_PERIODS, self.periods, strict=True):
            padded = nn.functional.pad(audio, (0, -audio.shape[1] % period))
            found.append(critic(padded.view(len(audio), 1, -1, period)))
        for (length, hop), critic in zip(_RESOLUTIONS, self.resolutions, strict=True):
            found.append(critic((_magnitude(audio, length, hop) + 1e-5).log().transpose(1, 2).unsqueeze(1)))
        return found

    def own_loss(self, real: Tensor, made: Tensor) -> Tensor:
        """What the discriminators minimise, both batches in one pass each."""
        scores = zip(self(real), self(made), strict=True)
        losses = [(1.0 - good).square().mean() + bad.square().mean() for (good, _), (bad, _) in scores]
        return torch.stack(losses).mean()

    def maker_loss(self, real: Tensor, restored: Tensor, made: Tensor) -> Tensor:
        """What the decoder minimises: to be taken for real, and hidden maps of restored audio like the recording's."""
        deceived = torch.stack([(1.0 - score).square().mean() for score, _ in self(made)]).mean()
        with torch.no_grad():
            wanted = self(real)
        pairs = zip(self(restored), wanted, strict=True)
        alike = [(a - b).abs().mean() for (_, ours), (_, theirs) in pairs for a, b in zip(ours, theirs, strict=True)]
        return deceived + 2.0 * torch.stack(alike).mean()
