"""Decoded audio and derived arrays, kept as .npy files in a folder outside the repository.

A file appears whole (temporary name, then rename), so several processes may fill one cache and a killed run leaves
nothing broken. Arrays are memory-mapped on reading: all of them together may be larger than memory.
"""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

from engine.errors import TrainingError
from engine.training.manifest import Utterance

Array = npt.NDArray[np.generic]


class ArrayCache:
    """Arrays by utterance, in one sub-folder a kind.

    Args:
        folder: The cache folder; made when missing.
        kind: Name of the sub-folder; whatever changes the arrays must change it ("audio-16000").
    """

    def __init__(self, folder: Path, kind: str) -> None:
        self.folder = folder / kind

    def path(self, key: str) -> Path:
        """Where the array of the utterance `key` lies."""
        return self.folder / f"{key}.npy"

    def __contains__(self, key: str) -> bool:
        return self.path(key).exists()

    def read(self, key: str, *, memory_mapped: bool = True) -> Array:
        """The array of the utterance `key`.

        Raises:
            TrainingError: It is not there or is damaged.
        """
        try:
            return np.load(self.path(key), mmap_mode="r" if memory_mapped else None, allow_pickle=False)
        except (OSError, ValueError) as error:
            raise TrainingError(
                f"The cached array {self.path(key)} cannot be read: {error}.", hint="Delete it and run the stage again."
            ) from error

    def write(self, key: str, array: Array) -> None:
        """Store an array under `key`, whole or not at all."""
        path = self.path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
        try:
            with os.fdopen(descriptor, "wb") as file:
                np.save(file, array, allow_pickle=False)
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise

    def get(self, key: str, make: Callable[[], Array]) -> Array:
        """The array of `key`; made and stored first when it is not there."""
        if key not in self:
            self.write(key, make())
        return self.read(key)


class AudioCache:
    """Mono audio of utterances at one rate, int16.

    Args:
        folder: The cache folder.
        sample_rate: Rate of the cached audio, Hz.
    """

    def __init__(self, folder: Path, sample_rate: int) -> None:
        self.sample_rate = sample_rate
        self._arrays = ArrayCache(folder, f"audio-{sample_rate}")

    def samples(self, utterance: Utterance) -> npt.NDArray[np.int16]:
        """The utterance, [N] int16, memory-mapped; decoded and resampled on first use.

        Raises:
            TrainingError: The file cannot be decoded or is empty.
        """
        return self._arrays.get(utterance.key, lambda: self._decode(utterance))  # type: ignore[return-value]

    def _decode(self, utterance: Utterance) -> npt.NDArray[np.int16]:
        path = utterance.path
        try:
            samples, sample_rate = soundfile.read(path, dtype="float32", always_2d=True)
        except (OSError, soundfile.SoundFileError) as error:
            raise TrainingError(f"The recording {path} cannot be decoded: {error}.") from error
        mono = samples.mean(axis=1)
        if not len(mono):
            raise TrainingError(f"The recording {path} is empty.")
        played_rate = sample_rate * utterance.speed
        if played_rate != self.sample_rate:
            mono = soxr.resample(mono, played_rate, self.sample_rate)
        return np.clip(np.rint(mono * 32767.0), -32768, 32767).astype(np.int16)
