"""Stage `decoder`: the print model from all speakers, then the network that starts from prints.

The network sees the prints of *other* recordings of the speaker and the deviation of a perturbed source, and has to
restore the envelope (L1 on band levels) and the spectrum with its harmonics. The second is a likelihood: the power
that pulses and noise are expected to have at each bin is compared with the recording's by the Itakura-Saito
divergence, which tells harmonics from noise without favouring either, and costs no synthesis. The configuration for
GPUs adds losses on synthesised audio: multi-resolution spectra, discriminators, and on conversions to other speakers
the cosine to the wanted speaker.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from engine.conversion.bands import interpolation_matrix
from engine.conversion.content import MODEL_NAME as CONTENT_MODEL
from engine.conversion.content import ContentEncoder, load_content_encoder
from engine.conversion.decoder import Conditioning, Decoder, DecoderShape, to_controls
from engine.conversion.features import LogMel
from engine.conversion.models import DecoderModel, load_decoder, load_speaker, publish_decoder
from engine.conversion.source import DECIMATOR_LATENCY_SAMPLES, Decimator
from engine.conversion.speaker import embed_levels
from engine.conversion.synthesis import SourceFilter, SynthesisControls
from engine.errors import TrainingError
from engine.models import model_info
from engine.phones import PHONES
from engine.signal.clip import FloatArray
from engine.training.cache import ArrayCache
from engine.training.config import build
from engine.training.critics import Critics, speaker_distance, spectral_distance
from engine.training.excerpts import (
    SPECTRUM_BINS,
    Batch,
    Excerpts,
    TrainingUtterance,
    make_utterance,
    print_model_of,
)
from engine.training.frames import FrameCache, choose
from engine.training.loop import LoopConfig, Task, TrainingLoop
from engine.training.manifest import Utterance, read_manifest
from engine.training.speaker import active_levels

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class DecoderConfig:
    """Settings of the stage beside `[loop]`.

    Attributes:
        seconds_per_speaker: Most seconds of one speaker, by set.
        default_seconds: Of sets not named there.
        batch_size: Excerpts in a step, of each process.
        frames: Of an excerpt.
        learning_rate: Of AdamW, on the plateau.
        width: Of the network.
        dilations: Of its blocks.
        num_directions: Eigenvoices.
        spectrum_weight: Of the Itakura-Saito loss.
        spectrum_share: Share of the steps that have it.
        audio_weight: Of the multi-resolution spectra of synthesised audio; 0 leaves synthesis out.
        adversarial_weight: Of the discriminators.
        critic_width: Channels of the discriminators' first layers.
        conversion_weight: Of the speaker's cosine on conversions.
        start_from_published: Begin with the installed decoder's weights and keep its print model's eigenvoices new.
        publish: Write the weights to the program's models after each validation.
        workers: Processes that analyse recordings.
    """

    seconds_per_speaker: dict[str, float] = field(default_factory=dict)
    default_seconds: float = 60.0
    batch_size: int = 16
    frames: int = 110
    learning_rate: float = 2e-3
    width: int = 160
    dilations: tuple[int, ...] = (1, 2, 4, 1, 2, 4)
    num_directions: int = 24
    spectrum_weight: float = 0.3
    spectrum_share: float = 0.5
    audio_weight: float = 0.0
    adversarial_weight: float = 0.0
    critic_width: int = 32
    conversion_weight: float = 0.0
    start_from_published: bool = False
    publish: bool = False
    workers: int = 2

    @property
    def with_audio(self) -> bool:
        """Whether any loss needs synthesis."""
        return max(self.audio_weight, self.adversarial_weight, self.conversion_weight) > 0


class FrameLoss(nn.Module):
    """The losses that need no synthesis: band levels, and the likelihood of the spectrum."""

    _to_bins: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("_to_bins", torch.from_numpy(interpolation_matrix(SPECTRUM_BINS)), persistent=False)

    def forward(self, controls: SynthesisControls, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """L1 on band levels, and the Itakura-Saito divergence where the batch has spectra."""
        levels = torch.logaddexp(controls.harmonic, controls.noise)
        envelope = ((levels - batch.envelope).abs() * batch.weight).sum() / (batch.weight.sum() + 1.0)
        if batch.power is None or batch.pulses is None:
            return envelope, None
        harmonic = torch.exp((controls.harmonic @ self._to_bins).clamp(min=-40.0)) * batch.pulses
        expected = harmonic + torch.exp((controls.noise @ self._to_bins).clamp(min=-40.0))
        ratio = torch.log(batch.power + 1e-12) - torch.log(expected + 1e-12)
        bounded = ratio.clamp(max=3.0)
        divergence = torch.exp(bounded) - ratio - 1.0 + (ratio - bounded) * float(np.exp(3.0))
        weight = batch.weight @ self._to_bins
        return envelope, (divergence * weight).sum() / (weight.sum() + 1.0)


class DecoderTask(Task):
    """Trains the decoder, and discriminators when they are asked for."""

    def __init__(
        self, train: Excerpts, dev: Excerpts, model: DecoderModel, config: DecoderConfig, *, torch_device: str = "cpu"
    ) -> None:
        self._train, self._dev, self.config = train, dev, config
        self._print_model = model.print_model
        self._torch_device = torch_device
        decoder = model.decoder.to(torch_device).requires_grad_(True)
        self._loss = FrameLoss().to(torch_device)
        self._source_filter = SourceFilter().to(torch_device)
        self.networks: dict[str, nn.Module] = {"decoder": decoder}
        self.optimizers: dict[str, torch.optim.Optimizer] = {"decoder": self._optimizer(decoder)}
        self._speaker = load_speaker().to(torch_device) if config.conversion_weight else None
        if config.adversarial_weight:
            critics = Critics(config.critic_width).to(torch_device)
            self.networks["critics"] = critics
            self.optimizers["critics"] = self._optimizer(critics)

    def _optimizer(self, network: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.AdamW(
            network.parameters(), lr=self.config.learning_rate, betas=(0.9, 0.98), weight_decay=0.01
        )

    def batch(self, rng: np.random.Generator) -> Batch:
        """Excerpts with spectra in a share of the steps, with audio where a loss needs it."""
        return self._train.draw(
            rng,
            self.config.batch_size,
            with_spectrum=bool(rng.random() < self.config.spectrum_share),
            with_audio=self.config.with_audio,
        )

    def step(self, batch: Batch, loop: TrainingLoop) -> dict[str, Tensor]:
        """One update of the decoder, and of the discriminators where there are any."""
        batch = batch.to(self._torch_device)
        decoder = self.networks["decoder"]
        assert isinstance(decoder, Decoder)
        with loop.autocast():
            shape, share, _ = decoder(batch.inputs, batch.voice)
        controls = to_controls(shape.float(), share.float(), batch.inputs, batch.inputs.loudness)
        envelope, spectrum = self._loss(controls, batch)
        scalars = {"envelope": envelope.detach()}
        loss = envelope
        if spectrum is not None:
            scalars["spectrum"] = spectrum.detach()
            loss = loss + self.config.spectrum_weight * spectrum
        if self.config.with_audio:
            loss = loss + self._audio_losses(decoder, controls, batch, loop, scalars)
        loop.update("decoder", loss)
        scalars["loss"] = envelope.detach()
        return scalars

    def _audio_losses(
        self,
        decoder: Decoder,
        controls: SynthesisControls,
        batch: Batch,
        loop: TrainingLoop,
        scalars: dict[str, Tensor],
    ) -> Tensor:
        assert batch.audio is not None
        assert batch.excitation is not None
        num_samples = batch.audio.shape[1]
        made = self._source_filter(batch.excitation[:, 0], batch.excitation[:, 1], controls)[:, :num_samples]
        loss = self.config.audio_weight * spectral_distance(made, batch.audio)
        scalars["audio"] = loss.detach()
        converted = None
        if self.config.conversion_weight and self._speaker is not None:
            others = torch.roll(torch.arange(len(made), device=made.device), 1)
            voice = batch.voice
            wanted = Conditioning(voice.embedding[others], voice.prints[others], voice.condition, voice.bias)
            shape, share, _ = decoder(batch.inputs, wanted)
            other = to_controls(shape.float(), share.float(), batch.inputs, batch.inputs.loudness)
            converted = self._source_filter(batch.excitation[:, 0], batch.excitation[:, 1], other)[:, :num_samples]
            distance = speaker_distance(self._speaker, converted, wanted.embedding)
            scalars["conversion"] = distance.detach()
            loss = loss + self.config.conversion_weight * distance
        if self.config.adversarial_weight:
            critics = self.networks["critics"]
            assert isinstance(critics, Critics)
            fakes = made if converted is None else torch.cat([made, converted])
            loop.update("critics", critics.own_loss(batch.audio, fakes.detach()))
            adversarial = critics.maker_loss(batch.audio, made, fakes)
            scalars["adversarial"] = adversarial.detach()
            loss = loss + self.config.adversarial_weight * adversarial
        return loss

    @torch.inference_mode()
    def validate(self, averaged: Mapping[str, nn.Module]) -> dict[str, float]:
        """The frame losses on speakers that training never saw."""
        decoder = averaged["decoder"]
        assert isinstance(decoder, Decoder)
        rng = np.random.default_rng(0)
        envelopes, spectra = [], []
        for _ in range(4):
            batch = self._dev.draw(rng, 16, with_spectrum=True, with_audio=False).to(self._torch_device)
            shape, share, _ = decoder(batch.inputs, batch.voice)
            envelope, spectrum = self._loss(to_controls(shape, share, batch.inputs, batch.inputs.loudness), batch)
            envelopes.append(float(envelope))
            spectra.append(float(spectrum))
        return {"envelope": float(np.mean(envelopes)), "spectrum": float(np.mean(spectra))}

    def publish(self, averaged: Mapping[str, nn.Module], step: int, figures: Mapping[str, float]) -> None:
        """Write the decoder and the print model to the program's models."""
        if not self.config.publish:
            return
        decoder = averaged["decoder"]
        assert isinstance(decoder, Decoder)
        metadata = {name: f"{value:.4f}" for name, value in figures.items()}
        metadata |= {"steps": str(step), "licence": "Apache-2.0", "content": model_info(CONTENT_MODEL).sha256[:16]}
        publish_decoder(DecoderModel(decoder, self._print_model), metadata)


