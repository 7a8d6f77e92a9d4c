"""The microphone for the wizard: opened and closed away from the GUI thread, its level and waveform drawn live."""

from typing import Any

import numpy as np
from PySide6.QtCore import QLineF, QObject, QRectF, QSize, Qt, QTimer, Signal
from PySide6.QtGui import QColor, QPainter, QPaintEvent, QPen
from PySide6.QtWidgets import QSizePolicy, QWidget

from autovoice_app.assets import colours
from autovoice_app.context import AppContext
from autovoice_app.tasks import DEVICES
from autovoice_app.widgets.meters import FLOOR_DBFS, LevelMeter
from engine.devices import AudioDevice, InputRecorder
from engine.errors import AutoVoiceError
from engine.signal import AudioClip, FloatArray

MONITOR, ROOM, TAKE = "monitor", "room", "take"
TARGET_DBFS = (-32.0, -14.0)
_SHOWN_S = 8.0


class Microphone(QObject):
    """One device at a time, in one of three modes; `mode` is empty while it is closed or changing.

    Every change goes through a lane of its own, so changes happen in the order they were asked for.
    """

    started = Signal(str)  # mode
    recorded = Signal(str, object)  # mode, AudioClip; after stop() in ROOM or TAKE
    failed = Signal(object)  # AutoVoiceError
    ticked = Signal()  # 30 times a second while open: read `levels` and `recent`

    def __init__(self, context: AppContext, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._context = context
        self._recorder: InputRecorder | None = None
        self.mode = ""
        self._timer = QTimer(self, interval=33)
        self._timer.timeout.connect(self._tick)

    @property
    def levels(self) -> Any:
        """The recorder's latest levels, or None."""
        return self._recorder.levels if self._recorder is not None else None

    def recent(self) -> FloatArray:
        """The last seconds of what is being recorded."""
        return self._recorder.recent(_SHOWN_S) if self._recorder is not None else np.zeros(0, dtype=np.float32)

    @property
    def sample_rate(self) -> int:
        """Of the open device, Hz."""
        return self._recorder.sample_rate if self._recorder is not None else 48000

    def start(self, device: AudioDevice | None, mode: str) -> None:
        """Open a device; what was being recorded before is dropped."""
        old, new = self._recorder, InputRecorder(self._context.devices, device)
        self._recorder, self.mode = new, ""

        def work(ctx: object) -> str:
            if old is not None:
                old.stop()
            new.start(monitor_only=mode == MONITOR)
            return mode

        task = self._context.tasks.create("Opening the microphone", work, lane=DEVICES)
        task.finished.connect(self._opened)
        task.failed.connect(self._fail)
        task.start()

    def stop(self, *, discard: bool = False) -> None:
        """Close the device; `recorded` brings what a ROOM or TAKE recorded, unless it is to be discarded."""
        recorder, mode = self._recorder, MONITOR if discard else self.mode
        self._recorder, self.mode = None, ""
        self._timer.stop()
        if recorder is None:
            return
        task = self._context.tasks.create("Closing the microphone", lambda ctx: (mode, recorder.stop()), lane=DEVICES)
        task.finished.connect(self._closed)
        task.failed.connect(self._fail)
        task.start()

    def _opened(self, mode: str) -> None:
        if self._recorder is None:
            return
        self.mode = mode
        self._timer.start()
        self.started.emit(mode)

    def _closed(self, outcome: tuple[str, AudioClip]) -> None:
        mode, clip = outcome
        if mode in (ROOM, TAKE) and clip.num_samples:
            self.recorded.emit(mode, clip)

    def _tick(self) -> None:
        self.ticked.emit()
        levels = self.levels
        if levels is not None and levels.error is not None:
            error = levels.error
            self.stop()
            self.failed.emit(error)

    def _fail(self, error: BaseException) -> None:
        self._recorder, self.mode = None, ""
        self._timer.stop()
        if isinstance(error, AutoVoiceError):
            self.failed.emit(error)


class TargetMeter(LevelMeter):
    """A level meter with the zone marked where the voice should be."""

    def sizeHint(self) -> QSize:
        """Taller than a plain meter."""
        return QSize(260, 22)

    def paintEvent(self, event: QPaintEvent) -> None:
        """The meter, then the zone around it."""
        super().paintEvent(event)
        scheme = colours(self.palette())
        painter = QPainter(self)
        left, right = (self._place(level) for level in TARGET_DBFS)
        painter.setPen(QPen(QColor(scheme.text), 1.5))
        painter.setBrush(Qt.BrushStyle.NoBrush)
        painter.drawRoundedRect(QRectF(left, 1.0, right - left, self.height() - 2.0), 3, 3)
        painter.end()

    def _place(self, dbfs: float) -> float:
        return (dbfs - FLOOR_DBFS) / -FLOOR_DBFS * (self.width() - 1)


class RollingWaveform(QWidget):
    """The last seconds of a recording, newest at the right."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setAccessibleName("Waveform of the recording")
        self.setToolTip("What the microphone hears, the last eight seconds")
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setFixedHeight(72)
        self._peaks = np.zeros(0, dtype=np.float32)

    def show_samples(self, samples: FloatArray, sample_rate: int) -> None:
        """Draw these samples.

        Args:
            samples: [N], the newest last.
            sample_rate: Hz.
        """
        columns = max(self.width() // 2, 1)
        per_column = max(round(_SHOWN_S * sample_rate / columns), 1)
        whole = len(samples) // per_column * per_column
        self._peaks = np.abs(samples[len(samples) - whole :]).reshape(-1, per_column).max(axis=1, initial=0.0)
        self.update()

    def clear(self) -> None:
        """Draw silence."""
        self._peaks = np.zeros(0, dtype=np.float32)
        self.update()

    def paintEvent(self, event: QPaintEvent) -> None:
        """One line per two pixels."""
        scheme = colours(self.palette())
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        area = QRectF(self.rect()).adjusted(0.5, 0.5, -0.5, -0.5)
        painter.setPen(QColor(scheme.border))
        painter.setBrush(QColor(scheme.card))
        painter.drawRoundedRect(area, 6, 6)
        middle, half = area.center().y(), area.height() / 2 - 4
        painter.drawLine(QLineF(area.left() + 4, middle, area.right() - 4, middle))
        left = area.right() - 2 - 2 * len(self._peaks)
        quiet, loud = QColor(scheme.accent), QColor(scheme.danger)
        for loud_only in (False, True):
            painter.setPen(QPen(loud if loud_only else quiet, 1.2))
            lines = [
                QLineF(left + 2 * i, middle - peak * half, left + 2 * i, middle + peak * half)
                for i, peak in enumerate(np.minimum(self._peaks, 1.0).tolist())
                if (peak >= 0.99) == loud_only and left + 2 * i > area.left() + 2
            ]
            painter.drawLines(lines)
        painter.end()
