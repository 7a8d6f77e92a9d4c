"""One time axis for several plots: what is visible, where the cursor stands, what is selected."""

from PySide6.QtCore import QEvent, QObject, QPointF, QRect, Qt, Signal
from PySide6.QtGui import QColor, QKeyEvent, QMouseEvent, QPainter, QPaintEvent, QPixmap, QResizeEvent, QWheelEvent
from PySide6.QtWidgets import QScrollBar, QWidget

from autovoice_app.assets import Colours, colours

GUTTER = 44  # px left of every plot, for note names; so plots below each other are aligned
_SHORTEST_S = 0.25


class TimeAxis(QObject):
    """Seconds of one song, shared by the plots that show it."""

    range_changed = Signal()
    cursor_moved = Signal(float, float)  # from, to, s
    selection_changed = Signal()
    seek_requested = Signal(float)

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.duration_s = 0.0
        self.start_s, self.end_s = 0.0, 1.0
        self.cursor_s = 0.0
        self.selection: tuple[float, float] | None = None
        self._moving_edge_s = 0.0

    @property
    def span_s(self) -> float:
        """Seconds that are visible."""
        return self.end_s - self.start_s

    def set_duration(self, seconds: float) -> None:
        """Begin with another song, all of it visible."""
        self.duration_s = seconds
        self.select(None)
        self.move_cursor(0.0)
        self.fit()

    def fit(self) -> None:
        """Show everything."""
        self.show_range(0.0, max(self.duration_s, _SHORTEST_S))

    def show_range(self, start_s: float, end_s: float) -> None:
        """Show a stretch, kept within the song."""
        longest = max(self.duration_s, _SHORTEST_S)
        span = min(max(end_s - start_s, _SHORTEST_S), longest)
        start = min(max(start_s, 0.0), longest - span)
        if (start, start + span) != (self.start_s, self.end_s):
            self.start_s, self.end_s = start, start + span
            self.range_changed.emit()

    def zoom(self, factor: float, anchor_s: float | None = None) -> None:
        """Show `factor` times as much; the anchor (None: the cursor, or the middle) stays where it is."""
        if anchor_s is None:
            inside = self.start_s <= self.cursor_s <= self.end_s
            anchor_s = self.cursor_s if inside else (self.start_s + self.end_s) / 2
        span = min(max(self.span_s * factor, _SHORTEST_S), max(self.duration_s, _SHORTEST_S))
        start = anchor_s - (anchor_s - self.start_s) * span / self.span_s
        self.show_range(start, start + span)

    def pan(self, seconds: float) -> None:
        """Show what lies later (or, negative, earlier)."""
        self.show_range(self.start_s + seconds, self.end_s + seconds)

    def move_cursor(self, seconds: float, *, follow: bool = False) -> None:
        """Put the cursor somewhere; with `follow` the plots page along with it."""
        old, self.cursor_s = self.cursor_s, seconds
        if follow and not self.start_s <= seconds <= self.end_s:
            self.show_range(seconds - 0.05 * self.span_s, seconds + 0.95 * self.span_s)
        self.cursor_moved.emit(old, seconds)

    def select(self, selection: tuple[float, float] | None) -> None:
        """Select a stretch, or nothing."""
        if selection is not None:
            low, high = sorted(min(max(edge, 0.0), self.duration_s) for edge in selection)
            selection = (low, high) if high - low > 0.01 else None
        if selection != self.selection:
            self.selection = selection
            self.selection_changed.emit()

    def extend_selection(self, seconds: float) -> None:
        """Move that edge of the selection which was moved last, or select from the cursor on when nothing is."""
        low, high = self.selection or (self.cursor_s, self.cursor_s)
        if low == high or self._moving_edge_s not in (low, high):
            self._moving_edge_s = high if seconds > 0 else low
        other = low if self._moving_edge_s == high else high
        self._moving_edge_s = min(max(self._moving_edge_s + seconds, 0.0), self.duration_s)
        self.select((other, self._moving_edge_s))


