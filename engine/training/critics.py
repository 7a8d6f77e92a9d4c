"""Losses on audio: multi-resolution spectra, discriminators over periods and resolutions, the speaker of a conversion.

Sources: multi-period discriminator of HiFi-GAN (Kong et al., NeurIPS 2020), multi-resolution discriminator of UnivNet
(Jang et al., Interspeech 2021), multi-resolution spectral distance of Parallel WaveGAN (Yamamoto et al., ICASSP 2020).
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from engine.conversion.bands import HOP_LENGTH, NUM_SPEECH_BANDS, SAMPLE_RATE, WINDOW_LENGTH, band_matrix
from engine.conversion.speaker import SpeakerEncoder

_RESOLUTIONS = ((512, 128), (1024, 256), (2048, 512), (4096, 1024))
_PERIODS = (2, 3, 5, 7, 11)
_SLOPE = 0.1
_EDGE_HZ = 300.0
_NORM_KEPT = 0.98
PAUSE_BELOW = 8.0  # natural log of power under the loud frames


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


def speech_levels(audio: Tensor) -> Tensor:
    """[B, T, 44] levels of [B, N] at 48 kHz, as the speaker encoder takes them; differentiable."""
    window = torch.hann_window(WINDOW_LENGTH, device=audio.device)
    spectra = torch.stft(audio, WINDOW_LENGTH, HOP_LENGTH, window=window, return_complex=True)
    power = spectra.abs().square() / window.square().sum()
    matrix = torch.from_numpy(band_matrix()).to(audio.device)[:, :NUM_SPEECH_BANDS]
    return torch.log(power.transpose(1, 2) @ matrix + 1e-10)


def speaker_distance(encoder: SpeakerEncoder, levels: Tensor, wanted: Tensor) -> Tensor:
    """1 - cosine of the speaker of `speech_levels` to the wanted embeddings [B, 256]."""
    return (1.0 - (encoder(levels) * wanted).sum(-1)).mean()


def recoloured(levels: Tensor, wanted: Tensor) -> Tensor:
    """Levels [B, T, 44] with the long-term spectra `wanted` [B, 44], in place of their own.

    Who is heard in them is told by what changes from sound to sound, not by a colour that an equaliser could give.
    """
    top = levels.amax(-1)
    active = (top > top.quantile(0.95, dim=1, keepdim=True) - PAUSE_BELOW).float().unsqueeze(-1)
    missing = wanted - (levels * active).sum(1) / active.sum(1)
    return levels + (missing - missing.mean(-1, keepdim=True)).unsqueeze(1)


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
        width: Channels of the first layers over periods; those over resolutions, which cost more, have half.
    """

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        growing, wide = (width, 2 * width, 4 * width, 8 * width), (width // 2, width // 2, width, width)
        self.periods = nn.ModuleList(_Critic(growing, (5, 1), (3, 1)) for _ in _PERIODS)
        self.resolutions = nn.ModuleList(_Critic(wide, (3, 9), (1, 2)) for _ in _RESOLUTIONS)

    def forward(self, audio: Tensor) -> "Judgement":
        """Scores and hidden maps of [B, N]."""
        found = []
        for period, critic in zip(_PERIODS, self.periods, strict=True):
            padded = nn.functional.pad(audio, (0, -audio.shape[1] % period))
            found.append(critic(padded.view(len(audio), 1, -1, period)))
        for (length, hop), critic in zip(_RESOLUTIONS, self.resolutions, strict=True):
            found.append(critic((_magnitude(audio, length, hop) + 1e-5).log().transpose(1, 2).unsqueeze(1)))
        return found


Judgement = list[tuple[Tensor, list[Tensor]]]


def own_loss(judged: Judgement, count: int) -> Tensor:
    """What the discriminators minimise: 1 for the first `count` rows, which are recordings, 0 for what was made."""
    losses = [(1.0 - score[:count]).square().mean() + score[count:].square().mean() for score, _ in judged]
    return torch.stack(losses).mean()


def deceived(judged: Judgement, count: int) -> Tensor:
    """What the decoder minimises: to be taken for real, from row `count` on."""
    return torch.stack([(1.0 - score[count:]).square().mean() for score, _ in judged]).mean()


def likeness(judged: Judgement, count: int) -> Tensor:
    """Distance of the hidden maps of `count` recordings and of their restorations, the rows that follow.

    Source: Larsen et al., "Autoencoding beyond pixels using a learned similarity metric", ICML 2016.
    """
    apart = [(each[count : 2 * count] - each[:count].detach()).abs().mean() for _, maps in judged for each in maps]
    return torch.stack(apart).mean()


def limited(audio: Tensor, bandwidth_hz: Tensor) -> Tensor:
    """[B, N] at 48 kHz without what lies above [B] Hz, so that no critic can tell a recording by what it lacks."""
    spectra = torch.fft.rfft(audio)
    frequency = torch.linspace(0.0, 1.0, spectra.shape[1], device=audio.device) * (SAMPLE_RATE / 2)
    keep = torch.clamp((bandwidth_hz[:, None] - frequency) / _EDGE_HZ, 0.0, 1.0)
    return torch.fft.irfft(spectra * keep, n=audio.shape[1])


class Gradients:
    """Adds the gradients of several losses so that each has the share it was given, whatever its scale.

    Source: the loss balancer of EnCodec (Defossez et al., "High fidelity neural audio compression", TMLR 2023).
    """

    def __init__(self) -> None:
        self._norms: dict[str, Tensor] = {}

    def total(self, parts: Mapping[str, tuple[float, Sequence[Tensor]]]) -> list[Tensor]:
        """Sum of gradients, each divided by the running mean of its norm and multiplied by its share."""
        summed: list[Tensor] = []
        for name, (share, gradients) in parts.items():
            norm = torch.stack([gradient.square().sum() for gradient in gradients]).sum().sqrt()
            if torch.isfinite(norm):
                self._norms[name] = torch.lerp(norm, self._norms.get(name, norm), _NORM_KEPT)
            else:  # left out of this step, and of the mean
                gradients = [torch.zeros_like(each) for each in gradients]
            mean = self._norms.get(name, norm.new_ones(()))
            scaled = [gradient * (share / (mean + 1e-12)) for gradient in gradients]
            summed = [a + b for a, b in zip(summed, scaled, strict=True)] if summed else scaled
        return summed
