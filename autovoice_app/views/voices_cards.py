"""Voice profiles as cards: the list model with search and order, and the delegate that paints them."""

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

from PySide6.QtCore import (
    QAbstractListModel,
    QEvent,
    QModelIndex,
    QObject,
    QPersistentModelIndex,
    QRect,
    QRectF,
    QSize,
    Qt,
    Signal,
)
from PySide6.QtGui import QColor, QFontMetrics, QMouseEvent, QPainter, QPainterPath, QPen, QPixmap
from PySide6.QtWidgets import QStyle, QStyledItemDelegate, QStyleOptionViewItem

from autovoice_app.assets import Colours, Space, colours, icon, title_font
from engine.store import VoiceRecord

RECORD_ROLE = Qt.ItemDataRole.UserRole + 1
CARD = QSize(276, 116)
PICTURE = 52
_PICTURES_KEPT = 200

ORDERS: dict[str, tuple[str, Callable[[VoiceRecord], Any]]] = {
    "name": ("Name", lambda record: record.name.casefold()),
    "used": ("Last used", lambda record: (-(record.last_used or 0.0), record.name.casefold())),
    "created": ("Newest", lambda record: (record.builtin, -record.created)),
    "pitch": ("Pitch, low to high", lambda record: (record.median_f0_hz, record.name.casefold())),
    "seconds": ("Most recorded", lambda record: (-record.seconds, record.name.casefold())),
}

Index = QModelIndex | QPersistentModelIndex


