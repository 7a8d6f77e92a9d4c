"""Stage `decoder`: the print model from all speakers, then the network that starts from prints.

The network sees the prints of *other* recordings of the speaker and the deviation of a perturbed source, and has to
restore the envelope (L1 on band levels) and the spectrum with its harmonics. The second is a likelihood: the power
that pulses and noise are expected to have at each bin is compared with the recording's by the Itakura-Saito
divergence, which tells harmonics from noise without favouring either, and costs no synthesis. The configuration for
GPUs goes on by sound: restorations are compared in spectra of several resolutions and by discriminators; conversions to
other speakers, with deviation and pitch as conversion has them, must deceive the discriminators, have the wanted voice
by two speaker encoders and still say the same phones. The gradients of all losses are balanced, so that none rules.
"""

import copy
import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
import torchaudio
from torch import Tensor, nn

from engine.conversion.bands import SAMPLE_RATE, interpolation_matrix
from engine.conversion.content import MODEL_NAME as CONTENT_MODEL
from engine.conversion.content import STRIDE as CONTENT_STRIDE
from engine.conversion.content import ContentEncoder, load_content_encoder
from engine.conversion.decoder import Conditioning, Decoder, DecoderInputs, DecoderShape, to_controls
from engine.conversion.features import LogMel
from engine.conversion.models import DecoderModel, load_decoder, load_speaker, publish_decoder
from engine.conversion.source import DECIMATOR_LATENCY_SAMPLES, Decimator
from engine.conversion.speaker import embed_levels
from engine.conversion.streaming import DEFAULT_CONSONANTS, protect
from engine.conversion.synthesis import SourceFilter, SynthesisControls
from engine.errors import TrainingError
from engine.models import model_info
from engine.phones import PHONES
from engine.signal.clip import FloatArray
from engine.training.cache import ArrayCache
from engine.training.config import Orders, build
from engine.training.critics import (
    Critics,
    Gradients,
    deceived,
    likeness,
    limited,
    own_loss,
    recoloured,
    speaker_distance,
    spectral_distance,
    speech_levels,
)
from engine.training.excerpts import (
    SPECTRUM_BINS,
    Batch,
    Conversions,
    Excerpts,
    Plan,
    TrainingUtterance,
    make_utterance,
    print_model_of,
)
from engine.training.frames import FrameCache, chosen_and_measured
from engine.training.ge2e import Ge2e
from engine.training.loop import LoopConfig, Task, TrainingLoop, run_task
from engine.training.manifest import Utterance
from engine.training.speaker import active_levels

_log = logging.getLogger(__name__)

Parts = TypeVar("Parts", DecoderInputs, Conditioning, SynthesisControls)
_CRITIC_SAMPLES = 24000
_TEACHER_SAMPLES = 25600
_MARGIN = 0.25  # by which a conversion should be nearer to the target than to the source


@dataclass(frozen=True)
class DecoderConfig:
    """Settings of the stage beside `[loop]`.

    Attributes:
        seconds_per_speaker: Most seconds of one speaker, by set.
        default_seconds: Of sets not named there.
        speeds: Each speaker is there once more at one of these speeds; see `engine.training.manifest.with_speeds`.
        batch_size: Excerpts in a step, of each process.
        frames: Of an excerpt.
        learning_rate: Of AdamW, on the plateau.
        width: Of the network.
        dilations: Of its blocks.
        num_directions: Eigenvoices.
        spectrum_weight: Of the Itakura-Saito loss beside the envelopes' L1.
        sound_from_step: From this step on the decoder is trained by its sound, too; None never.
        frame_share: Share of the frames' losses in the gradient from then on.
        sound_shares: Shares of the losses on sound: "spectra", "likeness" and "deceived" of restorations (the last of
            conversions, too), "ge2e", "speaker", "manner" and "content" of conversions.
        critic_width: Of `engine.training.critics.Critics`.
        critic_learning_rate: Of the discriminators.
        start_from_published: Begin with the installed decoder's weights; the print model is fitted anew.
        share_of_start: Share of the weights that the run began with in those that are validated and published: the mean
            of both ends of fine-tuning keeps what the start did well (Wortsman et al., "Robust fine-tuning of zero-shot
            models", CVPR 2022).
        publish: Write the weights to the program's models after each validation.
        workers: Processes that analyse recordings.
    """

    seconds_per_speaker: dict[str, float] = field(default_factory=dict)
    default_seconds: float = 60.0
    speeds: tuple[float, ...] = ()
    batch_size: int = 16
    frames: int = 110
    learning_rate: float = 2e-3
    width: int = 160
    dilations: tuple[int, ...] = (1, 2, 4, 1, 2, 4)
    num_directions: int = 24
    spectrum_weight: float = 0.3
    sound_from_step: int | None = None
    frame_share: float = 0.3
    sound_shares: dict[str, float] = field(default_factory=dict)
    critic_width: int = 32
    critic_learning_rate: float = 3e-4
    start_from_published: bool = False
    share_of_start: float = 0.0
    publish: bool = False
    workers: int = 2


