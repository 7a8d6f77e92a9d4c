"""The pitch of a song over note names: what was sung, and what is wanted."""

import math

import numpy as np
from PySide6.QtCore import QPointF, QRect, QSize, Qt, Signal
from PySide6.QtGui import QColor, QKeyEvent, QMouseEvent, QPainter, QPen, QPolygonF
from PySide6.QtWidgets import QSizePolicy, QToolTip, QWidget

from autovoice_app.assets import Colours
from autovoice_app.pitch_edits import PitchEdits
from autovoice_app.widgets.time_axis import GUTTER, AxisView, TimeAxis
from engine.pitch import F0Contour
from engine.signal import FloatArray

NOTE_NAMES = ("C", "C♯", "D", "E♭", "E", "F", "F♯", "G", "A♭", "A", "B♭", "B")
_BLACK = {1, 3, 6, 8, 10}
_LEAST_SEMITONES = 18.0


def note_name(midi: float) -> str:
    """Name of the nearest note: 69 is "A4"."""
    nearest = round(midi)
    return f"{NOTE_NAMES[nearest % 12]}{nearest // 12 - 1}"


def midi_of(f0_hz: FloatArray) -> FloatArray:
    """Pitch in semitones, 69 for 440 Hz; NaN stays NaN."""
    return (69.0 + 12.0 * np.log2(np.asarray(f0_hz, np.float64) / 440.0)).astype(np.float32)