class VoicesModel(QAbstractListModel):
    """The voices that match the search, in the chosen order; pictures are read when a card is first painted."""

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._all: list[VoiceRecord] = []
        self._shown: list[VoiceRecord] = []
        self._words: tuple[str, ...] = ()
        self._order = "name"
        self._pictures: OrderedDict[tuple[str, float], QPixmap] = OrderedDict()
        self.pictures_read = 0

    def set_records(self, records: Sequence[VoiceRecord]) -> None:
        """Show these voices."""
        self._all = list(records)
        self._refresh()

    def search(self, text: str) -> None:
        """Keep the voices whose name, notes or consent hold every word."""
        self._words = tuple(text.casefold().split())
        self._refresh()

    def order_by(self, key: str) -> None:
        """Sort by a key of ORDERS."""
        self._order = key if key in ORDERS else "name"
        self._refresh()

    @property
    def total(self) -> int:
        """How many voices there are, shown or not."""
        return len(self._all)

    def record(self, index: Index) -> VoiceRecord | None:
        """The voice at an index."""
        return self._shown[index.row()] if index.isValid() and index.row() < len(self._shown) else None

    def records(self) -> list[VoiceRecord]:
        """All voices, shown or not."""
        return list(self._all)

    def find(self, voice_id: str) -> QModelIndex:
        """Index of a voice; invalid when it is not shown."""
        row = next((row for row, record in enumerate(self._shown) if record.id == voice_id), -1)
        return self.index(row) if row >= 0 else QModelIndex()

    def rowCount(self, parent: Index = QModelIndex()) -> int:  # noqa: B008 - Qt's signature
        """Voices shown."""
        return 0 if parent.isValid() else len(self._shown)

    def data(self, index: Index, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """Name, tooltip and record."""
        record = self.record(index)
        if record is None:
            return None
        if role == Qt.ItemDataRole.DisplayRole:
            return record.name
        if role == RECORD_ROLE:
            return record
        if role in (Qt.ItemDataRole.ToolTipRole, Qt.ItemDataRole.AccessibleDescriptionRole):
            return "\n".join((pitch_text(record), made_text(record), used_text(record), *record.messages))
        return None

    def picture(self, record: VoiceRecord, ratio: float) -> QPixmap | None:
        """The voice's picture at the card's size, read at most once while it stays in the cache."""
        if record.picture is None:
            return None
        key = (str(record.picture), ratio)
        if key in self._pictures:
            self._pictures.move_to_end(key)
            return self._pictures[key]
        self.pictures_read += 1
        size = round(PICTURE * ratio)
        pixmap = QPixmap(str(record.picture)).scaled(
            size, size, Qt.AspectRatioMode.KeepAspectRatioByExpanding, Qt.TransformationMode.SmoothTransformation
        )
        pixmap.setDevicePixelRatio(ratio)
        self._pictures[key] = pixmap
        while len(self._pictures) > _PICTURES_KEPT:
            self._pictures.popitem(last=False)
        return pixmap

    def _refresh(self) -> None:
        self.beginResetModel()
        shown = self._all
        if self._words:
            shown = [record for record in shown if self._matches(record)]
        self._shown = sorted(shown, key=ORDERS[self._order][1])
        self.endResetModel()

    def _matches(self, record: VoiceRecord) -> bool:
        text = f"{record.name} {record.notes} {record.consent}".casefold()
        return all(word in text for word in self._words)


class VoiceCard(QStyledItemDelegate):
    """Paints one voice; a click on its play sign asks for a sample."""

    play_clicked = Signal(object)  # VoiceRecord

    def __init__(self, model: VoicesModel, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._model = model
        self.playing_id = ""

    def sizeHint(self, option: QStyleOptionViewItem, index: Index) -> QSize:
        """The same for all, so that ten thousand need no measuring."""
        return CARD

    def paint(self, painter: QPainter, option: QStyleOptionViewItem, index: Index) -> None:
        """Draw the card."""
        record = self._model.record(index)
        if record is None:
            return
        scheme = colours()
        state = option.state
        area = _card_area(option)
        painter.save()
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        selected = bool(state & QStyle.StateFlag.State_Selected)
        focused = bool(state & QStyle.StateFlag.State_HasFocus)
        hovered = bool(state & QStyle.StateFlag.State_MouseOver)
        painter.setBrush(QColor(scheme.soft if selected else scheme.card))
        edge = scheme.accent if selected or focused else scheme.muted if hovered else scheme.border
        painter.setPen(QPen(QColor(edge), 2 if focused else 1))
        painter.drawRoundedRect(QRectF(area).adjusted(1, 1, -1, -1), 8, 8)
        self._draw_picture(painter, record, _picture_area(area))
        self._draw_text(painter, option, record, area, scheme)
        name = "pause-circle" if record.id == self.playing_id else "play-circle"
        icon(name, "accent").paint(painter, _play_area(area))
        painter.restore()

    def editorEvent(self, event: QEvent, model: Any, option: QStyleOptionViewItem, index: Index) -> bool:
        """Catch clicks on the play sign."""
        if (
            event.type() == QEvent.Type.MouseButtonRelease
            and isinstance(event, QMouseEvent)
            and event.button() == Qt.MouseButton.LeftButton
            and _play_area(_card_area(option)).contains(event.position().toPoint())
        ):
            self.play_clicked.emit(self._model.record(index))
            return True
        return super().editorEvent(event, model, option, index)

    def _draw_picture(self, painter: QPainter, record: VoiceRecord, area: QRect) -> None:
        path = QPainterPath()
        path.addEllipse(QRectF(area))
        painter.save()
        painter.setClipPath(path)
        pixmap = self._model.picture(record, painter.device().devicePixelRatioF())
        if pixmap is not None and not pixmap.isNull():
            painter.drawPixmap(area, pixmap)
        else:
            painter.fillRect(area, QColor(record.colour))
            painter.setPen(QColor("#ffffff"))
            painter.setFont(title_font(painter.font(), 1.6))
            painter.drawText(area, Qt.AlignmentFlag.AlignCenter, record.name[:1].upper())
        painter.restore()

    def _draw_text(
        self, painter: QPainter, option: QStyleOptionViewItem, record: VoiceRecord, area: QRect, scheme: Colours
    ) -> None:
        base = option.font
        left = _picture_area(area).right() + Space.M
        width = area.right() - Space.M - left
        name_font = title_font(base, 1.1)
        line = QFontMetrics(base).height() + 1
        top = area.top() + Space.M - 2
        painter.setFont(name_font)
        painter.setPen(QColor(scheme.text))
        name_height = QFontMetrics(name_font).height()
        name = QFontMetrics(name_font).elidedText(record.name, Qt.TextElideMode.ElideRight, width)
        painter.drawText(QRect(left, top, width, name_height), Qt.AlignmentFlag.AlignVCenter, name)
        painter.setFont(base)
        top += name_height + 3
        poor = record.quality == "poor"
        for text, colour in (
            (pitch_text(record), scheme.muted),
            (made_text(record), scheme.warning if poor else scheme.muted),
            (used_text(record), scheme.muted),
        ):
            painter.setPen(QColor(colour))
            room = width - (34 if text == used_text(record) else 0)
            shown = QFontMetrics(base).elidedText(text, Qt.TextElideMode.ElideRight, room)
            painter.drawText(QRect(left, top, room, line), Qt.AlignmentFlag.AlignVCenter, shown)
            top += line


def pitch_text(record: VoiceRecord) -> str:
    """Pitch and its range, for people."""
    low, high = record.f0_range_hz
    if high <= 0:
        return f"{record.median_f0_hz:.0f} Hz" if record.median_f0_hz else ""
    return f"{record.median_f0_hz:.0f} Hz ({low:.0f} to {high:.0f})"


def made_text(record: VoiceRecord) -> str:
    """Where it comes from and how good it is, for people."""
    if record.builtin:
        return "Comes with AutoVoice"
    improved = ", improved" if record.is_improved else ""
    if record.origin == "blend":
        return f"Blend{improved}"
    return f"{record.seconds:.0f} s, {record.quality}{improved}"


def used_text(record: VoiceRecord, now: float | None = None) -> str:
    """When it was last used, for people."""
    if record.last_used is None:
        return "" if record.builtin else "Not used yet"
    days = int(((now or time.time()) - record.last_used) // 86400)
    if days <= 0:
        return "Used today"
    return "Used yesterday" if days == 1 else f"Used {days} days ago"


def _card_area(option: QStyleOptionViewItem) -> QRect:
    rect: QRect = option.rect
    return rect.adjusted(Space.XS, Space.XS, -Space.XS, -Space.XS)


def _picture_area(area: QRect) -> QRect:
    return QRect(area.left() + Space.M, area.top() + Space.M, PICTURE, PICTURE)


def _play_area(area: QRect) -> QRect:
    return QRect(area.right() - 36, area.bottom() - 36, 28, 28)