class FrameLoss(nn.Module):
    """The losses that need no synthesis: band levels, and the likelihood of the spectrum."""

    _to_bins: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("_to_bins", torch.from_numpy(interpolation_matrix(SPECTRUM_BINS)), persistent=False)

    def forward(self, controls: SynthesisControls, batch: Batch) -> tuple[Tensor, Tensor]:
        """L1 on band levels, and the Itakura-Saito divergence of spectra."""
        levels = torch.logaddexp(controls.harmonic, controls.noise)
        envelope = ((levels - batch.envelope).abs() * batch.weight).sum() / (batch.weight.sum() + 1.0)
        harmonic = torch.exp((controls.harmonic @ self._to_bins).clamp(min=-40.0)) * batch.pulse_power
        expected = harmonic + torch.exp((controls.noise @ self._to_bins).clamp(min=-40.0))
        ratio = torch.log(batch.power + 1e-12) - torch.log(expected + 1e-12)
        bounded = ratio.clamp(max=3.0)
        divergence = torch.exp(bounded) - ratio - 1.0 + (ratio - bounded) * float(np.exp(3.0))
        weight = batch.weight @ self._to_bins
        return envelope, (divergence * weight).sum() / (weight.sum() + 1.0)


class Listeners(nn.Module):
    """Fixed networks that hear whether a conversion has the wanted voice and still says the same."""

    def __init__(self) -> None:
        super().__init__()
        self.content, self.analyse = load_content_encoder(), LogMel()
        self.speaker, self.teacher = load_speaker(), Ge2e()

    def speakers(self, low: Tensor, wanted: Conversions) -> tuple[Tensor, Tensor]:
        """[B] GE2E cosines of conversions at 16 kHz to the wanted speakers and to the sources."""
        embedding = self.teacher(low)
        return (embedding * wanted.teachers).sum(-1), (embedding * wanted.source_teachers).sum(-1)

    def hear(self, audio: Tensor, wanted: Conversions) -> dict[str, Tensor]:
        """Losses of conversions [B, N] at 48 kHz.

        Returns:
            "ge2e": 1 - cosine to the wanted speaker by GE2E, and more as long as the source is nearer; "speaker": 1 -
            cosine by our own encoder; "manner": the same with the long-term spectrum of the wanted speaker, so that
            nothing is gained by colour; "content": cross-entropy of the source's phones.
        """
        self.teacher.lstm.train()  # cuDNN has no gradients otherwise; there is no dropout
        low = torchaudio.functional.resample(audio, SAMPLE_RATE, 16000)
        first = int(torch.randint(max(1, low.shape[1] - _TEACHER_SAMPLES), ()))
        to_target, to_source = self.speakers(low[:, first : first + _TEACHER_SAMPLES], wanted)
        margin = torch.relu(to_source - to_target + _MARGIN)
        log_posteriors = self.content.strided(self.analyse(low))
        phones = wanted.inputs.posteriors[:, ::CONTENT_STRIDE].transpose(1, 2)
        count = min(phones.shape[2], log_posteriors.shape[2])
        levels = speech_levels(audio)
        active = torch.sigmoid(wanted.inputs.relative_loudness[:, ::CONTENT_STRIDE][:, :count] + 6.0)
        missed = -(phones[..., :count] * log_posteriors[..., :count]).sum(1)
        return {
            "ge2e": (1.0 - to_target + 0.5 * margin).mean(),
            "speaker": speaker_distance(self.speaker, levels, wanted.voice.embedding),
            "manner": speaker_distance(self.speaker, recoloured(levels, wanted.mean_levels), wanted.voice.embedding),
            "content": (missed * active).sum() / (active.sum() + 1.0),
        }


