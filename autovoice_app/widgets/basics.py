"""The common controls, each made with its tooltip and accessible name."""

from collections.abc import Callable
from typing import Any

from PySide6.QtCore import QModelIndex, QPersistentModelIndex, QSize, Qt
from PySide6.QtGui import QColor, QKeySequence, QPainter
from PySide6.QtWidgets import (
    QBoxLayout,
    QComboBox,
    QFormLayout,
    QFrame,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QStyledItemDelegate,
    QStyleOptionViewItem,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from autovoice_app.assets import Space, colours, icon, title_font


def make_button(
    text: str,
    tip: str,
    on_click: Callable[[], Any],
    *,
    icon_name: str = "",
    primary: bool = False,
    danger: bool = False,
    keys: str = "",
) -> QPushButton:
    """A push button; a click does not take the focus, so that Space goes on meaning play.

    Args:
        text: Its label.
        tip: What it does, one line.
        on_click: What it does.
        icon_name: Name for `assets.icon`.
        primary: The page's main action; at most one per page.
        danger: It removes something.
        keys: A shortcut to mention in the tooltip.
    """
    button = QPushButton(text)
    button.setToolTip(with_keys(tip, keys))
    button.setAccessibleName(text.replace("…", ""))
    button.setFocusPolicy(Qt.FocusPolicy.TabFocus)
    if icon_name:
        button.setIcon(icon(icon_name, "on_accent" if primary else "danger" if danger else "text"))
        button.setIconSize(QSize(18 + Space.XS, 18))
    button.setProperty("primary", "true" if primary else "false")
    button.setProperty("danger", "true" if danger else "false")
    button.clicked.connect(lambda: on_click())
    return button


def make_icon_button(
    icon_name: str, name: str, tip: str, on_click: Callable[[], Any], *, keys: str = ""
) -> QToolButton:
    """A button that shows only an icon.

    Args:
        icon_name: Name for `assets.icon`.
        name: Its accessible name.
        tip: What it does, one line.
        on_click: What it does.
        keys: A shortcut to mention in the tooltip.
    """
    button = QToolButton()
    button.setIcon(icon(icon_name))
    button.setIconSize(QSize(20, 20))
    button.setAutoRaise(True)
    button.setToolTip(with_keys(tip, keys))
    button.setAccessibleName(name)
    button.setFocusPolicy(Qt.FocusPolicy.TabFocus)
    button.clicked.connect(lambda: on_click())
    return button


def make_combo(name: str, tip: str, items: list[tuple[str, str]], chosen: str = "") -> QComboBox:
    """A choice.

    Args:
        name: Its accessible name.
        tip: What it chooses, one line.
        items: (label, data) in order.
        chosen: Data of the item to start with; the first when absent.
    """
    combo = QComboBox()
    combo.setAccessibleName(name)
    combo.setToolTip(tip)
    combo.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
    combo.setMinimumContentsLength(8)
    combo.setItemDelegate(_NoteDelegate(combo))
    fill_combo(combo, items, chosen)
    return combo


def fill_combo(combo: QComboBox, items: list[tuple[str, str]], chosen: str = "") -> None:
    """Replace a choice's items without telling anybody."""
    was_blocked = combo.blockSignals(True)
    combo.clear()
    for label, data in items:
        combo.addItem(label, data)
    combo.setCurrentIndex(max(combo.findData(chosen), 0))
    widen_list(combo)
    combo.blockSignals(was_blocked)


NOTE_ROLE = Qt.ItemDataRole.UserRole + 1  # text that a choice's list shows at its right end, quietly


def show_notes(combo: QComboBox, notes: list[str]) -> None:
    """Show a note beside each item of a choice's list."""
    for index, note in enumerate(notes):
        combo.setItemData(index, note, NOTE_ROLE)
        title = combo.itemText(index)
        combo.setItemData(index, f"{title}, {note}" if note else title, Qt.ItemDataRole.AccessibleTextRole)
    widen_list(combo)


def widen_list(combo: QComboBox) -> None:
    """Let a choice's list show its labels whole, though it may be wider than the closed choice."""
    labels = [combo.itemText(index) + str(combo.itemData(index, NOTE_ROLE) or "") for index in range(combo.count())]
    widest = max((combo.fontMetrics().horizontalAdvance(label) for label in labels), default=0)
    combo.view().setMinimumWidth(widest + 3 * Space.L)


class _NoteDelegate(QStyledItemDelegate):
    """Draws a choice's items as the style sheet says, and an item's note at its right end."""

    def paint(
        self, painter: QPainter, option: QStyleOptionViewItem, index: QModelIndex | QPersistentModelIndex
    ) -> None:
        super().paint(painter, option, index)
        painter.save()
        painter.setPen(QColor(colours().muted))
        area = option.rect.adjusted(0, 0, -Space.S, 0)
        flags = Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
        painter.drawText(area, flags, str(index.data(NOTE_ROLE) or ""))
        painter.restore()


def make_form() -> QFormLayout:
    """An empty form; `add_row` fills it."""
    form = QFormLayout()
    form.setHorizontalSpacing(Space.M)
    form.setVerticalSpacing(Space.S)
    return form


def add_row(form: QFormLayout, text: str, control: QWidget) -> None:
    """Add a control and its label to a form, the label level with the control."""
    label = make_label(text, buddy=control)
    control.ensurePolished()
    label.setMinimumHeight(control.sizeHint().height())
    form.addRow(label, control)


def make_card(layout: type[QBoxLayout] | None = None) -> tuple[QFrame, QBoxLayout]:
    """A framed area and its layout (vertical unless told)."""
    card = QFrame()
    card.setProperty("card", "true")
    column = QVBoxLayout(card) if layout is None or layout is QVBoxLayout else QHBoxLayout(card)
    column.setContentsMargins(Space.M, Space.M, Space.M, Space.M)
    column.setSpacing(Space.S)
    return card, column


def make_label(text: str = "", *, muted: bool = False, buddy: QWidget | None = None, wrap: bool = False) -> QLabel:
    """A line of text; `buddy` is the control that it names."""
    label = QLabel(text)
    label.setTextFormat(Qt.TextFormat.PlainText)
    label.setProperty("muted", "true" if muted else "false")
    label.setWordWrap(wrap)
    if buddy is not None:
        label.setBuddy(buddy)
    return label


def make_heading(text: str) -> QLabel:
    """The heading of a card."""
    label = QLabel(text)
    label.setFont(title_font(label.font(), 1.1))
    return label


def make_empty(icon_name: str, title: str, text: str, *controls: QWidget) -> QWidget:
    """What an empty page shows: a large icon, what is missing, and what to do about it."""
    widget = QWidget()
    column = QVBoxLayout(widget)
    column.setSpacing(Space.M)
    column.addStretch(1)
    sign = _GlyphLabel(icon_name, 56)
    column.addWidget(sign, 0, Qt.AlignmentFlag.AlignHCenter)
    heading = make_heading(title)
    column.addWidget(heading, 0, Qt.AlignmentFlag.AlignHCenter)
    line = make_label(text, muted=True, wrap=True)
    line.setAlignment(Qt.AlignmentFlag.AlignHCenter)
    line.setFixedWidth(440)
    line.setMinimumHeight(line.heightForWidth(440))  # a layout with alignment does not ask for it
    column.addWidget(line, 0, Qt.AlignmentFlag.AlignHCenter)
    row = QHBoxLayout()
    row.setSpacing(Space.S)
    row.addStretch(1)
    for control in controls:
        row.addWidget(control)
    row.addStretch(1)
    column.addLayout(row)
    column.addStretch(2)
    return widget


class _GlyphLabel(QLabel):
    """A large icon that is drawn anew when the colours or the screen change."""

    def __init__(self, icon_name: str, size: int) -> None:
        super().__init__()
        self._icon, self._size = icon(icon_name, "accent"), size
        self._draw()

    def changeEvent(self, event: Any) -> None:
        if event.type() in (event.Type.PaletteChange, event.Type.StyleChange):
            self._draw()
        super().changeEvent(event)

    def _draw(self) -> None:
        self.setPixmap(self._icon.pixmap(QSize(self._size, self._size), self.devicePixelRatioF()))


def with_keys(tip: str, keys: str) -> str:
    """A tooltip that ends with its shortcut."""
    return f"{tip} ({QKeySequence(keys).toString(QKeySequence.SequenceFormat.NativeText)})" if keys else tip


def clock(seconds: float) -> str:
    """A time for people: "3:07", "1:02:45"."""
    whole = max(int(seconds), 0)
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"


def about(seconds: float) -> str:
    """A rough time for people: "12 s", "3 min", "1 h 20 min"."""
    if seconds < 90:
        return f"{max(round(seconds), 1)} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
