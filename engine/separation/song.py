"""A song as a stream that can be read twice, and its channels as pairs that a stereo network understands."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from engine.errors import AudioFileError
from engine.jobs import JobContext
from engine.signal import AudioClip, AudioReader, FloatArray

STAGE_READ = "Reading the song"
_BLOCK_S = 1.0

# Channel count -> channels that go through the network together, in the order of WAV files (front left, front right,
# centre, low frequency, back left, back right, side left, side right); a channel by itself goes as (c, c), and one
# that is missing (low frequency) holds no vocals.
_PAIRS: dict[int, tuple[tuple[int, int], ...]] = {
    1: ((0, 0),),
    3: ((0, 1), (2, 2)),
    4: ((0, 1), (2, 3)),
    5: ((0, 1), (2, 2), (3, 4)),
    6: ((0, 1), (2, 2), (4, 5)),
    7: ((0, 1), (2, 2), (4, 4), (5, 6)),
    8: ((0, 1), (2, 2), (4, 5), (6, 7)),
}


def channel_pairs(num_channels: int) -> tuple[tuple[int, int], ...]:
    """Which channels form stereo pairs; see `_PAIRS`."""
    if num_channels in _PAIRS:
        return _PAIRS[num_channels]
    pairs = [(c, c + 1) for c in range(0, num_channels - 1, 2)]
    return (*pairs, *(((num_channels - 1, num_channels - 1),) if num_channels % 2 else ()))


class Song:
    """A file or a clip, read block by block as often as needed.

    Attributes:
        sample_rate: Hz.
        num_channels: C.
        num_samples: N; what the source states until `measure` has counted.
        rms: Level over all channels and samples, once measured.

    Raises:
        AudioFileError: The file cannot be read or holds no sound.
    """

    def __init__(self, source: Path | AudioClip) -> None:
        self._source = source
        self.rms = 0.0
        if isinstance(source, AudioClip):
            self.sample_rate, self.num_channels = source.sample_rate, source.num_channels
            self.num_samples = source.num_samples
        else:
            with AudioReader(source) as reader:
                info = reader.info
            self.sample_rate, self.num_channels, self.num_samples = (
                info.sample_rate,
                info.num_channels,
                info.num_samples,
            )

    def blocks(self) -> Iterator[FloatArray]:
        """The song from its start, [C, n] at a time."""
        size = max(1, int(_BLOCK_S * self.sample_rate))
        if isinstance(self._source, AudioClip):
            for start in range(0, self._source.num_samples, size):
                yield self._source.samples[:, start : start + size]
            return
        with AudioReader(self._source) as reader:
            yield from reader.blocks(size)

    def measure(self, ctx: JobContext) -> None:
        """Count the samples and measure the level.

        Raises:
            AudioFileError: There are no samples.
        """
        energy, count, stated = 0.0, 0, max(1, self.num_samples)
        for block in self.blocks():
            energy += float(np.square(block, dtype=np.float64).sum())
            count += block.shape[1]
            ctx.checkpoint(STAGE_READ, count / stated)
        if not count:
            raise AudioFileError("The song is empty.", hint="Choose a file that holds sound.")
        self.num_samples, self.rms = count, float(np.sqrt(energy / (count * self.num_channels)))


def fold(block: FloatArray, pairs: tuple[tuple[int, int], ...]) -> FloatArray:
    """The channels of the pairs one after another, [2 * pairs, n]."""
    return block[list(itertools.chain.from_iterable(pairs))]


def unfold(rows: FloatArray, pairs: tuple[tuple[int, int], ...], num_channels: int) -> FloatArray:
    """The inverse of `fold`, [C, n]: a channel that went as both sides of a pair is their mean."""
    channels = np.zeros((num_channels, rows.shape[1]), np.float32)
    for index, (left, right) in enumerate(pairs):
        if left == right:
            channels[left] = (rows[2 * index] + rows[2 * index + 1]) / 2
        else:
            channels[left], channels[right] = rows[2 * index], rows[2 * index + 1]
    return channels
