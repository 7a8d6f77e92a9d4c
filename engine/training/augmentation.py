"""Changes to log-mel spectrograms that keep what is said: other throats, rooms, microphones, levels, noises, whispers.

All work on batches [B, NUM_MELS, T] of engine.conversion.features, on any torch device, with torch's own random state.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from engine.conversion.features import NUM_MELS, SILENCE_LOG_MEL

_LN_PER_DB = 0.2302585092994046  # ln(10) / 10, for power


@dataclass(frozen=True)
class AugmentationConfig:
    """Strength of each change.

    Attributes:
        warp: Frequencies are stretched by up to this factor, up or down (vocal tract length).
        gain_db: Least and greatest gain.
        equaliser_db: Standard deviation of each slow ripple of the spectrum.
        noise_share: Share of examples with added noise.
        snr_db: Least and greatest ratio of speech to that noise.
        room_share: Share of examples with reverberation.
        whisper_share: Share of examples whose harmonics are replaced by noise.
        masks: Bands masked and stretches masked in each example (SpecAugment: Park et al., Interspeech 2019).
    """

    warp: float = 1.18
    gain_db: tuple[float, float] = (-22.0, 8.0)
    equaliser_db: float = 4.0
    noise_share: float = 0.5
    snr_db: tuple[float, float] = (3.0, 35.0)
    room_share: float = 0.25
    whisper_share: float = 0.05
    masks: int = 1


def augment(log_mel: Tensor, config: AugmentationConfig) -> Tensor:
    """Change each example of a batch by chance.

    Args:
        log_mel: [B, NUM_MELS, T] float32.
        config: How much.

    Returns:
        A new tensor of the same shape.
    """
    batch = log_mel.shape[0]
    uniform = _Uniform(batch, log_mel.device)
    changed = _warped(log_mel, torch.exp(uniform(-1, 1) * float(np.log(config.warp))))
    whispered = _pick(batch, config.whisper_share, log_mel.device)
    if len(whispered):
        changed[whispered] = _whispered(changed[whispered])
    roomy = _pick(batch, config.room_share, log_mel.device)
    if len(roomy):
        changed[roomy] = _reverberant(changed[roomy])
    changed = changed + _ripples(batch, config.equaliser_db, log_mel.device)
    noisy = _pick(batch, config.noise_share, log_mel.device)
    if len(noisy):
        level = changed[noisy].amax(dim=(1, 2)) - 2.0 - uniform(*config.snr_db)[noisy] * _LN_PER_DB
        changed[noisy] = torch.logaddexp(changed[noisy], noise_log_mel(len(noisy), log_mel) + level[:, None, None])
    changed = changed + uniform(*config.gain_db)[:, None, None] * _LN_PER_DB
    changed.clamp_min_(SILENCE_LOG_MEL)
    return _masked(changed, config.masks)


def noise_log_mel(batch: int, like: Tensor) -> Tensor:
    """Stationary noise of random colour, peak about 0: [batch, NUM_MELS, T] like `like`, whose T it takes."""
    device, frames = like.device, like.shape[-1]
    colour = _ripples(batch, 6.0, device)
    flutter = torch.rand(batch, NUM_MELS, frames, device=device).clamp_min(1e-4).log().neg_().clamp_min(1e-3).log()
    return colour - colour.amax(dim=1, keepdim=True) + 0.6 * flutter


def stretched(
    pace: npt.NDArray[np.float64], num_frames: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Where to look when frames are played at another pace.

    Args:
        pace: [T], how many frames each frame becomes, above zero; 1 leaves it.
        num_frames: Frames wanted.

    Returns:
        [num_frames] each: the frames to mix and the share of the second; the last one is held when the pace yields
        too few.
    """
    ends = np.cumsum(pace)
    position = np.interp(np.arange(num_frames), ends - pace, np.arange(len(pace)))
    before = np.floor(position).astype(np.int64)
    return before, np.minimum(before + 1, len(pace) - 1), (position - before).astype(np.float32)


