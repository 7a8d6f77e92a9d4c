"""What the user changed about a song's pitch: semitones per frame, with undo."""

import numpy as np
from PySide6.QtCore import QObject, Signal

from engine.pitch import F0Contour
from engine.signal import FloatArray

_UNDO_KEPT = 100
_SMOOTH_S = 0.03  # edges of an edit glide over this


class PitchEdits(QObject):
    """Edits of one song, on the frames of its own pitch contour."""

    changed = Signal()

    def __init__(self, source: F0Contour, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.source = source
        self._semitones: FloatArray = np.zeros(source.num_frames, np.float32)
        self._undo: list[FloatArray] = []
        self._redo: list[FloatArray] = []
        self._preview: FloatArray | None = None

    @property
    def semitones(self) -> FloatArray:
        """[T] float32, added to the transposed pitch; a drag that is under way counts."""
        return self._semitones if self._preview is None else self._preview

    @property
    def is_empty(self) -> bool:
        """Whether nothing is changed."""
        return not self._semitones.any()

    @property
    def can_undo(self) -> bool:
        """Whether there is something to take back."""
        return bool(self._undo)

    @property
    def can_redo(self) -> bool:
        """Whether something was taken back."""
        return bool(self._redo)

    def wanted(self, transpose_semitones: float) -> F0Contour:
        """The contour to be sung: the source's, in another key, with the edits."""
        factor = 2.0 ** ((transpose_semitones + self.semitones) / 12.0)
        return F0Contour((self.source.f0_hz * factor).astype(np.float32), self.source.periodicity, self.source.hop_s)

    def shift(self, start_s: float, end_s: float, semitones: float) -> None:
        """Move a stretch up or down."""
        if semitones:
            self._apply(self._shifted(start_s, end_s, semitones))

    def preview_shift(self, start_s: float, end_s: float, semitones: float) -> None:
        """Show a drag that is under way; `shift` or `drop_preview` ends it."""
        self._preview = self._shifted(start_s, end_s, semitones)
        self.changed.emit()

    def drop_preview(self) -> None:
        """Forget a drag."""
        if self._preview is not None:
            self._preview = None
            self.changed.emit()

    def reset(self, start_s: float = 0.0, end_s: float = float("inf")) -> None:
        """Take back all edits of a stretch, as one step that can be undone."""
        first, last = self._frames(start_s, end_s)
        if self._semitones[first:last].any():
            edited = self._semitones.copy()
            edited[first:last] = 0.0
            self._apply(edited)

    def undo(self) -> None:
        """Take back the last step."""
        if self._undo:
            self._redo.append(self._semitones)
            self._semitones = self._undo.pop()
            self.changed.emit()

    def redo(self) -> None:
        """Do again what was taken back."""
        if self._redo:
            self._undo.append(self._semitones)
            self._semitones = self._redo.pop()
            self.changed.emit()

    def restore(self, semitones: FloatArray) -> None:
        """Take over edits kept from an earlier session; there is nothing to undo afterwards."""
        if semitones.shape == self._semitones.shape:
            self._semitones = semitones.astype(np.float32)
            self._undo, self._redo = [], []
            self.changed.emit()

    def _apply(self, semitones: FloatArray) -> None:
        self._undo = [*self._undo[-_UNDO_KEPT + 1 :], self._semitones]
        self._redo = []
        self._preview = None
        self._semitones = semitones
        self.changed.emit()

    def _frames(self, start_s: float, end_s: float) -> tuple[int, int]:
        hop = self.source.hop_s
        last = self.source.num_frames if end_s == float("inf") else round(end_s / hop) + 1
        return max(round(start_s / hop), 0), min(last, self.source.num_frames)

    def _shifted(self, start_s: float, end_s: float, semitones: float) -> FloatArray:
        """The edits plus one more, whose edges glide so that the voice does not jump."""
        first, last = self._frames(start_s, end_s)
        frames = np.arange(first, last, dtype=np.float32)
        edge = max(_SMOOTH_S / self.source.hop_s, 1.0)
        ramp = np.minimum(frames - first + 1, last - frames) / edge
        edited = self._semitones.copy()
        edited[first:last] += np.clip(ramp, 0.0, 1.0) * np.float32(semitones)
        return edited
