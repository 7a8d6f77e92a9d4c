"""The one shape in which audio travels through the engine."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class AudioClip:
    """Audio in memory.

    Attributes:
        samples: [C, N] float32, nominally within +-1.
        sample_rate: Samples per second of each channel.
    """

    samples: FloatArray
    sample_rate: int

    def __post_init__(self) -> None:
        if self.samples.ndim != 2 or self.samples.dtype != np.float32:
            raise ValueError(f"samples must be [C, N] float32, not {self.samples.shape} {self.samples.dtype}")
        if self.sample_rate <= 0:
            raise ValueError(f"sample_rate must be positive, not {self.sample_rate}")

    @property
    def num_channels(self) -> int:
        """C."""
        return int(self.samples.shape[0])

    @property
    def num_samples(self) -> int:
        """N, samples per channel."""
        return int(self.samples.shape[1])

    @property
    def seconds(self) -> float:
        """Duration, s."""
        return self.num_samples / self.sample_rate

    def mono(self) -> "AudioClip":
        """The mean of the channels, [1, N]."""
        if self.num_channels == 1:
            return self
        return AudioClip(self.samples.mean(axis=0, keepdims=True, dtype=np.float32), self.sample_rate)


def overlapping(samples: FloatArray, length: int, hop: int) -> FloatArray:
    """All whole frames of [N] samples, [T, length], `hop` apart: a view where that is possible, so do not write to it.

    What `numpy.lib.stride_tricks.sliding_window_view` does, in a tenth of its time.
    """
    samples = np.ascontiguousarray(samples)
    count = max(0, (len(samples) - length) // hop + 1)
    step = samples.itemsize
    return np.ndarray((count, length), samples.dtype, samples, strides=(hop * step, step))
