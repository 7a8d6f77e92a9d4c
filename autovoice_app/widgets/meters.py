"""A level meter in dBFS, with a peak that lingers and a warning where sound clips."""

import math
import time

from PySide6.QtCore import QRectF, QSize, Qt
from PySide6.QtGui import QColor, QPainter, QPaintEvent
from PySide6.QtWidgets import QSizePolicy, QWidget

from autovoice_app.assets import colours

FLOOR_DBFS = -60.0
_HOLD_S = 1.5
_MARKS_DBFS = (-48, -36, -24, -12, -6)
_WARN_DBFS, _CLIP_DBFS = -6.0, -0.3


class LevelMeter(QWidget):
    """A horizontal bar; give it levels from a timer, 30 times a second at most.

    Args:
        name: Accessible name, such as "Microphone level".
        tip: Tooltip, one line.
    """

    def __init__(self, name: str, tip: str, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setAccessibleName(name)
        self.setToolTip(tip)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setAttribute(Qt.WidgetAttribute.WA_OpaquePaintEvent)  # what lies below need not be painted each time
        self._level = self._peak = self._held = FLOOR_DBFS
        self._held_at = 0.0

    def set_level(self, level_dbfs: float, peak_dbfs: float | None = None) -> None:
        """Show a level.

        Args:
            level_dbfs: RMS or the like; -inf and NaN count as silence.
            peak_dbfs: Highest sample, drawn as a mark that lingers; None takes the level.
        """
        level = _bounded(level_dbfs)
        peak = level if peak_dbfs is None else _bounded(peak_dbfs)
        now = time.monotonic()
        if peak >= self._held or now - self._held_at > _HOLD_S:
            self._held, self._held_at = peak, now
        elif level == self._level and peak == self._peak:
            return
        self._level, self._peak = level, peak
        self.update()

    def clear(self) -> None:
        """Show silence."""
        self._held = FLOOR_DBFS
        self.set_level(FLOOR_DBFS)

    def sizeHint(self) -> QSize:
        """A slim bar."""
        return QSize(220, 14)

    def minimumSizeHint(self) -> QSize:
        """Still readable."""
        return QSize(80, 12)

    def paintEvent(self, event: QPaintEvent) -> None:
        """Draw the bar, its marks and the held peak."""
        scheme = colours(self.palette())
        painter = QPainter(self)
        area = QRectF(self.rect())
        painter.fillRect(area, QColor(scheme.raised))
        peak = max(self._peak, self._level)
        role = scheme.danger if peak >= _CLIP_DBFS else scheme.warning if peak >= _WARN_DBFS else scheme.good
        if self._level > FLOOR_DBFS:
            painter.fillRect(QRectF(0, 0, self._x(self._level), area.height()), QColor(role))
        border = QColor(scheme.border)
        for mark in _MARKS_DBFS:
            painter.fillRect(QRectF(round(self._x(mark)), area.height() - 3, 1, 3), border)
        if self._held > FLOOR_DBFS:
            painter.fillRect(QRectF(self._x(self._held) - 1, 0, 2, area.height()), QColor(scheme.text))
        painter.end()

    def _x(self, dbfs: float) -> float:
        return (dbfs - FLOOR_DBFS) / -FLOOR_DBFS * (self.width() - 1)


def _bounded(dbfs: float) -> float:
    return FLOOR_DBFS if math.isnan(dbfs) else min(max(dbfs, FLOOR_DBFS), 0.0)