class DecoderTask(Task):
    """Trains the decoder: first by its frames alone, then by its sound, on restorations and conversions.

    Args:
        train: What to learn from.
        dev: What to measure on.
        model: The decoder and its print model.
        config: Settings.
        listeners: Judge conversions by their sound; None trains by frames alone.
    """

    def __init__(
        self,
        train: Excerpts,
        dev: Excerpts,
        model: DecoderModel,
        config: DecoderConfig,
        *,
        listeners: Listeners | None = None,
    ) -> None:
        self._train, self._dev, self.config = train, dev, config
        self._print_model, self._listeners = model.print_model, listeners
        torch_device = train.torch_device
        decoder = model.decoder.to(torch_device).requires_grad_(True)
        self._start = copy.deepcopy(decoder.state_dict())
        self._loss = FrameLoss().to(torch_device)
        self._source_filter = SourceFilter().to(torch_device)
        self._in_sound, self._in_all = Gradients(), Gradients()
        self.networks: dict[str, nn.Module] = {"decoder": decoder}
        self.optimizers: dict[str, torch.optim.Optimizer] = {
            "decoder": torch.optim.AdamW(
                decoder.parameters(), lr=config.learning_rate, betas=(0.9, 0.98), weight_decay=0.01
            )
        }
        if listeners is not None:
            critics = Critics(config.critic_width).to(torch_device)
            self.networks["critics"] = critics
            self.optimizers["critics"] = torch.optim.AdamW(
                critics.parameters(), lr=config.critic_learning_rate, betas=(0.8, 0.99), weight_decay=0.01
            )

    def batch(self, rng: np.random.Generator) -> Plan:
        """Which excerpts."""
        return self._train.plan(rng, self.config.batch_size)

    def step(self, plan: Plan, loop: TrainingLoop) -> dict[str, Tensor]:
        """One update of the decoder and, once it is trained by its sound, of the discriminators."""
        plan = plan.to(self._train.torch_device)
        batch = self._train.gather(plan)
        decoder = self.networks["decoder"]
        assert isinstance(decoder, Decoder)
        conversions = None
        inputs, voice = batch.inputs, batch.voice
        if self._listeners is not None and loop.step >= (self.config.sound_from_step or 0):
            conversions = self._train.conversions(plan, batch)
            inputs, voice = _joined(inputs, conversions.inputs), _joined(voice, conversions.voice)
        with loop.autocast():
            outputs = decoder(inputs, voice)[:2]
        leaves = [output.detach().float().requires_grad_(True) for output in outputs]
        count = len(batch.envelope)
        restored = to_controls(leaves[0][:count], leaves[1][:count], batch.inputs, batch.inputs.loudness)
        envelope, spectrum = self._loss(restored, batch)
        scalars = {"envelope": envelope.detach(), "spectrum": spectrum.detach(), "loss": envelope.detach()}
        by_frames = torch.autograd.grad(
            envelope + self.config.spectrum_weight * spectrum, leaves, retain_graph=conversions is not None
        )
        parts: dict[str, tuple[float, Sequence[Tensor]]] = {
            "frames": (self.config.frame_share if conversions else 1.0, by_frames)
        }
        if conversions is not None:
            by_sound = self._by_sound(leaves, restored, batch, conversions, loop, scalars)
            parts["sound"] = (1.0 - self.config.frame_share, by_sound)
        gradients = self._in_all.total(parts)
        loop.update("decoder", sum((o.float() * g).sum() for o, g in zip(outputs, gradients, strict=True)))
        return scalars

    def _by_sound(
        self,
        leaves: Sequence[Tensor],
        restored: SynthesisControls,
        batch: Batch,
        conversions: Conversions,
        loop: TrainingLoop,
        scalars: dict[str, Tensor],
    ) -> Sequence[Tensor]:
        """Gradients of what the listeners say, with respect to the decoder's outputs."""
        assert self._listeners is not None
        count = len(batch.envelope)
        converted = _converted(leaves[0][count:], leaves[1][count:], batch, conversions)
        pulses = torch.cat([batch.pulses, conversions.pulses])
        audio = self._source_filter(pulses, torch.randn_like(pulses), _joined(restored, converted))
        made = audio[:, : batch.audio.shape[1]]
        heard = made.detach().requires_grad_(True)
        bandwidth = batch.bandwidth_hz
        limits = torch.cat([bandwidth, bandwidth])
        fakes, real = limited(heard, limits), limited(batch.audio, bandwidth)
        critics = self.networks["critics"]
        assert isinstance(critics, Critics)
        first = int(torch.randint(max(1, real.shape[1] - _CRITIC_SAMPLES), ()))
        part = slice(first, first + _CRITIC_SAMPLES)
        shown = torch.cat([real, fakes])[:, part]
        with loop.autocast():
            doubt = own_loss(critics(shown.detach()), count)
        loop.update("critics", doubt)
        with loop.autocast():
            judged = critics(shown)
            losses = {
                "spectra": spectral_distance(fakes[:count].float(), real),
                "likeness": likeness(judged, count),
                "deceived": deceived(judged, count),
            }
        losses |= self._listeners.hear(heard[count:], conversions)
        shares = self.config.sound_shares
        parts = {}
        for name, loss in losses.items():
            scalars[name] = loss.detach()
            if shares.get(name):
                parts[name] = (shares[name], torch.autograd.grad(loss, [heard], retain_graph=True))
        scalars["doubt"] = doubt.detach()
        return torch.autograd.grad([made], leaves, grad_outputs=self._in_sound.total(parts))

    @torch.inference_mode()
    def validate(self, averaged: Mapping[str, nn.Module]) -> dict[str, float]:
        """The frame losses on speakers that training never saw."""
        decoder = self._with_start(averaged["decoder"])
        rng = np.random.default_rng(0)
        figures: dict[str, list[float]] = defaultdict(list)
        for _ in range(6):
            plan = self._dev.plan(rng, 16).to(self._dev.torch_device)
            batch = self._dev.gather(plan)
            shape, share, _ = decoder(batch.inputs, batch.voice)
            envelope, spectrum = self._loss(to_controls(shape, share, batch.inputs, batch.inputs.loudness), batch)
            figures["envelope"].append(float(envelope))
            figures["spectrum"].append(float(spectrum))
            if self._listeners is not None:
                for name, values in self._likeness(decoder, plan, batch, self._listeners).items():
                    figures[name] += values
        return {name: float(np.mean(values)) for name, values in figures.items() if values}

    def _likeness(self, decoder: Decoder, plan: Plan, batch: Batch, listeners: Listeners) -> dict[str, list[float]]:
        """GE2E cosines of conversions to targets and sources, and how often the target is nearer."""
        wanted = self._dev.conversions(plan, batch)
        shape, share, _ = decoder(wanted.inputs, wanted.voice)
        controls = _converted(shape, share, batch, wanted)
        audio = self._source_filter(wanted.pulses, torch.randn_like(wanted.pulses), controls)
        low = torchaudio.functional.resample(audio, SAMPLE_RATE, 16000)
        cosines = listeners.speakers(low[:, :_TEACHER_SAMPLES], wanted)
        other = (wanted.teachers * wanted.source_teachers).sum(-1) < 0.999  # a speaker is no target for himself
        to_target, to_source = (values[other].tolist() for values in cosines)
        closer = [float(a > b) for a, b in zip(to_target, to_source, strict=True)]
        return {"to_target": to_target, "to_source": to_source, "closer": closer}

    def _with_start(self, decoder: nn.Module) -> Decoder:
        """A copy between the weights that the run began with and those given."""
        between = copy.deepcopy(decoder)
        assert isinstance(between, Decoder)
        with torch.no_grad():
            for name, value in between.state_dict().items():
                value.lerp_(self._start[name], self.config.share_of_start)
        return between

    def publish(self, averaged: Mapping[str, nn.Module], step: int, figures: Mapping[str, float]) -> None:
        """Write the decoder and the print model to the program's models."""
        if not self.config.publish:
            return
        decoder = self._with_start(averaged["decoder"])
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

        def posteriors() -> npt.NDArray[np.float16]:
            samples = self._frames.samples(utterance)
            decimated = Decimator().push(np.pad(samples, (0, DECIMATOR_LATENCY_SAMPLES)))
            with torch.inference_mode():
                found = self._content(self._analyse(torch.from_numpy(decimated)[None]))[0].exp()
            return found.T.half().numpy()

        active = active_levels(frames.raw.astype(np.float32))

        def embedding() -> FloatArray:
            return embed_levels(load_speaker(), torch.from_numpy(active)).numpy()

        return make_utterance(
            utterance.speaker,
            frames.envelope.astype(np.float32),
            frames.f0_hz,
            np.asarray(self._posteriors.get(key, posteriors), np.float32),
            np.asarray(self._embeddings.get(key, embedding), np.float32),
            self._frames.teacher_embedding(utterance),
            active.mean(axis=0),
            utterance.bandwidth_hz,
            self._frames.stored_samples(utterance),
        )


