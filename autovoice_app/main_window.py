"""The main window: a side bar of pages, notices above the page, and what all pages share.

**Adding a page.** A page is a `context.Page` (a QWidget) whose constructor takes the `AppContext` and nothing else.
Write it in `views/`, add a function here that imports and makes it, and one `PageEntry` to PAGES. It is made when first
shown, so its imports cost nothing at start-up. The window calls its `on_shown`, `on_hidden`, `toggle_play` (Space) and
`shut_down`. Begin the constructor with `self.page_layout("Title")`; take spacings from `assets.Space`, icons from
`assets.icon`, cards from `widgets.basics`; give every control a tooltip and an accessible name (a test walks them).
Long work goes through `context.tasks`, failures become notices by themselves, choices live in `settings.Settings`.
"""

import base64
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from PySide6.QtCore import QByteArray, QEvent, QObject, QSize, Qt
from PySide6.QtGui import QCloseEvent, QKeyEvent, QKeySequence, QShortcut
from PySide6.QtWidgets import (
    QApplication,
    QButtonGroup,
    QFrame,
    QHBoxLayout,
    QLabel,
    QMainWindow,
    QMessageBox,
    QProgressBar,
    QStackedWidget,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from autovoice_app.assets import Space, icon, title_font
from autovoice_app.context import AppContext, Page
from autovoice_app.notices import NoticeBar
from autovoice_app.tasks import ENGINE


def _convert(context: AppContext) -> Page:
    from autovoice_app.views.convert import ConvertPage

    return ConvertPage(context)


def _history(context: AppContext) -> Page:
    from autovoice_app.views.history import HistoryPage

    return HistoryPage(context)


def _voices(context: AppContext) -> Page:
    from autovoice_app.views.voices import VoicesPage

    return VoicesPage(context)


def _models(context: AppContext) -> Page:
    from autovoice_app.views.models import ModelsPage

    return ModelsPage(context)


def _settings(context: AppContext) -> Page:
    from autovoice_app.views.settings import SettingsPage

    return SettingsPage(context)


def _live(context: AppContext) -> Page:
    from autovoice_app.views.live import LivePage

    return LivePage(context)


@dataclass(frozen=True)
class PageEntry:
    """One entry of the side bar.

    Attributes:
        key: Its name in the settings.
        title: Its name for people.
        icon: Name for `assets.icon`.
        tip: What one does there, one line.
        make: Makes the page when it is first shown.
        at_end: Stands at the lower end of the side bar.
    """

    key: str
    title: str
    icon: str
    tip: str
    make: Callable[[AppContext], Page]
    at_end: bool = False


PAGES = (
    PageEntry("convert", "Convert", "music-notes", "Sing a song in another voice", _convert),
    PageEntry("live", "Live", "broadcast", "Speak, and come out as someone else", _live),
    PageEntry("voices", "Voices", "users", "Record, import, improve and mix voices", _voices),
    PageEntry("history", "History", "clock-counter-clockwise", "What was converted, with its figures", _history),
    PageEntry("models", "Models", "cube", "Separators to download or add, and what is installed", _models),
    PageEntry(
        "settings", "Settings", "gear-six", "Appearance, sound output, folders and shortcuts", _settings, at_end=True
    ),
)


class MainWindow(QMainWindow):
    """The window; `application` makes one."""

    def __init__(self, context: AppContext) -> None:
        super().__init__()
        self.context = context
        self.setWindowTitle("AutoVoice")
        self.setMinimumSize(QSize(900, 600))
        self._pages: dict[str, Page] = {}
        self._stack = QStackedWidget()
        self._stack.setAccessibleName("Page")
        self._buttons: dict[str, QToolButton] = {}
        centre = QWidget()
        row = QHBoxLayout(centre)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(0)
        row.addWidget(self._make_side_bar())
        column = QVBoxLayout()
        column.setSpacing(0)
        self.notice_bar = NoticeBar(context.notices)
        column.addWidget(self.notice_bar)
        column.addWidget(self._stack, 1)
        row.addLayout(column, 1)
        self.setCentralWidget(centre)
        centre.setFocus()
        self._restore_geometry()
        context.tasks.changed.connect(self._show_activity)
        self._timer_id = 0
        known = {entry.key for entry in PAGES}
        self.show_page(context.settings.current.page if context.settings.current.page in known else PAGES[0].key)

    def page(self, key: str) -> Page:
        """A page, made if need be.

        Raises:
            KeyError: There is no such page.
        """
        if key not in self._pages:
            entry = next((entry for entry in PAGES if entry.key == key), None)
            if entry is None:
                raise KeyError(key)
            page = entry.make(self.context)
            page.setAccessibleName(entry.title)
            page.songs_offered.connect(self.open_files)
            self._pages[key] = page
            self._stack.addWidget(page)
        return self._pages[key]

    @property
    def current_page(self) -> Page | None:
        """The page in front."""
        widget = self._stack.currentWidget()
        return widget if isinstance(widget, Page) else None

    def show_page(self, key: str) -> Page:
        """Bring a page to the front."""
        page, old = self.page(key), self.current_page
        self._buttons[key].setChecked(True)
        if page is not old or not self._stack.isVisible():
            if old is not None and old is not page:
                old.on_hidden()
            self._stack.setCurrentWidget(page)
            self.context.settings.update(page=key)
            page.on_shown()
        return page

    def open_files(self, paths: list[Path]) -> None:
        """Take songs to the Convert page."""
        from autovoice_app.views.convert import ConvertPage

        page = self.show_page("convert")
        assert isinstance(page, ConvertPage)
        page.add_songs(paths)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Space that no control wanted plays or pauses."""
        if event.key() == Qt.Key.Key_Space and not event.isAutoRepeat() and self.current_page is not None:
            self.current_page.toggle_play()
        else:
            super().keyPressEvent(event)

    def closeEvent(self, event: QCloseEvent) -> None:
        """Ask when a job runs; then cancel, join and remember."""
        running = self.context.tasks.running_engine_task
        stops_already = running is not None and running.ctx.is_cancelled
        if running is not None and not stops_already and self.isVisible() and not self._confirm_stop(running.title):
            event.ignore()
            return
        geometry = base64.b64encode(bytes(self.saveGeometry().data())).decode()
        self.context.settings.update(window_geometry=geometry)
        for page in self._pages.values():
            page.shut_down()
        event.accept()

    def timerEvent(self, event: QEvent) -> None:
        """Refresh the side bar's account of the running job."""
        self._show_activity()

    def _confirm_stop(self, title: str) -> bool:
        box = QMessageBox(QMessageBox.Icon.Question, "AutoVoice", f"{title} is still running.", parent=self)
        box.setInformativeText("Closing the window stops it; nothing half-done is kept.")
        stop = box.addButton("Stop and close", QMessageBox.ButtonRole.DestructiveRole)
        box.addButton("Keep working", QMessageBox.ButtonRole.RejectRole)
        box.exec()
        return box.clickedButton() is stop

    def _make_side_bar(self) -> QWidget:
        bar = QFrame()
        bar.setObjectName("sideBar")
        bar.setFixedWidth(168)
        column = QVBoxLayout(bar)
        column.setContentsMargins(Space.S, Space.L, Space.S, Space.M)
        column.setSpacing(Space.XS)
        name = QLabel("AutoVoice")
        name.setFont(title_font(name.font(), 1.25))
        name.setContentsMargins(Space.S, 0, 0, Space.M)
        column.addWidget(name)
        group = QButtonGroup(bar)
        for at_end in (False, True):
            for entry in PAGES:
                if entry.at_end == at_end:
                    button = self._make_button(entry)
                    group.addButton(button)
                    column.addWidget(button)
            if not at_end:
                column.addStretch(1)
                column.addWidget(self._make_activity())
        return bar

    def _make_button(self, entry: PageEntry) -> QToolButton:
        button = QToolButton()
        button.setText(f"  {entry.title}")
        button.setIcon(icon(entry.icon))
        button.setIconSize(QSize(20, 20))
        button.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        button.setCheckable(True)
        button.setSizePolicy(button.sizePolicy().horizontalPolicy().Expanding, button.sizePolicy().verticalPolicy())
        number = len(self._buttons) + 1
        keys = QKeySequence("Ctrl+," if entry.key == "settings" else f"Ctrl+{number}")
        QShortcut(keys, self, lambda: self.show_page(entry.key))
        button.setToolTip(f"{entry.tip} ({keys.toString(QKeySequence.SequenceFormat.NativeText)})")
        button.setAccessibleName(f"{entry.title} page")
        button.clicked.connect(lambda: self.show_page(entry.key))
        self._buttons[entry.key] = button
        return button

    def _make_activity(self) -> QWidget:
        self._activity = QWidget()
        column = QVBoxLayout(self._activity)
        column.setContentsMargins(Space.S, 0, Space.S, Space.S)
        column.setSpacing(Space.XS)
        self._activity_text = QLabel()
        self._activity_text.setProperty("muted", "true")
        self._activity_text.setWordWrap(True)
        self._activity_bar = QProgressBar()
        self._activity_bar.setTextVisible(False)
        self._activity_bar.setRange(0, 1000)
        self._activity_bar.setAccessibleName("Progress of the running job")
        self._activity_bar.setToolTip("How far the running job is")
        column.addWidget(self._activity_text)
        column.addWidget(self._activity_bar)
        self._activity.setVisible(False)
        return self._activity

    def _show_activity(self) -> None:
        task = self.context.tasks.running_engine_task
        self._activity.setVisible(task is not None)
        if task is None:
            if self._timer_id:
                self.killTimer(self._timer_id)
                self._timer_id = 0
            return
        open_tasks = self.context.tasks.open_tasks
        waiting = sum(other.lane == ENGINE and not other.gives_way for other in open_tasks) - 1
        self._activity_text.setText(task.title + (f"\n{waiting} more waiting" if waiting > 0 else ""))
        self._activity_bar.setValue(round(1000 * task.ctx.progress.fraction))
        if not self._timer_id:
            self._timer_id = self.startTimer(200)

    def _restore_geometry(self) -> None:
        self.resize(1180, 780)
        kept = self.context.settings.current.window_geometry
        if kept:
            self.restoreGeometry(QByteArray.fromBase64(kept.encode()))


class EnterPresses(QObject):
    """Lets Enter press the focused button as Space does; installed on the application."""

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Turn Enter on a button into a click."""
        if (
            event.type() == QEvent.Type.KeyPress
            and isinstance(event, QKeyEvent)
            and event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter)
        ):
            from PySide6.QtWidgets import QAbstractButton

            if isinstance(watched, QAbstractButton) and watched.isEnabled() and QApplication.focusWidget() is watched:
                watched.animateClick()
                return True
        return False
