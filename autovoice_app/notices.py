"""Messages in the window: what happened, in one sentence, and what to try."""

from collections.abc import Callable
from dataclasses import dataclass

from PySide6.QtCore import QObject, QSize, Qt, QTimer, Signal
from PySide6.QtWidgets import QFrame, QHBoxLayout, QLabel, QPushButton, QToolButton, QVBoxLayout, QWidget

from autovoice_app.assets import Space, icon
from engine.errors import AutoVoiceError

KINDS = {"info": ("info", "accent"), "success": ("check-circle", "good"), "warning": ("warning", "warning")}
KINDS["error"] = ("warning-circle", "danger")


@dataclass(frozen=True)
class Notice:
    """One message.

    Attributes:
        message: One sentence.
        hint: What to try; may be empty.
        kind: A key of KINDS; errors and warnings stay until dismissed.
        action: A button's label and what it does ("Undo", self.restore), or None.
    """

    message: str
    hint: str = ""
    kind: str = "info"
    action: tuple[str, Callable[[], object]] | None = None


class Notices(QObject):
    """Where every part of the program leaves its messages. Use from the GUI thread."""

    shown = Signal(object)  # Notice

    def show(
        self,
        message: str,
        hint: str = "",
        *,
        kind: str = "info",
        action: tuple[str, Callable[[], object]] | None = None,
    ) -> None:
        """Show one message."""
        self.shown.emit(Notice(message, hint, kind, action))

    def error(self, error: AutoVoiceError) -> None:
        """Show a failure with its hint."""
        self.show(error.message, error.hint, kind="error")


class NoticeBar(QWidget):
    """The messages at the top of the window, newest first, three at most; info goes away by itself."""

    KEPT = 3
    INFO_MS = 6000

    def __init__(self, notices: Notices, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._layout = QVBoxLayout(self)
        self._layout.setContentsMargins(Space.L, Space.S, Space.L, 0)
        self._layout.setSpacing(Space.XS)
        self._rows: list[_NoticeRow] = []
        self.setVisible(False)
        notices.shown.connect(self.add)

    def add(self, notice: Notice) -> None:
        """Put a message on top."""
        for row in [row for row in self._rows if row.notice.message == notice.message]:
            self._remove(row)
        row = _NoticeRow(notice, self)
        row.dismissed.connect(self._remove)
        self._rows.insert(0, row)
        self._layout.insertWidget(0, row)
        for old in self._rows[self.KEPT :]:
            self._remove(old)
        self.setVisible(True)

    @property
    def messages(self) -> list[str]:
        """The sentences on show, newest first."""
        return [row.notice.message for row in self._rows]

    def _remove(self, row: "_NoticeRow") -> None:
        if row in self._rows:
            self._rows.remove(row)
            self._layout.removeWidget(row)
            row.hide()
            row.deleteLater()
        self.setVisible(bool(self._rows))


class _NoticeRow(QFrame):
    dismissed = Signal(object)

    def __init__(self, notice: Notice, parent: QWidget) -> None:
        super().__init__(parent)
        self.notice = notice
        self.setObjectName("notice")
        self.setProperty("kind", notice.kind)
        self.setAccessibleName(f"{notice.kind}: {notice.message}")
        self.setAccessibleDescription(notice.hint)
        row = QHBoxLayout(self)
        row.setContentsMargins(Space.M, Space.S, Space.S, Space.S)
        row.setSpacing(Space.M)
        name, role = KINDS[notice.kind]
        sign = QLabel()
        sign.setPixmap(icon(name, role).pixmap(QSize(20, 20), self.devicePixelRatioF()))
        row.addWidget(sign)
        text = QLabel(notice.message if not notice.hint else f"{notice.message}\n{notice.hint}")
        text.setTextFormat(Qt.TextFormat.PlainText)
        text.setWordWrap(True)
        text.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        row.addWidget(text, 1)
        if notice.action:
            label, act = notice.action
            button = QPushButton(label)
            button.setToolTip(f"{label}: {notice.message}")
            button.setAccessibleName(label)
            button.clicked.connect(lambda: act())
            button.clicked.connect(lambda: self.dismissed.emit(self))
            row.addWidget(button)
        close = QToolButton()
        close.setIcon(icon("x", "muted"))
        close.setToolTip("Dismiss this message")
        close.setAccessibleName("Dismiss")
        close.clicked.connect(lambda: self.dismissed.emit(self))
        row.addWidget(close)
        if notice.kind in ("info", "success"):
            QTimer.singleShot(NoticeBar.INFO_MS, self, lambda: self.dismissed.emit(self))
