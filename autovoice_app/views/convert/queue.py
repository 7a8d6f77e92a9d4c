"""The list of songs on the Convert page: what waits, what runs, what is done."""

from pathlib import Path

from PySide6.QtCore import QModelIndex, QObject, QPersistentModelIndex, QRectF, QSize, Qt, Signal
from PySide6.QtGui import QColor, QKeyEvent, QPainter
from PySide6.QtWidgets import QListWidget, QListWidgetItem, QStyle, QStyledItemDelegate, QStyleOptionViewItem, QWidget

from autovoice_app.assets import Space, colours
from autovoice_app.songs import Song, State

_SONG = Qt.ItemDataRole.UserRole


class SongList(QListWidget):
    """Several songs, one of them in front."""

    song_chosen = Signal(object)  # Song or None
    removed = Signal(object)  # Song

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setAccessibleName("Songs")
        self.setToolTip("Songs to convert; Delete takes one off the list (files are not touched)")
        self.setItemDelegate(_SongDelegate(self))
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setUniformItemSizes(True)
        self.setMouseTracking(True)
        self.currentItemChanged.connect(lambda: self.song_chosen.emit(self.current_song))

    @property
    def songs(self) -> list[Song]:
        """All, in order."""
        return [self.item(row).data(_SONG) for row in range(self.count())]

    @property
    def current_song(self) -> Song | None:
        """The one in front."""
        item = self.currentItem()
        return item.data(_SONG) if item is not None else None

    def song_of(self, path: Path) -> Song | None:
        """The song of a file."""
        return next((song for song in self.songs if song.path == path), None)

    def add(self, song: Song) -> None:
        """Append a song."""
        item = QListWidgetItem()
        item.setData(_SONG, song)
        self.addItem(item)
        song.changed.connect(lambda: self._describe(item, song))
        self._describe(item, song)

    def choose(self, song: Song) -> None:
        """Bring a song to the front."""
        self.setCurrentRow(self.songs.index(song))

    def remove(self, song: Song) -> None:
        """Take a song off the list."""
        self.takeItem(self.songs.index(song))
        self.removed.emit(song)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Delete removes; Space is left to the page."""
        if event.key() == Qt.Key.Key_Delete and self.current_song is not None:
            self.remove(self.current_song)
        elif event.key() == Qt.Key.Key_Space:
            event.ignore()
        else:
            super().keyPressEvent(event)

    def _describe(self, item: QListWidgetItem, song: Song) -> None:
        item.setData(Qt.ItemDataRole.AccessibleTextRole, f"{song.path.name}, {status_of(song)}")
        item.setToolTip(f"{song.path}\n{status_of(song)}")
        self.viewport().update()


def status_of(song: Song) -> str:
    """One line on where a song stands."""
    if song.state is State.RUNNING and song.task is not None:
        return f"{song.task.ctx.progress.fraction:.0%}  {song.task.ctx.progress.stage}"
    if song.state is State.DONE and song.rendering is not None:
        return f"{song.rendering.voice_name}, {song.rendering.preset}" + (", edited" if song.has_new_edits else "")
    if song.state is State.FAILED:
        return song.error
    return song.state.value


class _SongDelegate(QStyledItemDelegate):
    """Name, status and a thin line of progress."""

    def __init__(self, parent: QObject) -> None:
        super().__init__(parent)

    def sizeHint(self, option: QStyleOptionViewItem, index: QModelIndex | QPersistentModelIndex) -> QSize:
        return QSize(100, 2 * option.fontMetrics.height() + 3 * Space.S)

    def paint(
        self, painter: QPainter, option: QStyleOptionViewItem, index: QModelIndex | QPersistentModelIndex
    ) -> None:
        song: Song = index.data(_SONG)
        scheme = colours(option.palette)
        area = option.rect.adjusted(Space.XS, 2, -Space.XS, -2)
        painter.save()
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(Qt.PenStyle.NoPen)
        if option.state & QStyle.StateFlag.State_Selected:
            painter.setBrush(QColor(scheme.soft))
            painter.drawRoundedRect(area, 6, 6)
        elif option.state & QStyle.StateFlag.State_MouseOver:
            painter.setBrush(QColor(scheme.raised))
            painter.drawRoundedRect(area, 6, 6)
        metrics = option.fontMetrics
        text = area.adjusted(Space.S, Space.XS, -Space.S, -Space.XS)
        painter.setPen(QColor(scheme.text))
        name = metrics.elidedText(song.title, Qt.TextElideMode.ElideMiddle, text.width())
        painter.drawText(text, Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignTop, name)
        role = {State.FAILED: scheme.danger, State.DONE: scheme.good, State.RUNNING: scheme.accent}
        painter.setPen(QColor(role.get(song.state, scheme.muted)))
        line = text.adjusted(0, metrics.height() + 1, 0, 0)
        status = metrics.elidedText(status_of(song), Qt.TextElideMode.ElideRight, line.width())
        painter.drawText(line, Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignTop, status)
        if song.state is State.RUNNING and song.task is not None:
            bar = QRectF(area.left() + Space.S, area.bottom() - 3, area.width() - 2 * Space.S, 3)
            painter.setPen(Qt.PenStyle.NoPen)
            painter.setBrush(QColor(scheme.border))
            painter.drawRoundedRect(bar, 1.5, 1.5)
            bar.setWidth(bar.width() * song.task.ctx.progress.fraction)
            painter.setBrush(QColor(scheme.accent))
            painter.drawRoundedRect(bar, 1.5, 1.5)
        painter.restore()