class UtteranceReader:
    """Reads what the decoder learns from, with posteriors of the installed content encoder cached by its hash.

    Args:
        cache: The cache folder.
    """

    def __init__(self, cache: Path) -> None:
        self._frames = FrameCache(cache)
        self._content: ContentEncoder = load_content_encoder()
        self._posteriors = ArrayCache(cache, f"posteriors-{model_info(CONTENT_MODEL).sha256[:12]}")
        speaker = model_info("speaker").sha256[:12]
        self._embeddings = ArrayCache(cache, f"embedding-{speaker}")
        self._analyse = LogMel()

    def read(self, utterance: Utterance) -> TrainingUtterance:
        """One recording; analyses that depend on models are made on first use."""
        frames = self._frames.frames(utterance)
        key = utterance.key

        def posteriors() -> FloatArray:
            samples = self._frames.samples(utterance)
            decimated = Decimator().push(np.pad(samples, (0, DECIMATOR_LATENCY_SAMPLES)))
            with torch.inference_mode():
                found = self._content(self._analyse(torch.from_numpy(decimated)[None]))[0].exp()
            return found.T.numpy()

        def embedding() -> FloatArray:
            return embed_levels(load_speaker(), torch.from_numpy(active_levels(frames.raw.astype(np.float32)))).numpy()

        return make_utterance(
            utterance.speaker,
            frames.envelope.astype(np.float32),
            frames.f0_hz,
            np.asarray(self._posteriors.get(key, posteriors), np.float32),
            np.asarray(self._embeddings.get(key, embedding), np.float32),
            utterance.bandwidth_hz,
            self._frames.stored_samples(utterance),
        )


