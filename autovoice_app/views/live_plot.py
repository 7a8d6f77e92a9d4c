"""What a live session looks like: both waveforms and both pitches, scrolling; the state; where the delay comes from."""

import numpy as np
from PySide6.QtCore import QRect, QRectF, QSize, Qt
from PySide6.QtGui import QColor, QFont, QImage, QPainter, QPaintEvent
from PySide6.QtWidgets import QSizePolicy, QWidget

from autovoice_app.assets import Colours, colours, title_font
from autovoice_app.widgets.pitch_view import midi_of, note_name
from engine.live import HistoryView, LatencyParts
from engine.signal import FloatArray

_WAVE_SHARE = 0.22  # of the height, for each waveform
_LABEL_WIDTH = 44
_LOW_MIDI, _HIGH_MIDI = 36.0, 84.0
_BLACK_KEYS = {1, 3, 6, 8, 10}


class LivePlot(QWidget):
    """The last seconds, one pixel column per 10 ms, newest at the right.

    The columns are painted into an image by array operations, each once: the image is a ring, drawn in two parts, and
    30 pictures a second cost a few percent of a core, where antialiased lines would cost half of one.
    """

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setAccessibleName("Waveform and pitch")
        self.setToolTip("Grey: your voice. Coloured: what comes out. Above their waveforms, below their pitch")
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Expanding)
        self.setAttribute(Qt.WidgetAttribute.WA_OpaquePaintEvent)  # what lies below need not be painted each time
        self._view: HistoryView | None = None
        self._ring: _Ring | None = None

    def show_history(self, view: HistoryView | None) -> None:
        """Show these columns; None clears the plot."""
        if view is not None and self._view is not None and view.last_column == self._view.last_column:
            return
        self._view = view
        self.update(_LABEL_WIDTH, 0, self.width() - _LABEL_WIDTH, self.height())

    def sizeHint(self) -> QSize:
        """Wide and high enough for two octaves."""
        return QSize(520, 280)

    def minimumSizeHint(self) -> QSize:
        """Still readable."""
        return QSize(200, 140)

    def paintEvent(self, event: QPaintEvent) -> None:
        """Draw the image of the columns and, where asked for, the names of the notes."""
        scheme = colours(self.palette())
        width, height = max(1, self.width() - _LABEL_WIDTH), max(1, self.height())
        ring = self._ring
        if ring is None or (ring.width, ring.height, ring.scheme) != (width, height, scheme):
            ring = self._ring = _Ring(width, height, scheme)
        ring.show(self._view)
        painter = QPainter(self)
        ring.draw(painter, _LABEL_WIDTH)
        if event.rect().left() < _LABEL_WIDTH:
            self._label(painter, height, scheme)
        painter.end()

    def _label(self, painter: QPainter, height: int, scheme: Colours) -> None:
        painter.fillRect(QRect(0, 0, _LABEL_WIDTH, height), QColor(scheme.card))
        painter.setPen(QColor(scheme.muted))
        font = QFont(self.font())
        font.setPointSizeF(max(7.0, font.pointSizeF() * 0.8))
        painter.setFont(font)
        for index, name in enumerate(("you", "out")):
            top, bottom = _wave_area(index, height)
            painter.setPen(QColor(scheme.accent if index else scheme.muted))
            painter.drawText(QRect(0, top, _LABEL_WIDTH - 6, bottom - top), _RIGHT, name)
        painter.setPen(QColor(scheme.muted))
        top, bottom = _pitch_area(height)
        for midi in range(int(_LOW_MIDI), int(_HIGH_MIDI) + 1, 12):
            y = _y_of(midi, top, bottom)
            if top + 6 < y < bottom - 4:
                painter.drawText(QRect(0, y - 8, _LABEL_WIDTH - 6, 16), _RIGHT, note_name(midi))