class AxisView(QWidget):
    """A plot over a TimeAxis: zoom, pan, cursor and selection are alike in all; subclasses draw the rest.

    Wheel: zoom around the mouse. Shift+wheel or a sideways wheel: pan. Click: go there. Drag: select. Middle drag: pan.
    Keys: Left and Right go 5 s (with Ctrl, 1 s), with Shift they select from the cursor on, 0.1 s at a time (with Ctrl,
    1 s); + - 0 zoom, Home and End, Escape selects nothing.
    """

    def __init__(self, axis: TimeAxis, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.axis = axis
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setMouseTracking(True)
        self._content: QPixmap | None = None
        self._pressed_at: QPointF | None = None
        self._panned_from = 0.0
        self._is_selecting = False
        axis.range_changed.connect(self.redraw)
        axis.selection_changed.connect(self.update)
        axis.cursor_moved.connect(self._move_cursor)

    def draw_content(self, painter: QPainter, area: QRect, scheme: Colours) -> None:
        """Draw what changes only with the range, the size or the data; `area` is the plot without the gutter."""
        raise NotImplementedError

    def redraw(self) -> None:
        """Draw everything anew, soon."""
        self._content = None
        self.update()

    @property
    def area(self) -> QRect:
        """The plot without the gutter."""
        return self.rect().adjusted(GUTTER, 0, 0, 0)

    def x_of(self, seconds: float) -> float:
        """Where a time stands, px."""
        return GUTTER + (seconds - self.axis.start_s) / self.axis.span_s * max(self.area.width(), 1)

    def s_at(self, x: float) -> float:
        """The time at a place, s, within the song."""
        seconds = self.axis.start_s + (x - GUTTER) / max(self.area.width(), 1) * self.axis.span_s
        return min(max(seconds, 0.0), self.axis.duration_s)

    def paintEvent(self, event: QPaintEvent) -> None:
        """The kept drawing, then selection and cursor."""
        scheme = colours(self.palette())
        ratio = self.devicePixelRatioF()
        if self._content is None or self._content.devicePixelRatioF() != ratio:
            self._content = QPixmap(self.size() * ratio)
            self._content.setDevicePixelRatio(ratio)
            self._content.fill(Qt.GlobalColor.transparent)
            content = QPainter(self._content)
            self.draw_content(content, self.area, scheme)
            content.end()
        painter = QPainter(self)
        painter.drawPixmap(0, 0, self._content)
        painter.setClipRect(self.area.intersected(event.rect()))
        if self.axis.selection is not None:
            left, right = (self.x_of(edge) for edge in self.axis.selection)
            colour = QColor(scheme.accent)
            colour.setAlphaF(0.16)
            painter.fillRect(QRect(round(left), 0, max(round(right - left), 1), self.height()), colour)
        if self.axis.duration_s:
            painter.fillRect(self._cursor_rect(self.axis.cursor_s), QColor(scheme.text))
        painter.end()

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Another size needs another drawing."""
        self.redraw()
        super().resizeEvent(event)

    def changeEvent(self, event: QEvent) -> None:
        """Other colours need another drawing."""
        if event.type() in (QEvent.Type.PaletteChange, QEvent.Type.FontChange, QEvent.Type.StyleChange):
            self.redraw()
        super().changeEvent(event)

    def wheelEvent(self, event: QWheelEvent) -> None:
        """Zoom, or pan with Shift or sideways."""
        delta = event.angleDelta()
        sideways = delta.x() or (delta.y() if event.modifiers() & Qt.KeyboardModifier.ShiftModifier else 0)
        if sideways:
            self.axis.pan(-sideways / 1200 * self.axis.span_s)
        elif delta.y():
            self.axis.zoom(0.998 ** delta.y(), self.s_at(event.position().x()))
        event.accept()

    def mousePressEvent(self, event: QMouseEvent) -> None:
        """Remember where a click or a drag begins."""
        self._pressed_at = event.position()
        self._panned_from = self.axis.start_s
        self._is_selecting = False

    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        """Drag: select, or pan with the middle button."""
        if self._pressed_at is None:
            return
        moved = event.position().x() - self._pressed_at.x()
        if event.buttons() & Qt.MouseButton.MiddleButton:
            start = self._panned_from - moved / max(self.area.width(), 1) * self.axis.span_s
            self.axis.show_range(start, start + self.axis.span_s)
        elif event.buttons() & Qt.MouseButton.LeftButton and (self._is_selecting or abs(moved) > 4):
            self._is_selecting = True
            self.axis.select((self.s_at(self._pressed_at.x()), self.s_at(event.position().x())))

    def mouseReleaseEvent(self, event: QMouseEvent) -> None:
        """A click without a drag goes there."""
        if self._pressed_at is not None and event.button() == Qt.MouseButton.LeftButton and not self._is_selecting:
            self.axis.select(None)
            self.axis.seek_requested.emit(self.s_at(event.position().x()))
        self._pressed_at = None

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Zoom, go and unselect from the keyboard; Space is left to the page."""
        key = event.key()
        far = bool(event.modifiers() & Qt.KeyboardModifier.ControlModifier)
        way = float(key == Qt.Key.Key_Right) - float(key == Qt.Key.Key_Left)
        if way and event.modifiers() & Qt.KeyboardModifier.ShiftModifier:
            self.axis.extend_selection(way * (1.0 if far else 0.1))
        elif way:
            seconds = self.axis.cursor_s + way * (1.0 if far else 5.0)
            self.axis.seek_requested.emit(min(max(seconds, 0.0), self.axis.duration_s))
        elif key in (Qt.Key.Key_Plus, Qt.Key.Key_Equal):
            self.axis.zoom(0.7)
        elif key == Qt.Key.Key_Minus:
            self.axis.zoom(1 / 0.7)
        elif key == Qt.Key.Key_0:
            self.axis.fit()
        elif key == Qt.Key.Key_Home:
            self.axis.seek_requested.emit(0.0)
        elif key == Qt.Key.Key_End:
            self.axis.seek_requested.emit(self.axis.duration_s)
        elif key == Qt.Key.Key_Escape and self.axis.selection is not None:
            self.axis.select(None)
        else:
            super().keyPressEvent(event)

    def draw_focus(self, painter: QPainter, scheme: Colours) -> None:
        """A frame that tells where the keyboard is."""
        if self.hasFocus():
            painter.setPen(QColor(scheme.accent))
            painter.setBrush(Qt.BrushStyle.NoBrush)
            painter.drawRect(self.area.adjusted(0, 0, -1, -1))

    def focusInEvent(self, event: QEvent) -> None:
        """Show the focus."""
        self.redraw()

    def focusOutEvent(self, event: QEvent) -> None:
        """Show its absence."""
        self.redraw()

    def _cursor_rect(self, seconds: float) -> QRect:
        return QRect(round(self.x_of(seconds)), 0, 1, self.height())

    def _move_cursor(self, old_s: float, new_s: float) -> None:
        for seconds in (old_s, new_s):
            self.update(self._cursor_rect(seconds).adjusted(-2, 0, 2, 0))


class AxisScrollBar(QScrollBar):
    """Pans a TimeAxis; hidden while everything is visible."""

    _STEPS = 10_000

    def __init__(self, axis: TimeAxis, parent: QWidget | None = None) -> None:
        super().__init__(Qt.Orientation.Horizontal, parent)
        self.axis = axis
        self.setAccessibleName("Visible part of the song")
        self.setToolTip("Move the visible part of the song")
        self.setContentsMargins(GUTTER, 0, 0, 0)
        axis.range_changed.connect(self._follow)
        self.valueChanged.connect(self._pan)
        self._follow()

    def _follow(self) -> None:
        duration = max(self.axis.duration_s, _SHORTEST_S)
        page = round(self.axis.span_s / duration * self._STEPS)
        was_blocked = self.blockSignals(True)
        self.setRange(0, max(self._STEPS - page, 0))
        self.setPageStep(max(page, 1))
        self.setSingleStep(max(page // 10, 1))
        self.setValue(round(self.axis.start_s / duration * self._STEPS))
        self.blockSignals(was_blocked)
        self.setEnabled(page < self._STEPS)

    def _pan(self, value: int) -> None:
        start = value / self._STEPS * max(self.axis.duration_s, _SHORTEST_S)
        self.axis.show_range(start, start + self.axis.span_s)


def tick_step(span_s: float, width: int, least_px: int = 70) -> float:
    """A round number of seconds between marks at least so many px apart."""
    wanted = span_s * least_px / max(width, 1)
    steps = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600)
    return next((step for step in steps if step >= wanted), 7200)