class _Uniform:
    def __init__(self, batch: int, device: torch.device) -> None:
        self._batch, self._device = batch, device

    def __call__(self, low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(self._batch, device=self._device)


def _pick(batch: int, share: float, device: torch.device) -> Tensor:
    return (torch.rand(batch, device=device) < share).nonzero()[:, 0]


def _warped(log_mel: Tensor, factor: Tensor) -> Tensor:
    """Take each band from the frequency `factor` [B] times its own."""
    low, high = 2595 * np.log10(1 + 30 / 700), 2595 * np.log10(1 + 7800 / 700)
    mel = low + (high - low) * torch.arange(1, NUM_MELS + 1, device=log_mel.device) / (NUM_MELS + 1)
    hz = 700 * (10 ** (mel / 2595) - 1) * factor[:, None]
    position = (2595 * torch.log10(1 + hz / 700) - low) / (high - low) * (NUM_MELS + 1) - 1
    position = position.clamp(0, NUM_MELS - 1)
    below = position.floor().long().clamp_max(NUM_MELS - 2)
    share = (position - below)[..., None]
    index = below[..., None].expand_as(log_mel)
    return log_mel.gather(1, index) * (1 - share) + log_mel.gather(1, index + 1) * share


def _ripples(batch: int, deviation_db: float, device: torch.device) -> Tensor:
    """Slow curves over the bands, in ln power: [batch, NUM_MELS, 1]."""
    weights = torch.randn(batch, 4, device=device) * deviation_db * _LN_PER_DB
    order = torch.arange(1, 5, device=device)[:, None]
    waves = torch.cos(torch.pi * order * (torch.arange(NUM_MELS, device=device) + 0.5) / NUM_MELS)
    return (weights / order[:, 0].sqrt() @ waves)[..., None]


def _whispered(log_mel: Tensor) -> Tensor:
    """Blur the harmonics away, weaken the lowest bands and let the bands flutter as noise does."""
    smooth = torch.nn.functional.avg_pool1d(log_mel.transpose(1, 2), 9, 1, 4, count_include_pad=False).transpose(1, 2)
    tilt = torch.linspace(-5.0, 1.0, NUM_MELS, device=log_mel.device)[:, None]
    return smooth + tilt - 1.5 + 0.4 * torch.randn_like(log_mel)


def _reverberant(log_mel: Tensor) -> Tensor:
    """Add a decaying tail of each frame's power to those after it, 0.1 to 0.6 s to fall by 60 dB."""
    batch, taps = log_mel.shape[0], 30
    decay_s = 0.1 + 0.5 * torch.rand(batch, 1, device=log_mel.device)
    delay_s = torch.arange(taps, device=log_mel.device) * 0.01
    tail = 0.3 * torch.rand(batch, 1, device=log_mel.device) * torch.exp(-13.8 * delay_s / decay_s)
    tail[:, 0] = 1.0
    power = torch.nn.functional.pad(log_mel.exp().transpose(0, 1), (taps - 1, 0))
    heard = torch.nn.functional.conv1d(power, tail.flip(1)[:, None], groups=batch)
    return heard.transpose(0, 1).clamp_min(1e-9).log()


def _masked(log_mel: Tensor, masks: int) -> Tensor:
    batch, bands, frames = log_mel.shape
    hidden = torch.zeros(batch, bands, frames, dtype=torch.bool, device=log_mel.device)
    for _ in range(masks):
        for size, most, dim in ((bands, 10, 1), (frames, 12, 2)):
            start = torch.rand(batch, 1, device=log_mel.device) * size
            width = torch.rand(batch, 1, device=log_mel.device) * most
            place = torch.arange(size, device=log_mel.device)
            hidden |= ((place >= start) & (place < start + width)).unsqueeze(3 - dim)
    return log_mel.masked_fill(hidden, -14.0)
