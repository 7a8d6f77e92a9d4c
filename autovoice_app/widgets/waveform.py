"""The waveform of a song, drawn from its peak pyramid, with the time ruler above it."""

import math

from PySide6.QtCore import QLineF, QRect, QSize, Qt
from PySide6.QtGui import QColor, QPainter
from PySide6.QtWidgets import QSizePolicy, QWidget

from autovoice_app.assets import Colours
from autovoice_app.widgets.basics import clock
from autovoice_app.widgets.time_axis import AxisView, TimeAxis, tick_step
from engine.signal import PeakPyramid

_RULER = 18  # px


class WaveformView(AxisView):
    """Shows one pyramid over the shared time axis."""

    def __init__(self, axis: TimeAxis, parent: QWidget | None = None) -> None:
        super().__init__(axis, parent)
        self._peaks: PeakPyramid | None = None
        self._is_accented = False
        self._message = ""
        self._loudest = 1.0
        self.setAccessibleName("Waveform")
        self.setToolTip("Click to go there, drag to select, wheel to zoom, Shift+wheel to move")
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Preferred)

    def show_peaks(self, peaks: PeakPyramid | None, *, is_accented: bool = False, message: str = "") -> None:
        """Show a sound.

        Args:
            peaks: Its pyramid, or None for an empty plot.
            is_accented: Drawn in the accent colour (what was converted) instead of quietly.
            message: Said in an empty plot.
        """
        self._peaks, self._is_accented, self._message = peaks, is_accented, message
        self._loudest = 1.0
        if peaks is not None and peaks.num_samples:
            low, high = peaks.levels(0.0, peaks.seconds, 64)
            self._loudest = min(max(float(high.max()), -float(low.min()), 0.25), 1.0)  # quiet songs drawn larger
        self.redraw()

    def sizeHint(self) -> QSize:
        """Wide and low."""
        return QSize(600, 120)

    def minimumSizeHint(self) -> QSize:
        """Still readable."""
        return QSize(240, 72)

    def draw_content(self, painter: QPainter, area: QRect, scheme: Colours) -> None:
        """Ruler, then one line per column."""
        self._draw_ruler(painter, area, scheme)
        plot = area.adjusted(0, _RULER, 0, 0)
        middle = plot.center().y()
        if self._peaks is None:
            painter.setPen(QColor(scheme.muted))
            painter.drawText(plot, Qt.AlignmentFlag.AlignCenter, self._message)
        elif plot.width() > 0:
            half = (plot.height() / 2 - 2) / self._loudest
            low, high = self._peaks.levels(self.axis.start_s, self.axis.end_s, plot.width())
            tops = (middle - high.clip(-1, 1) * half).tolist()
            bottoms = (middle - low.clip(-1, 1) * half).tolist()
            painter.setPen(QColor(scheme.accent if self._is_accented else scheme.muted))
            left = plot.left() + 0.5
            painter.drawLines(
                [
                    QLineF(left + i, top, left + i, max(bottom, top + 0.6))
                    for i, (top, bottom) in enumerate(zip(tops, bottoms, strict=True))
                ]
            )
        self.draw_focus(painter, scheme)

    def _draw_ruler(self, painter: QPainter, area: QRect, scheme: Colours) -> None:
        if not self.axis.duration_s:
            return
        font = painter.font()
        font.setPointSizeF(max(self.font().pointSizeF() * 0.85, 7.0))
        painter.setFont(font)
        step = tick_step(self.axis.span_s, area.width())
        tick = math.ceil(self.axis.start_s / step)
        while tick * step <= self.axis.end_s:
            x = round(self.x_of(tick * step))
            painter.setPen(QColor(scheme.border))
            painter.drawLine(x, _RULER - 5, x, self.height())
            painter.setPen(QColor(scheme.muted))
            label = clock(tick * step) + (f"{tick * step % 1:.2f}".lstrip("0").rstrip("0") if step < 1 else "")
            painter.drawText(QRect(x + 3, 0, 70, _RULER - 3), Qt.AlignmentFlag.AlignVCenter, label.rstrip("."))
            tick += 1
