"""Stage `voices`: the demo voices, each a blend of several training speakers of about the same pitch, never of one."""

import logging
import os
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from engine.conversion import Voice, blend_voices, embed_voice
from engine.errors import TrainingError
from engine.models import models_folder
from engine.signal.clip import AudioClip
from engine.training.config import Orders, build
from engine.training.frames import FrameCache, choose
from engine.training.manifest import Utterance, read_manifest

_log = logging.getLogger(__name__)

_RATE = 48000


@dataclass(frozen=True)
class VoicesConfig:
    """Settings of the stage.

    Attributes:
        names: Of the voices.
        pitches_hz: Median F0 that each should have.
        speakers_each: Speakers in a blend; no speaker is in two.
        sets: Data sets to choose from.
        seconds: Of each speaker's recordings.
        candidates: Speakers whose pitch is measured.
    """

    names: tuple[str, ...]
    pitches_hz: tuple[float, ...]
    sets: tuple[str, ...]
    speakers_each: int = 4
    seconds: float = 30.0
    candidates: int = 32

    def __post_init__(self) -> None:
        if len(self.names) != len(self.pitches_hz) or self.speakers_each < 3:
            raise TrainingError("The stage voices needs one pitch for each name, and three speakers in a blend.")


def blend_around(voices: list[Voice], pitch_hz: float, count: int, name: str) -> tuple[Voice, list[Voice]]:
    """The blend of the `count` voices nearest in pitch, and the voices that are left; nearer ones weigh more."""
    distance = [abs(np.log2(voice.median_f0_hz / pitch_hz)) for voice in voices]
    order = np.argsort(distance, kind="stable")
    nearest = [voices[index] for index in order[:count]]
    weights = [1.0 / (0.1 + distance[index]) for index in order[:count]]
    limit = sum(weights) / 2  # nobody is half of a voice
    blend = blend_voices(nearest, [min(weight, limit) for weight in weights], name=name)
    return blend, [voices[index] for index in order[count:]]


def publish_voice(voice: Voice, folder: Path) -> Path:
    """Write `NAME.safetensors` in half precision, whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors, metadata = voice.to_tensors()
    path = folder / f"{voice.name}.safetensors"
    temporary = folder / f".{voice.name}.part"
    save_file({key: array.astype(np.float16) for key, array in tensors.items()}, temporary, metadata=metadata)
    os.replace(temporary, path)
    return path


def run(settings: dict[str, Any], orders: Orders) -> None:
    """Embed speakers with the installed models, blend them, write the blends to the program's models.

    Raises:
        TrainingError: There are too few speakers with enough recordings.
    """
    config = build(VoicesConfig, settings)
    frames = FrameCache(orders.cache)
    by_speaker: dict[str, list[Utterance]] = defaultdict(list)
    limits = dict.fromkeys(config.sets, config.seconds)
    for utterance in choose(read_manifest(orders.corpus, "train"), limits, default_s=0.0):
        by_speaker[utterance.speaker].append(utterance)
    heard = {s: own for s, own in by_speaker.items() if sum(u.seconds for u in own) >= 0.9 * config.seconds}
    voices = []
    for speaker in sorted(heard)[: config.candidates]:
        clips = [AudioClip(frames.samples(utterance)[None], _RATE) for utterance in heard[speaker]]
        voices.append(embed_voice(clips, name=speaker, torch_device=orders.torch_device))
        _log.info("%s: %.0f Hz", speaker, voices[-1].median_f0_hz)
    if len(voices) < config.speakers_each * len(config.names):
        raise TrainingError(f"Only {len(voices)} speakers have {config.seconds:.0f} s of recordings.")
    for name, pitch_hz in zip(config.names, config.pitches_hz, strict=True):
        blend, voices = blend_around(voices, pitch_hz, config.speakers_each, name)
        path = publish_voice(blend, models_folder() / "voices")
        _log.info("%s: %.0f Hz, %s", name, blend.median_f0_hz, path)
