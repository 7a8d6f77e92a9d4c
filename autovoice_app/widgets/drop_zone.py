"""Dropping sound files onto a page."""

from collections.abc import Callable
from pathlib import Path

from PySide6.QtCore import QEvent, QMimeData, QObject, Qt
from PySide6.QtGui import QColor, QDragEnterEvent, QDropEvent, QPainter, QPaintEvent, QPen
from PySide6.QtWidgets import QWidget

from autovoice_app.assets import colours


class DropZone(QObject):
    """Makes a widget take dropped files, and frames it while they hover over it.

    Args:
        widget: Takes the drops.
        take_paths: Called with the dropped files; folders count as the files inside them.
    """

    def __init__(self, widget: QWidget, take_paths: Callable[[list[Path]], object]) -> None:
        super().__init__(widget)
        self._widget, self._take_paths = widget, take_paths
        self._frame = _DropFrame(widget)
        widget.setAcceptDrops(True)
        widget.installEventFilter(self)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Watch for drags."""
        if isinstance(event, QDragEnterEvent) and event.type() == QEvent.Type.DragEnter:
            if paths_of(event.mimeData()):
                event.acceptProposedAction()
                self._frame.setGeometry(self._widget.rect())
                self._frame.raise_()
                self._frame.show()
                return True
        elif event.type() == QEvent.Type.DragLeave:
            self._frame.hide()
        elif isinstance(event, QDropEvent) and event.type() == QEvent.Type.Drop:
            self._frame.hide()
            event.acceptProposedAction()
            self._take_paths(paths_of(event.mimeData()))
            return True
        return False


def paths_of(data: QMimeData) -> list[Path]:
    """The local files that a drag carries; of a folder, the files directly inside it."""
    paths: list[Path] = []
    for url in data.urls():
        if url.isLocalFile():
            path = Path(url.toLocalFile())
            paths.extend(sorted(p for p in path.iterdir() if p.is_file()) if path.is_dir() else [path])
    return paths


class _DropFrame(QWidget):
    def __init__(self, parent: QWidget) -> None:
        super().__init__(parent)
        self.setAttribute(Qt.WidgetAttribute.WA_TransparentForMouseEvents)
        self.hide()

    def paintEvent(self, event: QPaintEvent) -> None:
        scheme = colours(self.palette())
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        ground = QColor(scheme.soft)
        ground.setAlphaF(0.6)
        painter.setBrush(ground)
        painter.setPen(QPen(QColor(scheme.accent), 2, Qt.PenStyle.DashLine))
        painter.drawRoundedRect(self.rect().adjusted(6, 6, -6, -6), 10, 10)
        painter.setPen(QColor(scheme.text))
        painter.drawText(self.rect(), Qt.AlignmentFlag.AlignCenter, "Drop the songs here")
        painter.end()