def build_task(
    train: Sequence[TrainingUtterance],
    dev: Sequence[TrainingUtterance],
    config: DecoderConfig,
    *,
    torch_device: str = "cpu",
) -> DecoderTask:
    """Fit the print model and set up the network.

    Raises:
        TrainingError: There is nothing to learn from.
    """
    if not train or not dev:
        raise TrainingError("There are no recordings to train the decoder on.", hint="Check the corpus and the sets.")
    prints = print_model_of(train, config.num_directions)
    decoder = Decoder(DecoderShape(len(PHONES), config.width, config.dilations))
    if config.start_from_published:
        decoder.load_state_dict(load_decoder().decoder.state_dict())
    model = DecoderModel(decoder, prints)
    learnt, measured = Excerpts(train, prints, config.frames), Excerpts(dev, prints, config.frames)
    return DecoderTask(learnt, measured, model, config, torch_device=torch_device)


def run(
    settings: dict[str, Any],
    *,
    corpus: Path,
    cache: Path,
    run_folder: Path,
    resume: bool,
    until: int | None,
    deadline: float | None,
    torch_device: str,
) -> None:
    """Analyse the corpus and train the decoder on the installed content and speaker encoders.

    Raises:
        TrainingError: Settings, manifest, cache or saved state are unusable.
        ModelError: The content or speaker encoder is not installed.
    """
    values = dict(settings)
    loop_config = build(LoopConfig, values.pop("loop"))
    config = build(DecoderConfig, values)
    torch.set_num_threads(max(loop_config.num_threads, 1))
    chosen = choose(read_manifest(corpus, "train"), config.seconds_per_speaker, default_s=config.default_seconds)
    measured = read_manifest(corpus, "dev")[::3]
    FrameCache(cache).prepare([*chosen, *measured], config.workers)
    reader = UtteranceReader(cache)
    train, dev = [reader.read(utterance) for utterance in chosen], [reader.read(utterance) for utterance in measured]
    hours = sum(len(utterance.f0_hz) for utterance in train) / 360000
    _log.info("%d recordings, %.2f h, print models of them", len(train), hours)
    torch.manual_seed(loop_config.seed)
    task = build_task(train, dev, config, torch_device=torch_device)
    TrainingLoop(task, loop_config, run_folder, resume=resume).run(until=until, deadline=deadline)
