"""Run a network that wants whole segments over a stream of any length: overlap, throw margins away, cross-fade."""

from collections.abc import Callable

import numpy as np

from engine.signal import FloatArray


class OverlapAdd:
    """Cuts a stream into overlapping segments, maps each, and joins the results without a seam or a shift.

    A segment's first and last `margin` samples serve as context only; over the next `fade` samples it takes turns
    with its neighbour. The stream is taken to be silent before its start and after its end.

    Args:
        estimate: Maps [R, segment] to [R, segment] float32; the last segment may be shorter, by whole alignments.
        num_rows: R.
        segment: Samples of a segment.
        margin: Samples thrown away at each end.
        fade: Samples of cross-fade; with twice the margin it must be shorter than the segment by more than a fade.
        alignment: Segment starts and lengths are multiples of this, if segment, margin and fade are.
    """

    def __init__(
        self,
        estimate: Callable[[FloatArray], FloatArray],
        num_rows: int,
        *,
        segment: int,
        margin: int,
        fade: int,
        alignment: int = 1,
    ) -> None:
        self.hop = segment - 2 * margin - fade
        if self.hop < max(fade, 1):
            raise ValueError("the segment is too short for its margins and fades")
        self._estimate, self._segment, self._margin, self._fade = estimate, segment, margin, fade
        self._alignment = alignment
        self._pending = [np.zeros((num_rows, margin + fade), np.float32)]
        self._num_pending = margin + fade
        self._held = np.zeros((num_rows, 0), np.float32)  # the last fade of the segment before, already faded out
        self._rise = np.linspace(0, 1, fade, endpoint=False, dtype=np.float32) + np.float32(0.5 / max(fade, 1))
        self._num_in = self._num_out = 0

    def push(self, samples: FloatArray) -> FloatArray:
        """Give [R, n], take what is finished, [R, m]; all outputs joined line up with all inputs joined."""
        self._pending.append(samples)
        self._num_pending += samples.shape[1]
        self._num_in += samples.shape[1]
        finished = [samples[:, :0]]
        while self._num_pending >= self._segment:
            joined = np.concatenate(self._pending, axis=1)
            finished.append(self._next(joined[:, : self._segment]))
            self._pending = [joined[:, self.hop :]]
            self._num_pending = self._pending[0].shape[1]
        return np.concatenate(finished, axis=1)

    def flush(self) -> FloatArray:
        """The rest, [R, m], so that as many samples came out as went in."""
        rest = self._num_in - self._num_out
        joined = np.concatenate(self._pending, axis=1)
        finished = [joined[:, :0]]
        while self._num_out < self._num_in:
            wanted = joined.shape[1] + self._fade + self._margin
            size = min(self._segment, -(-wanted // self._alignment) * self._alignment)
            segment = joined[:, :size]
            finished.append(self._next(np.pad(segment, ((0, 0), (0, size - segment.shape[1])))))
            joined = joined[:, self.hop :]
        return np.concatenate(finished, axis=1)[:, :rest]

    def _next(self, segment: FloatArray) -> FloatArray:
        estimate = self._estimate(segment)
        start, fade = self._margin + self._fade, self._fade
        if self._held.shape[1]:
            self._held = self._held + estimate[:, self._margin : start] * self._rise
        stop = segment.shape[1] - self._margin
        body = np.concatenate([self._held, estimate[:, start : stop - fade]], axis=1)
        self._held = estimate[:, stop - fade : stop] * self._rise[::-1]
        self._num_out += body.shape[1]
        return body
