"""Stage `separator`: the embedded separator of engine.separation, by the error of the vocals' complex spectra.

Data come from `engine.training.separator_data`; one song of the train split is held out whole and picks the weights
that are published.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from engine.errors import TrainingError
from engine.models import publish_embedded
from engine.separation.loading import EMBEDDED
from engine.separation.network import NetworkConfig, VocalNet
from engine.signal import FloatArray
from engine.training.config import Orders, build
from engine.training.loop import LoopConfig, Task, TrainingLoop, run_task
from engine.training.separator_data import SAMPLE_RATE, Mixtures, held_out_song, prepare_cache

_log = logging.getLogger(__name__)

_VALIDATION_S = 30
_NUM_STATISTICS = 16


@dataclass(frozen=True)
class SeparatorConfig:
    """Settings of the stage beside `[loop]` and `[network]`.

    Attributes:
        batch_size: Examples in a step, of each process.
        example_s: Length of an example.
        learning_rate: Of AdamW, on the plateau.
        weight_decay: Of AdamW.
        log_ratio_weight: Weight of the logarithmic error-to-vocals ratio beside the absolute error.
        power_weight: Weight of the error's share of the mixture's power beside it. An absolute error alone is least at
            the median of what a band may hold: too little of everything that is doubtful.
        held_out: Song of the train split that validation uses.
        held_out_from_s: Where in it validation starts.
        train_on_start: Learn from what lies before that, too; else training never sees the song.
        num_bands: Pieces of generated music to render.
        band_s: Least length of each.
        sound_font: General MIDI sound font for them.
        publish: Write better weights to the program's models after each validation.
    """

    batch_size: int = 5
    example_s: float = 4.0
    learning_rate: float = 2e-3
    weight_decay: float = 1e-3
    log_ratio_weight: float = 0.05
    power_weight: float = 0.0
    held_out: str = "sodium"
    held_out_from_s: float = 180.0
    train_on_start: bool = False
    num_bands: int = 100
    band_s: float = 40.0
    sound_font: str = "/usr/share/sounds/sf2/FluidR3_GM.sf2"
    publish: bool = False


class SeparatorTask(Task):
    """Vocals out of mixtures.

    Args:
        mixtures: Where examples come from.
        held_out: Vocals and accompaniment of a song for validation, [2, N] at 44.1 kHz.
        config: Settings.
        network: Sizes.
        torch_device: Where to train.
    """

    def __init__(
        self,
        mixtures: Mixtures,
        held_out: tuple[FloatArray, FloatArray],
        config: SeparatorConfig,
        *,
        network: NetworkConfig | None = None,
        torch_device: str = "cpu",
    ) -> None:
        self.config, self._mixtures, self._held_out = config, mixtures, held_out
        self._torch_device = torch_device
        self._best = -np.inf
        net = VocalNet(network or NetworkConfig(sample_rate=SAMPLE_RATE))
        self._measure_features(net)
        net.to(torch_device)
        self.networks = {"separator": net}
        self.optimizers = {
            "separator": torch.optim.AdamW(
                net.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, betas=(0.9, 0.99)
            )
        }

    def batch(self, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Mixtures and vocals, [B, 2, N] each."""
        examples = [self._mixtures.example(rng) for _ in range(self.config.batch_size)]
        mixtures, vocals = (np.stack(part) for part in zip(*examples, strict=True))
        return torch.from_numpy(mixtures), torch.from_numpy(vocals)

    def step(self, batch: tuple[Tensor, Tensor], loop: TrainingLoop) -> dict[str, Tensor]:
        """One update."""
        net = self.networks["separator"]
        assert isinstance(net, VocalNet)
        with torch.no_grad():
            mixture, vocals = (net.analyse(part.to(self._torch_device)) for part in batch)
        with loop.autocast():
            estimate = net.vocal_spectra(mixture)
        absolute, ratio_db, power = spectral_losses(estimate, vocals, mixture)
        loss = absolute + self.config.log_ratio_weight * ratio_db + self.config.power_weight * power
        loop.update("separator", loss)
        losses = {"loss": loss, "absolute": absolute, "ratio_db": ratio_db, "power": power}
        return {name: value.detach() for name, value in losses.items()}

    def validate(self, averaged: Mapping[str, nn.Module]) -> dict[str, float]:
        """SI-SDR gain on the held-out song, dB."""
        net = averaged["separator"]
        vocals, accompaniment = (torch.from_numpy(stem) for stem in self._held_out)
        mixture = vocals + accompaniment
        gain = 0.1 / mixture.square().mean().sqrt()
        size, parts = _VALIDATION_S * SAMPLE_RATE, []
        with torch.inference_mode():
            for start in range(0, mixture.shape[1], size):
                part = mixture[None, :, start : start + size] * gain
                parts.append(net(part.to(self._torch_device))[0].cpu() / gain)
        estimate = torch.cat(parts, dim=1)
        return {"si_sdr_gain_db": si_sdr_db(estimate, vocals) - si_sdr_db(mixture, vocals)}

    def publish(self, averaged: Mapping[str, nn.Module], step: int, figures: Mapping[str, float]) -> None:
        """Write the network to the program's models if it is the best of this run."""
        gain_db = figures["si_sdr_gain_db"]
        if not self.config.publish or gain_db <= self._best:
            return
        self._best = gain_db
        net = averaged["separator"]
        assert isinstance(net, VocalNet)
        publish_separator(net, steps=step, held_out_gain_db=gain_db)

    def _measure_features(self, net: VocalNet) -> None:
        """Set the mean and the deviation that features are brought to 0 and 1 by; the same in every process."""
        rng = np.random.default_rng(0)
        mixtures = np.stack([self._mixtures.example(rng)[0] for _ in range(_NUM_STATISTICS)])
        with torch.no_grad():
            features = net.features(net.analyse(torch.from_numpy(mixtures)))
            net.feature_mean.copy_(features.mean(dim=(0, 3)))
            net.feature_std.copy_(features.std(dim=(0, 3)).clamp_min(0.1))