class PitchView(AxisView):
    """Draws both contours; a selection can be dragged, or moved with Up and Down, by semitones.

    Dragging moves in whole semitones, with Alt freely. Delete takes back the edits of the selection.
    """

    edited = Signal()

    def __init__(self, axis: TimeAxis, parent: QWidget | None = None) -> None:
        super().__init__(axis, parent)
        self._edits: PitchEdits | None = None
        self._transpose = 0.0
        self._message = ""
        self._low, self._high = 48.0, 72.0
        self._drag_from: float | None = None
        self.setAccessibleName("Pitch")
        self.setToolTip(
            "Grey: as sung. Coloured: as wanted. Drag, or press Shift+Right, to select a stretch; then drag it, or "
            "press Up and Down, to move it by semitones (Alt: freely)"
        )
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Expanding)

    @property
    def edits(self) -> PitchEdits | None:
        """What is shown and edited."""
        return self._edits

    @property
    def transpose_semitones(self) -> float:
        """The key that the wanted contour is drawn in."""
        return self._transpose

    def show_pitch(self, edits: PitchEdits | None, transpose_semitones: float = 0.0, message: str = "") -> None:
        """Show a song's pitch.

        Args:
            edits: The source's contour and what the user changed about it; None for an empty plot.
            transpose_semitones: The chosen key.
            message: Said in an empty plot.
        """
        if self._edits is not None and self._edits is not edits:
            self._edits.changed.disconnect(self._take_change)
        if edits is not None and edits is not self._edits:
            edits.changed.connect(self._take_change)
        self._edits, self._transpose, self._message = edits, transpose_semitones, message
        self._fit_height()
        self.redraw()

    def shift_selection(self, semitones: float) -> None:
        """Move the selected stretch, if there is one."""
        if self._edits is not None and self.axis.selection is not None:
            self._edits.shift(*self.axis.selection, semitones)
            self.edited.emit()

    def sizeHint(self) -> QSize:
        """Wide, and higher than the waveform."""
        return QSize(600, 240)

    def minimumSizeHint(self) -> QSize:
        """Still readable."""
        return QSize(240, 110)

    def y_of(self, midi: float) -> float:
        """Where a pitch stands, px."""
        return (self._high - midi) / (self._high - self._low) * self.height()

    def midi_at(self, y: float) -> float:
        """The pitch at a place."""
        return self._high - y / max(self.height(), 1) * (self._high - self._low)

    def draw_content(self, painter: QPainter, area: QRect, scheme: Colours) -> None:
        """Rows of notes, then the contours."""
        if self._edits is None:
            painter.setPen(QColor(scheme.muted))
            flags = Qt.AlignmentFlag.AlignCenter | Qt.TextFlag.TextWordWrap
            painter.drawText(area.adjusted(16, 0, -16, 0), flags, self._message)
        else:
            self._draw_rows(painter, area, scheme)
            painter.setRenderHint(QPainter.RenderHint.Antialiasing)
            painter.setClipRect(area)
            self._draw_contour(painter, self._edits.source, QPen(QColor(scheme.muted), 1.4))
            self._draw_contour(painter, self._edits.wanted(self._transpose), QPen(QColor(scheme.accent), 2.2))
            painter.setClipping(False)
        self.draw_focus(painter, scheme)

    def mousePressEvent(self, event: QMouseEvent) -> None:
        """A press in the selection begins to drag it up or down."""
        super().mousePressEvent(event)
        selection = self.axis.selection
        inside = selection is not None and selection[0] <= self.s_at(event.position().x()) <= selection[1]
        if inside and self._edits is not None and event.button() == Qt.MouseButton.LeftButton:
            self._drag_from = event.position().y()
            self.setCursor(Qt.CursorShape.SizeVerCursor)

    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        """Drag the selection, or do as every plot does; say which note is under the mouse."""
        if self._drag_from is not None and self._edits is not None and self.axis.selection is not None:
            semitones = self._dragged(event)
            self._is_selecting = self._is_selecting or bool(semitones)
            self._edits.preview_shift(*self.axis.selection, semitones)
            QToolTip.showText(event.globalPosition().toPoint(), f"{semitones:+g} semitones", self)
        else:
            super().mouseMoveEvent(event)

    def mouseReleaseEvent(self, event: QMouseEvent) -> None:
        """Keep what was dragged."""
        if self._drag_from is not None:
            semitones, self._drag_from = self._dragged(event), None
            self.unsetCursor()
            if self._edits is not None:
                self._edits.drop_preview()
            self.shift_selection(semitones)
        super().mouseReleaseEvent(event)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Up and Down move the selection, with Alt by 10 cents; Delete takes its edits back."""
        step = 0.1 if event.modifiers() & Qt.KeyboardModifier.AltModifier else 1.0
        selection = self.axis.selection
        if selection is not None and self._edits is not None and event.key() in (Qt.Key.Key_Up, Qt.Key.Key_Down):
            self.shift_selection(step if event.key() == Qt.Key.Key_Up else -step)
        elif selection is not None and self._edits is not None and event.key() == Qt.Key.Key_Delete:
            self._edits.reset(*selection)
            self.edited.emit()
        else:
            super().keyPressEvent(event)

    def _dragged(self, event: QMouseEvent) -> float:
        assert self._drag_from is not None
        semitones = self.midi_at(event.position().y()) - self.midi_at(self._drag_from)
        free = event.modifiers() & Qt.KeyboardModifier.AltModifier
        return round(semitones, 1) if free else float(round(semitones))

    def _take_change(self) -> None:
        self.redraw()

    def _fit_height(self) -> None:
        if self._edits is None:
            return
        pitch = np.concatenate([midi_of(self._edits.source.f0_hz), midi_of(self._edits.wanted(self._transpose).f0_hz)])
        pitch = pitch[np.isfinite(pitch)]
        if len(pitch):
            low, high = np.percentile(pitch, [0.5, 99.5])
            missing = max(_LEAST_SEMITONES - (high - low), 0.0) / 2
            self._low, self._high = float(low - missing) - 2.5, float(high + missing) + 2.5

    def _draw_rows(self, painter: QPainter, area: QRect, scheme: Colours) -> None:
        row = self.height() / (self._high - self._low)
        font = painter.font()
        font.setPointSizeF(max(self.font().pointSizeF() * 0.8, 7.0))
        painter.setFont(font)
        shade = QColor(scheme.raised)
        shade.setAlphaF(0.6)
        # As many names as fit: all notes, the white keys, or C alone.
        wanted = set(range(12)) if row >= 13 else {0, 2, 4, 5, 7, 9, 11} if row >= 9 else {0, 5} if row >= 4 else {0}
        for midi in range(math.floor(self._low), math.ceil(self._high) + 1):
            top, bottom = self.y_of(midi + 0.5), self.y_of(midi - 0.5)
            if midi % 12 in _BLACK:
                painter.fillRect(QRect(area.left(), round(top), area.width(), round(bottom) - round(top)), shade)
            if midi % 12 == 0:
                painter.setPen(QColor(scheme.border))
                painter.drawLine(area.left(), round(bottom), area.right(), round(bottom))
            if midi % 12 in wanted:
                painter.setPen(QColor(scheme.text if midi % 12 == 0 else scheme.muted))
                label = QRect(0, round((top + bottom) / 2) - 8, GUTTER - 6, 16)
                if label.top() < 0 or label.bottom() > self.height():
                    continue  # half a name is none
                painter.drawText(label, Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter, note_name(midi))

    def _draw_contour(self, painter: QPainter, contour: F0Contour, pen: QPen) -> None:
        """Polylines through the voiced runs; of a long song only as many points as can be seen."""
        first = max(int(self.axis.start_s / contour.hop_s) - 1, 0)
        last = min(int(self.axis.end_s / contour.hop_s) + 2, contour.num_frames)
        stride = max((last - first) // max(self.area.width(), 1), 1)
        pitch = midi_of(contour.f0_hz[first:last:stride])
        frames = first + stride * np.arange(len(pitch))
        xs = GUTTER + (frames * contour.hop_s - self.axis.start_s) / self.axis.span_s * self.area.width()
        ys = (self._high - pitch) / (self._high - self._low) * self.height()
        painter.setPen(pen)
        voiced = np.isfinite(ys)
        edges = np.flatnonzero(np.diff(np.concatenate([[False], voiced, [False]]).astype(np.int8)))
        for start, end in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
            points = [QPointF(x, y) for x, y in zip(xs[start:end].tolist(), ys[start:end].tolist(), strict=True)]
            if len(points) == 1:
                points.append(QPointF(points[0].x() + 1.0, points[0].y()))
            painter.drawPolyline(QPolygonF(points))
