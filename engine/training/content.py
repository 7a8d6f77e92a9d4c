"""Stage `content`: the phone classifier of engine.conversion.content, by frame-wise cross-entropy on aligned speech."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from engine.conversion.content import MODEL_NAME, STRIDE, ContentEncoder, ContentShape
from engine.conversion.features import FRAME_RATE, SAMPLE_RATE, LogMel
from engine.errors import TrainingError
from engine.models import publish_embedded
from engine.phones import PHONES, SILENCE
from engine.training.align import label_cache
from engine.training.augmentation import AugmentationConfig, augment, noise_log_mel, stretched
from engine.training.cache import ArrayCache, AudioCache
from engine.training.config import Orders, build
from engine.training.loop import LoopConfig, Task, TrainingLoop, run_task
from engine.training.manifest import Utterance, read_manifest

_log = logging.getLogger(__name__)

_SILENT = PHONES.index(SILENCE)
_VOWELS = np.array([phone[0] in "AEIOU" for phone in PHONES])


@dataclass(frozen=True)
class ContentConfig:
    """Settings of the stage beside `[loop]`, `[shape]` and `[augmentation]`.

    Attributes:
        batch_size: Examples in a step, of each process.
        crop_frames: Length of an example, frames of 10 ms.
        learning_rate: Of AdamW, on the plateau.
        weight_decay: Of AdamW.
        dropout: Share of hidden values left out.
        noise_only_share: Share of examples that are nothing but noise, to be called silence.
        sung_share: Share of examples whose vowels are held two to six times as long.
        tempo: Greatest change of pace, up or down.
        validation_utterances: Of the dev split, evenly picked; 0 takes all.
        publish: Write the weights to the program's models after each validation.
    """

    batch_size: int = 32
    crop_frames: int = 300
    learning_rate: float = 2e-3
    weight_decay: float = 0.01
    dropout: float = 0.0
    noise_only_share: float = 0.03
    sung_share: float = 0.1
    tempo: float = 1.15
    validation_utterances: int = 80
    publish: bool = False


class AlignedSpeech:
    """Log-mel frames with their phones, in memory, one utterance after another.

    Args:
        utterances: Frames [T, NUM_MELS] float16 and labels [T] uint8, indices into PHONES, of each utterance.

    Attributes:
        frames: [N, NUM_MELS] float16, all of them.
        labels: [N] uint8.
        starts: [utterances + 1], where each begins and the last one ends.

    Raises:
        TrainingError: There are none.
    """

    def __init__(self, utterances: Sequence[tuple[npt.NDArray[np.float16], npt.NDArray[np.uint8]]]) -> None:
        if not utterances:
            raise TrainingError("There is no aligned speech to learn from.", hint="Run the stage 'align' first.")
        self.frames = np.concatenate([frames for frames, _ in utterances])
        self.labels = np.concatenate([labels for _, labels in utterances])
        self.starts = np.cumsum([0, *(len(labels) for _, labels in utterances)])

    def __len__(self) -> int:
        """How many utterances."""
        return len(self.starts) - 1

    @property
    def hours(self) -> float:
        """Duration of all together."""
        return len(self.labels) / FRAME_RATE / 3600

    def crop(self, rng: np.random.Generator, num_frames: int) -> npt.NDArray[np.int64]:
        """Places [num_frames] of a random stretch; where an utterance ends, another one follows from its start."""
        first = int(rng.integers(len(self.labels)))
        end = int(self.starts[np.searchsorted(self.starts, first, side="right")])
        parts = []
        missing = num_frames
        while missing > 0:
            parts.append(np.arange(first, min(end, first + missing)))
            missing -= len(parts[-1])
            following = int(rng.integers(len(self)))
            first, end = int(self.starts[following]), int(self.starts[following + 1])
        return np.concatenate(parts)


def load_aligned(corpus: Path, cache: Path, split: str) -> AlignedSpeech:
    """All utterances of a split that stage `align` has labelled so far; features are computed on first use.

    Raises:
        TrainingError: The manifest or the cache is unusable, or nothing is labelled.
    """
    labels, audio, mels = label_cache(cache), AudioCache(cache, SAMPLE_RATE), ArrayCache(cache, "logmel")
    analyse = LogMel()
    aligned = []
    for utterance in read_manifest(corpus, split):
        if utterance.key not in labels:
            continue
        phones = labels.read(utterance.key, memory_mapped=False)
        if len(phones):
            aligned.append((_log_mel(utterance, audio, mels, analyse), phones.astype(np.uint8)))
    return AlignedSpeech(aligned)


def _log_mel(utterance: Utterance, audio: AudioCache, mels: ArrayCache, analyse: LogMel) -> npt.NDArray[np.float16]:
    def make() -> npt.NDArray[np.float16]:
        samples = torch.from_numpy(audio.samples(utterance).astype(np.float32) / 32768.0)
        with torch.inference_mode():
            return analyse(samples[None])[0].T.contiguous().half().numpy()

    if utterance.key not in mels:
        mels.write(utterance.key, make())
    return mels.read(utterance.key, memory_mapped=False)  # type: ignore[return-value]


class ContentTask(Task):
    """Frame-wise cross-entropy of the content encoder."""

    def __init__(
        self,
        train: AlignedSpeech,
        dev: AlignedSpeech,
        config: ContentConfig,
        *,
        shape: ContentShape | None = None,
        augmentation: AugmentationConfig | None = None,
        torch_device: str = "cpu",
    ) -> None:
        self.config, self._train, self._dev = config, train, dev
        self._augmentation = augmentation or AugmentationConfig()
        self._torch_device = torch_device
        # All frames lie on the device and are picked there, so no data loader can keep a GPU waiting.
        self._frames = torch.from_numpy(train.frames).to(torch_device)
        encoder = ContentEncoder(shape, dropout=config.dropout).to(torch_device)
        self.networks = {"encoder": encoder}
        self.optimizers = {
            "encoder": torch.optim.AdamW(
                encoder.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, betas=(0.9, 0.98)
            )
        }

    def batch(self, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Which frames to mix: places [B, T, 2], share of the second [B, T] float32, labels [B, ceil(T / STRIDE)]."""
        examples = [self._example(rng) for _ in range(self.config.batch_size)]
        places, shares, labels = (torch.from_numpy(np.stack(part)) for part in zip(*examples, strict=True))
        return places, shares, labels

    def step(self, batch: tuple[Tensor, Tensor, Tensor], loop: TrainingLoop) -> dict[str, Tensor]:
        """One update of the encoder."""
        places, shares, labels = (part.to(self._torch_device) for part in batch)
        picked = self._frames[places].float()
        log_mel = torch.lerp(picked[:, :, 0], picked[:, :, 1], shares[..., None]).transpose(1, 2).contiguous()
        changed = augment(log_mel, self._augmentation)
        noisy = (torch.rand(len(labels), device=changed.device) < self.config.noise_only_share).nonzero()[:, 0]
        if len(noisy):
            level = -19.0 + 16.0 * torch.rand(len(noisy), 1, 1, device=changed.device)
            changed[noisy] = noise_log_mel(len(noisy), changed) + level
            labels[noisy] = _SILENT
        encoder = self.networks["encoder"]
        assert isinstance(encoder, ContentEncoder)
        with loop.autocast():
            log_posteriors = encoder.strided(changed)
            loss = nn.functional.nll_loss(log_posteriors.float(), labels)
        loop.update("encoder", loss)
        correct = (log_posteriors.detach().argmax(dim=1) == labels).float().mean()
        return {"loss": loss.detach(), "frame_accuracy": correct}

    def validate(self, averaged: Mapping[str, nn.Module]) -> dict[str, float]:
        """Phone error and frame accuracy on unseen speakers."""
        encoder = averaged["encoder"]
        assert isinstance(encoder, ContentEncoder)
        return measure(encoder, self._dev, self.config.validation_utterances)

    def publish(self, averaged: Mapping[str, nn.Module], step: int, figures: Mapping[str, float]) -> None:
        """Write the encoder to the program's models, if the settings say so."""
        if not self.config.publish:
            return
        encoder = averaged["encoder"]
        assert isinstance(encoder, ContentEncoder)
        tensors = encoder.state_dict()
        metadata = {
            **encoder.shape.to_metadata(),
            "licence": "Apache-2.0",
            "steps": str(step),
            **{name: f"{value:.4f}" for name, value in figures.items()},
        }
        publish_embedded(
            MODEL_NAME, "content", tensors, metadata, keep_precision=[name for name in tensors if "norm" in name]
        )

    def _example(
        self, rng: np.random.Generator
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        wanted = self.config.crop_frames
        slowest = self.config.tempo ** rng.uniform(-1, 1)
        places = self._train.crop(rng, int(wanted / slowest) + 2)
        phones = self._train.labels[places]
        pace = np.full(len(places), slowest)
        if rng.random() < self.config.sung_share:
            pace[_VOWELS[phones]] *= rng.uniform(2.0, 6.0)
        before, after, share = stretched(pace, wanted)
        labels = phones[np.where(share < 0.5, before, after)]
        return np.stack([places[before], places[after]], axis=1), share, labels[::STRIDE].astype(np.int64)


def measure(encoder: ContentEncoder, speech: AlignedSpeech, num_utterances: int = 0) -> dict[str, float]:
    """Compare the most probable phones with the aligned ones.

    Args:
        encoder: In evaluation mode.
        speech: Labelled utterances.
        num_utterances: How many to measure, evenly picked; 0 for all.

    Returns:
        "phone_error": edits between the phone sequences (repeats collapsed, silence removed) per reference phone, where
        the sequence found is `most_probable_path`; "argmax_phone_error": the same, where it is the best phone of each
        frame by itself; "frame_accuracy": share of frames whose best phone is the aligned one.
    """
    torch_device = next(encoder.parameters()).device
    edits = raw_edits = phones = right = total = 0
    count = min(num_utterances or len(speech), len(speech))
    for index in np.unique(np.linspace(0, len(speech) - 1, count).astype(int)):
        part = slice(speech.starts[index], speech.starts[index + 1])
        log_mel = torch.from_numpy(speech.frames[part].T.astype(np.float32))[None].to(torch_device)
        with torch.inference_mode():
            log_posteriors = encoder(log_mel)[0].T.cpu().numpy()
        found = log_posteriors.argmax(axis=1)
        reference = speech.labels[part]
        right, total = right + int((found == reference).sum()), total + len(reference)
        wanted = _collapsed(reference)
        phones += len(wanted)
        edits += edit_distance(_collapsed(most_probable_path(log_posteriors)), wanted)
        raw_edits += edit_distance(_collapsed(found), wanted)
    phones = max(phones, 1)
    return {
        "phone_error": edits / phones,
        "argmax_phone_error": raw_edits / phones,
        "frame_accuracy": right / total,
    }


def most_probable_path(log_posteriors: npt.NDArray[np.float32], change_cost: float = 3.0) -> npt.NDArray[np.int64]:
    """The phones [T] of greatest summed log-posterior [T, K] less `change_cost` nats a change (Viterbi's algorithm)."""
    num_frames, num_phones = log_posteriors.shape
    score = log_posteriors[0].copy()
    came_from = np.zeros((num_frames, num_phones), np.int64)
    for frame in range(1, num_frames):
        best = int(score.argmax())
        stays = score >= score[best] - change_cost
        came_from[frame] = np.where(stays, np.arange(num_phones), best)
        score = np.where(stays, score, score[best] - change_cost) + log_posteriors[frame]
    path = [int(score.argmax())]
    for frame in range(num_frames - 1, 0, -1):
        path.append(int(came_from[frame, path[-1]]))
    return np.array(path[::-1])


def edit_distance(first: npt.NDArray[np.generic], second: npt.NDArray[np.generic]) -> int:
    """Fewest insertions, deletions and replacements that turn one sequence into the other."""
    row = np.arange(len(second) + 1)
    steps = np.arange(len(second) + 1)
    for count, item in enumerate(first, start=1):
        best = np.concatenate([[count], np.minimum(row[:-1] + (second != item), row[1:] + 1)])
        row = np.minimum.accumulate(best - steps) + steps  # insertions, all at once
    return int(row[-1])


def _collapsed(labels: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    kept = labels[np.concatenate([[True], labels[1:] != labels[:-1]])]
    return kept[kept != _SILENT]


def run(settings: dict[str, Any], orders: Orders) -> None:
    """Train the content encoder.

    Raises:
        TrainingError: Settings, manifest, cache or saved state are unusable.
    """
    values = dict(settings)
    loop_config = build(LoopConfig, values.pop("loop"))
    shape = build(ContentShape, values.pop("shape", {}))
    augmentation = build(AugmentationConfig, values.pop("augmentation", {}))
    config = build(ContentConfig, values)
    train, dev = (
        load_aligned(orders.corpus, orders.cache, "train"),
        load_aligned(orders.corpus, orders.cache, "dev"),
    )
    _log.info("aligned speech: %.2f h to learn from, %.2f h to measure on", train.hours, dev.hours)
    torch.manual_seed(loop_config.seed)
    task = ContentTask(train, dev, config, shape=shape, augmentation=augmentation, torch_device=orders.torch_device)
    run_task(task, loop_config, orders)