def spectral_losses(estimate: Tensor, vocals: Tensor, mixture: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Errors of estimated vocals; all arguments are complex [B, 2, F, T].

    Returns:
        The mean magnitude of the error in units of each mixture's RMS; the mean over examples of the error-to-vocals
        ratio in dB, softened so that silence and perfection stay finite; the mean of the error's power over the
        mixture's.
    """
    error, target, whole = (_power(spectra) for spectra in (estimate - vocals, vocals, mixture))
    scale = (whole.mean(dim=(1, 2, 3)) + 1e-8).sqrt()
    absolute = (torch.sqrt(error + 1e-10).mean(dim=(1, 2, 3)) / scale).mean()
    error, target, whole = (power.sum(dim=(1, 2, 3)) for power in (error, target, whole))
    ratio_db = 10 * torch.log10((error + 0.003 * whole + 1e-8) / (target + 0.01 * whole + 1e-8))
    return absolute, ratio_db.mean(), (error / (whole + 1e-8)).mean()


def _power(spectra: Tensor) -> Tensor:
    return spectra.real.square() + spectra.imag.square()


def si_sdr_db(estimate: Tensor, reference: Tensor) -> float:
    """Scale-invariant signal-to-distortion ratio of whole signals, dB (Le Roux et al., ICASSP 2019)."""
    estimate, reference = estimate.double().flatten(), reference.double().flatten()
    target = (estimate @ reference) / (reference @ reference) * reference
    error = estimate - target
    return float(10 * torch.log10((target @ target) / (error @ error)))


def publish_separator(net: VocalNet, *, steps: int, held_out_gain_db: float) -> None:
    """Write a network to the program's models."""
    tensors = net.state_dict()
    metadata = {
        "format": "vocalnet",
        "config": net.config.to_json(),
        "licence": "Apache-2.0",
        "steps": str(steps),
        "held_out_si_sdr_gain_db": f"{held_out_gain_db:.2f}",
    }
    precise = [name for name in tensors if "running_" in name or "feature_" in name]
    publish_embedded(EMBEDDED, "separator", tensors, metadata, keep_precision=precise)


def run(settings: Mapping[str, Any], orders: Orders) -> None:
    """Prepare the data and train; see `engine.training.__main__`."""
    settings = dict(settings)
    loop_config = build(LoopConfig, settings.pop("loop"))
    network = build(NetworkConfig, settings.pop("network", {}))
    config = build(SeparatorConfig, settings)
    if network.sample_rate != SAMPLE_RATE:
        raise TrainingError(f"The separator trains at {SAMPLE_RATE} Hz only.")
    folder = orders.cache / "separator"
    prepare_cache(
        orders.corpus, folder, Path(config.sound_font), num_bands=config.num_bands, band_seconds=config.band_s
    )
    torch.manual_seed(loop_config.seed)
    torch.backends.cudnn.benchmark = True  # every batch has the same shape
    task = SeparatorTask(
        Mixtures(
            folder,
            seconds=config.example_s,
            held_out=(config.held_out,),
            used_until_s=config.held_out_from_s if config.train_on_start else 0.0,
        ),
        held_out_song(folder, config.held_out, from_s=config.held_out_from_s),
        config,
        network=network,
        torch_device=orders.torch_device,
    )
    figures = run_task(task, loop_config, orders)
    _log.info("held-out song: SI-SDR gain %.2f dB", figures.get("si_sdr_gain_db", float("nan")))
