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
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        area = QRectF(self.rect()).adjusted(0.5, 0.5, -0.5, -0.5)
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(QColor(scheme.raised))
        painter.drawRoundedRect(area, 3, 3)
        peak = max(self._peak, self._level)
        role = scheme.danger if peak >= _CLIP_DBFS else scheme.warning if peak >= _WARN_DBFS else scheme.good
        if self._level > FLOOR_DBFS:
            painter.setBrush(QColor(role))
            painter.drawRoundedRect(QRectF(area.left(), area.top(), self._x(self._level), area.height()), 3, 3)
        painter.setPen(QColor(scheme.border))
        for mark in _MARKS_DBFS:
            x = area.left() + self._x(mark)
            painter.drawLine(round(x), round(area.bottom() - 3), round(x), round(area.bottom()))
        if self._held > FLOOR_DBFS:
            painter.fillRect(
                QRectF(area.left() + self._x(self._held) - 1, area.top(), 2, area.height()), QColor(scheme.text)
            )
        painter.end()

    def _x(self, dbfs: float) -> float:
        return (dbfs - FLOOR_DBFS) / -FLOOR_DBFS * (self.width() - 1)


def _bounded(dbfs: float) -> float:
    return FLOOR_DBFS if math.isnan(dbfs) else min(max(dbfs, FLOOR_DBFS), 0.0)