class _Ring:
    """The picture of the columns; column n of the history lies at n modulo the width.

    Args:
        width: Columns.
        height: Pixels.
        scheme: Colours.
    """

    def __init__(self, width: int, height: int, scheme: Colours) -> None:
        self.width, self.height, self.scheme = width, height, scheme
        self._ground = self._make_ground()
        self._pixels = np.repeat(self._ground[:, np.newaxis], width, axis=1)
        self._image = QImage(self._pixels.data, width, height, 4 * width, QImage.Format.Format_RGB32)
        self._next = 0  # column of the history to come
        self._is_empty = True

    def show(self, view: HistoryView | None) -> None:
        """Paint the columns that came since the last call."""
        if view is None or view.last_column < self._next:
            if not self._is_empty:
                self._pixels[:] = self._ground[:, np.newaxis]
                self._next, self._is_empty = 0, True
            if view is None:
                return
        count = min(view.last_column - self._next, self.width, len(view.source_low))
        if count > 0:
            columns = np.repeat(self._ground[:, np.newaxis], count, axis=1)
            self._paint(columns, view)
            first = (view.last_column - count) % self.width
            until_end = min(count, self.width - first)
            self._pixels[:, first : first + until_end] = columns[:, :until_end]
            self._pixels[:, : count - until_end] = columns[:, until_end:]
            self._next, self._is_empty = view.last_column, False

    def draw(self, painter: QPainter, left: int) -> None:
        """Draw it, the oldest column at `left`."""
        oldest = self._next % self.width
        painter.drawImage(left, 0, self._image, oldest, 0, self.width - oldest, self.height)
        painter.drawImage(left + self.width - oldest, 0, self._image, 0, 0, oldest, self.height)

    def _make_ground(self) -> np.ndarray:
        """[height] colour of each row where nothing is heard."""
        scheme, height = self.scheme, self.height
        rows = np.full(height, _argb(scheme.card), dtype=np.uint32)
        top, bottom = _pitch_area(height)
        for midi in range(int(_LOW_MIDI), int(_HIGH_MIDI) + 1):
            y0, y1 = _y_of(midi + 0.5, top, bottom), _y_of(midi - 0.5, top, bottom)
            if midi % 12 in _BLACK_KEYS:
                rows[max(y0, top) : max(y1, top)] = _mixed(scheme.card, scheme.raised, 0.55)
            if midi % 12 == 0 and top + 3 < y1 < height:
                rows[y1] = _argb(scheme.border)
        rows[top - 1] = _argb(scheme.border)
        rows[_wave_area(0, height)[1] - 1] = _mixed(scheme.card, scheme.border, 0.6)
        return rows

    def _paint(self, target: np.ndarray, view: HistoryView) -> None:
        """The newest columns of a view into [height, columns]."""
        height, count = target.shape
        y = np.arange(height)[:, np.newaxis]
        for index, (low, high, role) in enumerate(
            (
                (view.source_low, view.source_high, self.scheme.muted),
                (view.converted_low, view.converted_high, self.scheme.accent),
            )
        ):
            top, bottom = _wave_area(index, height)
            centre, half = (top + bottom - 1) / 2, (bottom - top) / 2 - 2
            first = np.round(centre - half * np.clip(high[-count:], -1, 1)).astype(int)
            last = np.round(centre - half * np.clip(low[-count:], -1, 1)).astype(int)
            area = y[top:bottom]
            target[top:bottom][(area >= first) & (area <= last)] = _argb(role)
        for f0_hz, role, thick in (
            (view.source_f0_hz, self.scheme.muted, 1),
            (view.converted_f0_hz, self.scheme.accent, 2),
        ):
            # One column more: where the line comes from.
            self._paint_pitch(target, f0_hz[-count - 1 :], _argb(role), thick)

    def _paint_pitch(self, target: np.ndarray, f0_hz: FloatArray, colour: int, thick: int) -> None:
        height, count = target.shape
        top, bottom = _pitch_area(height)
        midi = midi_of(f0_hz)
        voiced = np.isfinite(midi) & (midi > _LOW_MIDI) & (midi < _HIGH_MIDI)
        places = np.zeros(len(midi), dtype=int)
        places[voiced] = np.round(
            bottom - (midi[voiced] - _LOW_MIDI) / (_HIGH_MIDI - _LOW_MIDI) * (bottom - top)
        ).astype(int)
        before = np.where(np.concatenate([[False], voiced[:-1]]), np.concatenate([[0], places[:-1]]), places)
        joined = np.where(np.abs(before - places) < 40, before, places)  # leaps are not drawn as lines
        y = np.arange(top, bottom)[:, np.newaxis]
        low, high = np.minimum(joined, places) - thick // 2, np.maximum(joined, places) + (thick + 1) // 2
        drawn = (y >= low[-count:]) & (y <= high[-count:]) & voiced[-count:]
        target[top:bottom][drawn] = colour


def _wave_area(index: int, height: int) -> tuple[int, int]:
    size = int(height * _WAVE_SHARE)
    return index * size, (index + 1) * size


def _pitch_area(height: int) -> tuple[int, int]:
    return 2 * int(height * _WAVE_SHARE) + 1, height


def _y_of(midi: float, top: int, bottom: int) -> int:
    return round(bottom - (midi - _LOW_MIDI) / (_HIGH_MIDI - _LOW_MIDI) * (bottom - top))


