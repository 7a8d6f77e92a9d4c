"""Where a voice sits between two channels: take it out as mono, and put another back in the same place."""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import scipy  # its parts load when first used

from engine.signal.clip import FloatArray

_FRAME_S = 0.05
_SMOOTHING_S = 0.5


class StereoPosition:
    """The position of a lead voice over time, as one angle: 0 is hard left, 45 degrees the centre, 90 hard right.

    The angle follows the channels' energies, smoothed over about a second and so ruled by the loud moments; silence
    keeps the position of what is near. A voice that lies in both channels with opposite signs is followed too.

    Args:
        gains: [2, T] what a mono voice is multiplied by, (1, 1) in the centre.
        frame_samples: Samples between gains.
    """

    def __init__(self, gains: npt.NDArray[np.float64], frame_samples: int) -> None:
        self._gains, self._frame_samples = gains, frame_samples

    @classmethod
    def from_blocks(cls, blocks: Iterable[FloatArray], sample_rate: int) -> "StereoPosition":
        """Measure consecutive [2, N] blocks of any lengths."""
        size = max(round(_FRAME_S * sample_rate), 1)
        energies: list[npt.NDArray[np.float64]] = []
        rest = np.zeros((2, 0), np.float32)
        for block in blocks:
            joined = np.concatenate([rest, block], axis=1)
            whole = joined.shape[1] // size * size
            energies.append(_energies(joined[:, :whole].reshape(2, -1, size)))
            rest = joined[:, whole:]
        if rest.shape[1]:
            energies.append(_energies(rest.reshape(2, 1, -1)))
        left, right, cross = np.concatenate([np.zeros((3, 0)), *energies], axis=1) if energies else np.zeros((3, 0))
        if not len(left) or not (left.any() or right.any()):
            return cls(np.ones((2, 1)), size)
        sigma = _SMOOTHING_S / _FRAME_S
        floor = 1e-6 * (left + right).max()
        # The floor carries the whole sound's position into its silences.
        weight = floor * np.array([left.sum(), right.sum(), cross.sum()]) / (left + right).sum()
        left, right, cross = (
            scipy.ndimage.gaussian_filter1d(energy, sigma, mode="nearest") + extra
            for energy, extra in zip((left, right, cross), weight, strict=True)
        )
        angle = np.arctan2(np.sqrt(right), np.sqrt(left))
        sign = np.where(cross < -0.5 * np.sqrt(left * right), -1.0, 1.0)
        return cls(np.sqrt(2.0) * np.stack([np.cos(angle), sign * np.sin(angle)]), size)

    def fold(self, block: FloatArray, start: int) -> FloatArray:
        """The voice as mono.

        Args:
            block: [2, N] at the measured rate.
            start: Index of its first sample in the whole sound.

        Returns:
            [1, N] float32; for a voice in the centre the mean of the channels.
        """
        gains = self._at(start, block.shape[1])
        return (0.5 * (block * gains).sum(axis=0, keepdims=True)).astype(np.float32)

    def place(self, block: FloatArray, start: int) -> FloatArray:
        """Put a mono voice [1, N] where the measured one was at that time; returns [2, N] float32."""
        return block * self._at(start, block.shape[1])

    def _at(self, start: int, num_samples: int) -> FloatArray:
        """[2, num_samples] float32, linear between the middles of frames."""
        size, offset = self._frame_samples, (self._frame_samples + 1) // 2
        first = (start - offset) // size  # the frame whose middle lies before the first sample
        count = (start + num_samples - 1 - offset) // size + 2 - first
        frames = np.clip(np.arange(first, first + count), 0, self._gains.shape[1] - 1)
        gains = self._gains[:, frames].astype(np.float32)
        share = (np.arange(size, dtype=np.float32) + (offset - size / 2)) / np.float32(size)
        between = gains[:, :-1, None] + np.diff(gains)[:, :, None] * share
        return between.reshape(2, -1)[:, start - offset - first * size :][:, :num_samples]


def to_stereo(block: FloatArray) -> FloatArray:
    """Two channels of any number: mono doubled; surround (L R C LFE Ls Rs and the like) folded down by ITU-R BS.775.

    Args:
        block: [C, N] float32.

    Returns:
        [2, N] float32, without the low-frequency channel.
    """
    num_channels = block.shape[0]
    if num_channels == 2:
        return block
    if num_channels == 1:
        return np.repeat(block, 2, axis=0)
    half = np.float32(np.sqrt(0.5))
    left, right = block[0], block[1]
    if num_channels == 3:
        return np.stack([left + half * block[2], right + half * block[2]])
    if num_channels == 4:
        return np.stack([left + half * block[2], right + half * block[3]])
    centre, surrounds = block[2], block[3:] if num_channels == 5 else block[4:]
    return np.stack(
        [
            left + half * centre + half * surrounds[0::2].sum(axis=0),
            right + half * centre + half * surrounds[1::2].sum(axis=0),
        ]
    )


def _energies(frames: FloatArray) -> npt.NDArray[np.float64]:
    """Energy left, right and across, [3, T], of [2, T, size]."""
    left, right = frames.astype(np.float64)
    return np.stack([np.square(left).sum(axis=1), np.square(right).sum(axis=1), (left * right).sum(axis=1)])