def read_all(utterances: Sequence[Utterance], cache: Path, workers: int) -> list[TrainingUtterance]:
    """Read many recordings in `workers` processes."""
    parts = [utterances[start : start + 20] for start in range(0, len(utterances), 20)]
    with ProcessPoolExecutor(max(workers, 1)) as pool:
        read = [each for part in pool.map(_read_part, parts, [cache] * len(parts)) for each in part]
    frames = FrameCache(cache)
    return [replace(each, samples=frames.stored_samples(u)) for each, u in zip(read, utterances, strict=True)]


_reader: UtteranceReader | None = None  # one a process


def _read_part(utterances: Sequence[Utterance], cache: Path) -> list[TrainingUtterance]:
    global _reader
    torch.set_num_threads(1)
    _reader = _reader or UtteranceReader(cache)
    nothing = np.zeros(0, np.int16)  # the samples stay in their files
    return [replace(_reader.read(utterance), samples=nothing) for utterance in utterances]


def build_task(
    train: Sequence[TrainingUtterance],
    dev: Sequence[TrainingUtterance],
    config: DecoderConfig,
    *,
    torch_device: str = "cpu",
    listeners: Listeners | None = None,
) -> DecoderTask:
    """Fit the print model and set up the network.

    Args:
        train: What to learn from.
        dev: What to measure on.
        config: Settings.
        torch_device: Where to train.
        listeners: For training by sound.

    Raises:
        TrainingError: There is nothing to learn from.
    """
    if not train or not dev:
        raise TrainingError("There are no recordings to train the decoder on.", hint="Check the corpus and the sets.")
    prints = print_model_of(train, config.num_directions)
    decoder = Decoder(DecoderShape(len(PHONES), config.width, config.dilations))
    if config.start_from_published:
        decoder.load_state_dict(load_decoder().decoder.state_dict())
    learnt, measured = (
        Excerpts(part, prints, config.frames, torch_device=torch_device, workers=config.workers)
        for part in (train, dev)
    )
    return DecoderTask(
        learnt,
        measured,
        DecoderModel(decoder, prints),
        config,
        listeners=listeners.to(torch_device) if listeners else None,
    )