class StateSign(QWidget):
    """The state in large letters on its own colour; nobody should have to look twice."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._text, self._role = "OFF", "muted"
        self.setSizePolicy(QSizePolicy.Policy.Fixed, QSizePolicy.Policy.Fixed)
        self.setToolTip("Whether others hear the converted voice, your own, or nothing")
        self.show_state("OFF", "muted")

    @property
    def text(self) -> str:
        """What it says."""
        return self._text

    def show_state(self, text: str, role: str) -> None:
        """Say something in a colour role of `assets.Colours`."""
        self._text, self._role = text, role
        self.setAccessibleName(f"State: {text.capitalize()}")
        self.update()

    def sizeHint(self) -> QSize:
        """Wide enough for the longest word."""
        return QSize(168, 52)

    def paintEvent(self, event: QPaintEvent) -> None:
        """Draw the sign."""
        scheme = colours(self.palette())
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(Qt.PenStyle.NoPen)
        quiet = self._role == "muted"
        painter.setBrush(QColor(scheme.raised if quiet else getattr(scheme, self._role)))
        painter.drawRoundedRect(QRectF(self.rect()), 8, 8)
        painter.setPen(QColor(scheme.muted if quiet else scheme.card))
        painter.setFont(title_font(self.font(), 1.5))
        painter.drawText(self.rect(), Qt.AlignmentFlag.AlignCenter, self._text)
        painter.end()


class LatencyBar(QWidget):
    """The delay from mouth to ear as one bar of its parts, with the sum in front."""

    PARTS = (
        ("input_device", "microphone"),
        ("input_buffer", "waiting"),
        ("resampling", "rates"),
        ("algorithmic", "conversion"),
        ("computing", "computing"),
        ("output_buffer", "reserve"),
        ("output_device", "output"),
    )

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._latency = LatencyParts()
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setAccessibleName("Delay")
        self.show_latency(LatencyParts())

    def show_latency(self, latency: LatencyParts) -> None:
        """Show a delay's parts."""
        rounded = tuple(round(getattr(latency, name)) for name, _ in self.PARTS)
        if rounded == tuple(round(getattr(self._latency, name)) for name, _ in self.PARTS) and self.toolTip():
            return
        self._latency = latency
        lines = [f"{label}: {getattr(latency, name):.1f} ms" for name, label in self.PARTS]
        self.setToolTip("The delay from mouth to ear, all of it:\n" + "\n".join(lines))
        self.setAccessibleDescription(f"{latency.total:.0f} milliseconds")
        self.update()

    def sizeHint(self) -> QSize:
        """One line."""
        return QSize(300, 34)

    def minimumSizeHint(self) -> QSize:
        """The sum, and something of a bar."""
        return QSize(180, 34)

    def paintEvent(self, event: QPaintEvent) -> None:
        """Draw the sum and the parts."""
        scheme = colours(self.palette())
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(QColor(scheme.text))
        painter.setFont(title_font(self.font(), 1.15))
        total = self._latency.total
        painter.drawText(QRect(0, 0, 84, self.height()), _LEFT, f"{total:.0f} ms" if total else "- ms")
        small = QFont(self.font())
        small.setPointSizeF(max(7.0, small.pointSizeF() * 0.78))
        painter.setFont(small)
        left, width = 88.0, self.width() - 88.0
        shades = (0.30, 0.16, 0.16, 1.0, 0.55, 0.30, 0.16)
        for (name, label), shade in zip(self.PARTS, shades, strict=True):
            share = getattr(self._latency, name) / total if total else 0.0
            part = QRectF(left, 6, max(0.0, width * share - 1.5), 22)
            left += width * share
            if part.width() < 1:
                continue
            painter.setPen(Qt.PenStyle.NoPen)
            painter.setBrush(QColor.fromRgba(_mixed(scheme.card, scheme.accent, shade)))
            painter.drawRoundedRect(part, 3, 3)
            text = f"{label} {getattr(self._latency, name):.0f}"
            if painter.fontMetrics().horizontalAdvance(text) < part.width() - 6:
                painter.setPen(QColor(scheme.on_accent if shade > 0.5 else scheme.text))
                painter.drawText(part, Qt.AlignmentFlag.AlignCenter, text)
        painter.end()


_RIGHT = Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
_LEFT = Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter


def _argb(colour: str) -> int:
    return 0xFF000000 | int(colour[1:], 16)


def _mixed(ground: str, top: str, share: float) -> int:
    a, b = QColor(ground), QColor(top)
    channels = (
        round(x * (1 - share) + y * share)
        for x, y in ((a.red(), b.red()), (a.green(), b.green()), (a.blue(), b.blue()))
    )
    red, green, blue = channels
    return 0xFF000000 | red << 16 | green << 8 | blue
