"""Stage `speaker`: our own speaker encoder, taught by the embeddings of Resemblyzer's GE2E encoder.

Each step shows windows of 1.6 s and asks for the teacher's embedding of the utterance they are cut from; the
similarities inside the batch must agree too, because those are what the encoder is used for.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from engine.conversion.bands import NUM_SPEECH_BANDS
from engine.conversion.models import publish_speaker
from engine.conversion.speaker import WINDOW_FRAMES, SpeakerEncoder, embed_levels
from engine.errors import TrainingError
from engine.signal.clip import FloatArray
from engine.training.config import Orders, build
from engine.training.critics import PAUSE_BELOW
from engine.training.frames import FrameCache, chosen_and_measured
from engine.training.loop import LoopConfig, Task, TrainingLoop, run_task
from engine.training.manifest import Utterance

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SpeakerConfig:
    """Settings of the stage beside `[loop]`.

    Attributes:
        seconds_per_speaker: Most seconds of one speaker, by set.
        default_seconds: Of sets not named there.
        batch_size: Windows in a step, of each process.
        learning_rate: Of AdamW, on the plateau.
        width: Of the network.
        publish: Write the weights to the program's models after each validation.
        workers: Processes that analyse recordings.
    """

    seconds_per_speaker: dict[str, float] = field(default_factory=dict)
    default_seconds: float = 60.0
    batch_size: int = 48
    learning_rate: float = 2e-3
    width: int = 160
    publish: bool = False
    workers: int = 2


class Windows:
    """Draws windows of utterances with their teacher's embeddings.

    Args:
        raw: One [T, NUM_SPEECH_BANDS] each utterance, pauses removed.
        teachers: [256] each.

    Raises:
        TrainingError: No recording is long enough.
    """

    def __init__(self, raw: Sequence[FloatArray], teachers: Sequence[FloatArray]) -> None:
        kept = [index for index, levels in enumerate(raw) if len(levels) >= WINDOW_FRAMES // 2]
        if not kept:
            raise TrainingError("No recording is long enough to train the speaker encoder.")
        self._raw = [raw[index] for index in kept]
        self._teachers = np.stack([teachers[index] for index in kept])

    def draw(self, rng: np.random.Generator, count: int) -> tuple[Tensor, Tensor]:
        """[count, 160, 44] levels, coloured and with noise of random strength, and [count, 256] embeddings."""
        chosen = rng.choice(len(self._raw), count, replace=count > len(self._raw))
        windows = np.stack([self._window(rng, self._raw[index]) for index in chosen])
        return torch.from_numpy(windows), torch.from_numpy(self._teachers[chosen])

    def _window(self, rng: np.random.Generator, levels: FloatArray) -> FloatArray:
        levels = np.tile(levels, (-(-WINDOW_FRAMES // len(levels)), 1)).astype(np.float32)
        start = rng.integers(0, len(levels) - WINDOW_FRAMES + 1)
        window = levels[start : start + WINDOW_FRAMES]
        position = np.linspace(0.0, np.pi, NUM_SPEECH_BANDS)
        colour = sum(rng.normal(0.0, 0.25) * np.cos(order * position) for order in (1, 2, 3))
        noise = window.max() - rng.uniform(5.0, 14.0) + rng.normal(0.0, 0.5, window.shape)
        return np.logaddexp(window + colour, noise).astype(np.float32)


def loss_of(embeddings: Tensor, teachers: Tensor) -> Tensor:
    """1 - cosine to the teacher, and how far the similarities between the windows are from the teacher's."""
    direct = (1.0 - (embeddings * teachers).sum(-1)).mean()
    relations = (embeddings @ embeddings.T - teachers @ teachers.T).square().mean()
    return direct + 10.0 * relations


def active_levels(raw: FloatArray) -> FloatArray:
    """The frames that are no pause, as in enrolment."""
    top = raw.max(axis=1)
    return raw[top > np.percentile(top, 95) - PAUSE_BELOW]


class SpeakerTask(Task):
    """Distils the teacher.

    Args:
        train: Windows to learn from.
        dev: Recordings of other speakers with the teacher's embeddings, to measure on.
        config: Settings.
        torch_device: Where to train.
    """

    def __init__(
        self,
        train: Windows,
        dev: Sequence[tuple[FloatArray, FloatArray]],
        config: SpeakerConfig,
        *,
        torch_device: str = "cpu",
    ) -> None:
        self._train, self._dev, self.config = train, dev, config
        self._torch_device = torch_device
        encoder = SpeakerEncoder(config.width).to(torch_device)
        self.networks = {"encoder": encoder}
        self.optimizers = {
            "encoder": torch.optim.AdamW(encoder.parameters(), lr=config.learning_rate, weight_decay=0.01)
        }

    def batch(self, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Windows and the embeddings of their recordings."""
        return self._train.draw(rng, self.config.batch_size)

    def step(self, batch: tuple[Tensor, Tensor], loop: TrainingLoop) -> dict[str, Tensor]:
        """One update."""
        levels, teachers = (part.to(self._torch_device) for part in batch)
        with loop.autocast():
            embeddings = self.networks["encoder"](levels)
        loss = loss_of(embeddings.float(), teachers)
        loop.update("encoder", loss)
        return {"loss": loss.detach()}

    def validate(self, averaged: Mapping[str, nn.Module]) -> dict[str, float]:
        """Median cosine to the teacher on unseen speakers, and how the similarities between recordings correlate."""
        encoder = averaged["encoder"]
        assert isinstance(encoder, SpeakerEncoder)
        windows = [torch.from_numpy(raw).to(self._torch_device) for raw, _ in self._dev]
        ours = np.stack([embed_levels(encoder, raw).cpu().numpy() for raw in windows])
        theirs = np.stack([teacher for _, teacher in self._dev])
        pairs = np.triu_indices(len(ours), 1)
        correlation = np.corrcoef((ours @ ours.T)[pairs], (theirs @ theirs.T)[pairs])[0, 1] if len(ours) > 2 else 0.0
        return {"cosine": float(np.median((ours * theirs).sum(1))), "correlation": float(correlation)}

    def publish(self, averaged: Mapping[str, nn.Module], step: int, figures: Mapping[str, float]) -> None:
        """Write the encoder to the program's models."""
        if not self.config.publish:
            return
        encoder = averaged["encoder"]
        assert isinstance(encoder, SpeakerEncoder)
        metadata = {name: f"{value:.4f}" for name, value in figures.items()}
        publish_speaker(encoder, {**metadata, "steps": str(step), "licence": "Apache-2.0"})


def run(settings: dict[str, Any], orders: Orders) -> None:
    """Analyse the corpus, embed it with the teacher, train.

    Raises:
        TrainingError: Settings, manifest, cache or saved state are unusable.
    """
    values = dict(settings)
    loop_config = build(LoopConfig, values.pop("loop"))
    config = build(SpeakerConfig, values)
    frames = FrameCache(orders.cache)
    chosen, measured = chosen_and_measured(orders, config.seconds_per_speaker, config.default_seconds, config.workers)

    def levels(utterance: Utterance) -> FloatArray:
        return active_levels(frames.frames(utterance).raw.astype(np.float32))

    windows = Windows([levels(u) for u in chosen], [frames.teacher_embedding(u) for u in chosen])
    dev = [(levels(u), frames.teacher_embedding(u)) for u in measured]
    torch.manual_seed(loop_config.seed)
    task = SpeakerTask(windows, dev, config, torch_device=orders.torch_device)
    run_task(task, loop_config, orders)
