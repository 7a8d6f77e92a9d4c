"""The embedded separator: a small spectrogram branch of Hybrid Demucs that steers mid and side by frequency bands.

The layers, their order and the skip connections are those of `demucs.hdemucs.HDemucs` (without its waveform
branch, LSTM and attention). What is ours fits it to a small budget: it sees the powers of left, right, mid and side
in bands that are one bin wide in the low octaves and widen above, and it answers with a real 2x2 matrix per band
and frame that makes the vocals' mid and side out of the mixture's. Batch normalisation stands in for Demucs's group
normalisation, so no statistic of the segment enters and a song gives the same result whole or in segments.
"""

import json
import math
from dataclasses import asdict, dataclass
from typing import cast

import numpy as np
import torch
from demucs.hdemucs import HDemucs
from torch import nn

NUM_FEATURES = 4  # log powers of left, right, mid, side
NUM_OUTPUTS = 4  # the matrix's two diagonal and two off-diagonal entries
POWER_FLOOR = 1e-7


@dataclass(frozen=True)
class NetworkConfig:
    """Sizes of the separator; kept with its weights.

    Attributes:
        sample_rate: Hz of the audio it runs on.
        fft_size: Samples of an analysis window.
        hop: Samples from one frame to the next.
        num_bands: Bands that the spectrum is seen in.
        channels: Width of the outermost layer.
        growth: Factor from each layer's width to the next.
        depth: Layers; those beyond the last band merge work along time at half rate each.
        dconv_depth: Dilated convolutions in each encoder layer's residual branch.
        context: Reach of the decoder's convolutions, in frames and bands to each side.
        own_exponent: Power that the diagonal of the answered matrix is raised to. Below 1 it makes good for a training
            by absolute errors, which is content with the median of what may be there: too little of every doubt.
    """

    sample_rate: int = 44_100
    fft_size: int = 2048
    hop: int = 1024
    num_bands: int = 256
    channels: int = 20
    growth: float = 1.6
    depth: int = 5
    dconv_depth: int = 2
    context: int = 1
    own_exponent: float = 1.0

    def to_json(self) -> str:
        """As text, for a model file's metadata."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "NetworkConfig":
        """The inverse of `to_json`.

        Raises:
            ValueError: It is no such text, or its numbers are out of all reason.
        """
        try:
            config = cls(**{key: type(getattr(cls, key))(value) for key, value in json.loads(text).items()})
        except (TypeError, AttributeError) as error:
            raise ValueError("not a separator's configuration") from error
        limits = {
            "sample_rate": (8_000, 96_000), "fft_size": (256, 16_384), "hop": (64, 8192), "num_bands": (32, 2048),
            "channels": (4, 512), "growth": (1, 4), "depth": (2, 9), "dconv_depth": (1, 8), "context": (0, 3),
            "own_exponent": (0.2, 2.0),
        }  # fmt: skip
        if not all(low <= getattr(config, key) <= high for key, (low, high) in limits.items()):
            raise ValueError("a separator's configuration out of range")
        return config


def band_edges(num_bands: int, fft_size: int) -> list[int]:
    """First bin of each band and one past the last: single bins at first, then ever wider by a constant factor."""
    num_bins = fft_size // 2 + 1
    low, high = 2.0, float(num_bins)
    for _ in range(60):  # bins below the crossover, found so that the bands come out at num_bands
        middle = (low + high) / 2
        if middle * (1 + math.log(num_bins / middle)) < num_bands:
            low = middle
        else:
            high = middle
    steps = np.arange(num_bands + 1)
    real = np.where(steps <= low, steps, low * np.exp(np.maximum(steps - low, 0) / low))
    edges = np.round(real * (num_bins / real[-1])).astype(int)
    for k in range(1, num_bands + 1):
        edges[k] = max(edges[k], edges[k - 1] + 1)
    edges[-1] = num_bins
    return [int(edge) for edge in edges]


class VocalNet(HDemucs):
    """Estimates the vocals of a stereo song.

    Args:
        config: Sizes.
    """

    band_of_bin: torch.Tensor
    band_width: torch.Tensor
    window: torch.Tensor
    feature_mean: torch.Tensor
    feature_std: torch.Tensor

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__(
            sources=["vocals"],
            audio_channels=NUM_FEATURES,
            channels=config.channels,
            growth=config.growth,
            nfft=2 * config.num_bands,  # HDemucs lays its layers out for nfft // 2 rows
            cac=False,
            depth=config.depth,
            hybrid=False,
            context=config.context,
            norm_starts=0,
            norm_groups=1,
            dconv_depth=config.dconv_depth,
            dconv_attn=config.depth,
            dconv_lstm=config.depth,
            samplerate=config.sample_rate,
        )
        self.config = config
        _use_batch_norm(self)
        edges = band_edges(config.num_bands, config.fft_size)
        widths = torch.tensor(edges[1:]) - torch.tensor(edges[:-1])
        bands = torch.repeat_interleave(torch.arange(config.num_bands), widths)
        self.register_buffer("band_of_bin", bands, persistent=False)
        self.register_buffer("band_width", widths.float()[:, None], persistent=False)
        self.register_buffer("window", torch.hann_window(config.fft_size), persistent=False)
        self.register_buffer("feature_mean", torch.zeros(NUM_FEATURES, config.num_bands))
        self.register_buffer("feature_std", torch.ones(NUM_FEATURES, config.num_bands))

    @property
    def alignment(self) -> int:
        """Samples to whose multiples segments must be cut so that their frames coincide."""
        return self.config.hop * 2 ** len(self._time_layers())

    @property
    def reach(self) -> int:
        """Samples to each side that can influence a sample of the result."""
        dilated = 2**self.config.dconv_depth - 1
        frequency_layers = self.config.depth - len(self._time_layers())
        frames = frequency_layers * (dilated + self.config.context)
        for level in range(1, len(self._time_layers()) + 1):  # kernels of 4 with stride 2, down and up
            frames += 2**level * (dilated + self.config.context + 2)
        return frames * self.config.hop + self.config.fft_size

    def _time_layers(self) -> list[nn.Module]:
        return [layer for layer in self.encoder if not layer.freq]

    def analyse(self, stereo: torch.Tensor) -> torch.Tensor:
        """Spectra of mid and side, complex [B, 2, F, T], of a signal [B, 2, N]; frame t is centred on t * hop."""
        mid_side = torch.stack([stereo[:, 0] + stereo[:, 1], stereo[:, 0] - stereo[:, 1]], dim=1) / 2
        spectra = torch.stft(
            mid_side.flatten(0, 1),
            self.config.fft_size,
            self.config.hop,
            window=self.window,
            normalized=True,
            return_complex=True,
            pad_mode="constant",
        )
        return spectra.unflatten(0, (stereo.shape[0], 2))

    def synthesise(self, spectra: torch.Tensor, num_samples: int) -> torch.Tensor:
        """The inverse of `analyse`: [B, 2, N]."""
        mid_side = torch.istft(
            spectra.flatten(0, 1),
            self.config.fft_size,
            self.config.hop,
            window=self.window,
            normalized=True,
            length=num_samples,
        ).unflatten(0, (spectra.shape[0], 2))
        return torch.stack([mid_side[:, 0] + mid_side[:, 1], mid_side[:, 0] - mid_side[:, 1]], dim=1)

    def features(self, spectra: torch.Tensor) -> torch.Tensor:
        """Log powers [B, 4, bands, T] of left, right, mid and side, not yet brought to mean 0 and variance 1."""
        mid, side = spectra[:, 0], spectra[:, 1]
        spectra = torch.stack([mid + side, mid - side, mid, side], dim=1)
        power = spectra.real.square() + spectra.imag.square()
        batch, _, _, frames = power.shape
        banded = power.new_zeros(batch, NUM_FEATURES, self.config.num_bands, frames)
        banded.index_add_(2, self.band_of_bin, power)
        return torch.log(banded / self.band_width + POWER_FLOOR)

    def vocal_spectra(self, spectra: torch.Tensor) -> torch.Tensor:
        """The vocals' mid and side out of the mixture's, both complex [B, 2, F, T]."""
        features = self.features(spectra)
        x = (features - self.feature_mean[..., None]) / self.feature_std[..., None]
        steer = self._walk(x).float().index_select(2, self.band_of_bin)
        own, cross = torch.sigmoid(steer[:, :2]).pow(self.config.own_exponent), torch.tanh(steer[:, 2:])
        return own * spectra + cross * spectra.flip(1)

    def forward(self, mix: torch.Tensor) -> torch.Tensor:
        """The vocals [B, 2, N] of a mixture [B, 2, N] whose whole song has been brought to an RMS of 0.1."""
        return self.synthesise(self.vocal_spectra(self.analyse(mix)), mix.shape[-1])

    def _walk(self, x: torch.Tensor) -> torch.Tensor:
        """Encoder, skips and decoder, as in `HDemucs.forward` without the waveform branch."""
        saved, lengths = [], []
        for index, encode in enumerate(self.encoder):
            lengths.append(x.shape[-1])
            x = encode(x)
            if index == 0 and self.freq_emb is not None:
                rows = torch.arange(x.shape[-2], device=x.device)
                x = x + self.freq_emb_scale * self.freq_emb(rows).t()[None, :, :, None]
            saved.append(x)
        x = torch.zeros_like(x)
        for decode in self.decoder:
            x, _ = decode(x, saved.pop(), lengths.pop())
        return cast(torch.Tensor, x)


def _use_batch_norm(module: nn.Module) -> None:
    """Replace every group normalisation by a batch normalisation that takes [B, C, T] and [B, C, F, T] alike."""
    for name, child in module.named_children():
        if isinstance(child, nn.GroupNorm):
            setattr(module, name, AnyBatchNorm(child.num_channels))
        else:
            _use_batch_norm(child)


class AnyBatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch normalisation over all but the channels, for any number of dimensions."""

    def _check_input_dim(self, _input: torch.Tensor) -> None:
        return