def _converted(shape: Tensor, share: Tensor, batch: Batch, wanted: Conversions) -> SynthesisControls:
    """What the decoder gave for conversions of a batch, as the synthesis of the program would get it."""
    shape = protect(shape, batch.source_shape, wanted.inputs.f0_hz, DEFAULT_CONSONANTS)
    return to_controls(shape, share, wanted.inputs, wanted.inputs.loudness)


def _joined(first: Parts, second: Parts) -> Parts:
    """Two dataclasses of tensors as one, rows of the second after the first's."""
    return type(first)(
        **{each.name: torch.cat([getattr(first, each.name), getattr(second, each.name)]) for each in fields(first)}
    )


def run(settings: dict[str, Any], orders: Orders) -> None:
    """Analyse the corpus and train the decoder on the installed content and speaker encoders.

    Raises:
        TrainingError: Settings, manifest, cache or saved state are unusable.
        ModelError: The content or speaker encoder is not installed.
    """
    values = dict(settings)
    loop_config = build(LoopConfig, values.pop("loop"))
    config = build(DecoderConfig, values)
    torch.set_num_threads(1)  # processes are forked from here; the loop sets what it was told
    chosen, measured = chosen_and_measured(
        orders, config.seconds_per_speaker, config.default_seconds, config.workers, config.speeds
    )
    train, dev = read_all(chosen, orders.cache, config.workers), read_all(measured, orders.cache, config.workers)
    hours = sum(len(utterance.f0_hz) for utterance in train) / 360000
    _log.info("%d recordings, %.2f h, print models of them", len(train), hours)
    torch.manual_seed(loop_config.seed)
    torch.backends.cudnn.benchmark = True  # every batch has the same shapes
    torch.set_float32_matmul_precision("high")
    listeners = Listeners().requires_grad_(False) if config.sound_from_step is not None else None
    task = build_task(train, dev, config, torch_device=orders.torch_device, listeners=listeners)
    run_task(task, loop_config, orders)
