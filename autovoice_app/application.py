"""Starts the window: the one place that makes the objects and joins them."""

import contextlib
import ctypes
import faulthandler
import logging
import logging.handlers
import platform
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from PySide6.QtCore import QObject, QTimer, Signal, qVersion
from PySide6.QtWidgets import QApplication, QMessageBox

from autovoice_app import __version__
from autovoice_app.assets import apply_theme, icon
from autovoice_app.context import AppContext
from autovoice_app.main_window import EnterPresses, MainWindow
from autovoice_app.notices import Notices
from autovoice_app.player import Player
from autovoice_app.settings import SettingsFile
from autovoice_app.tasks import FILES, Tasks
from engine.errors import StoreError

if TYPE_CHECKING:
    from engine.devices import AudioBackend
    from engine.store import Store

_log = logging.getLogger(__name__)


def run_window(paths: Sequence[Path] = ()) -> int:
    """Open the window and stay until it is closed.

    Args:
        paths: Songs to put on the Convert page.

    Returns:
        The exit code: 1 when the data folder cannot be used.
    """
    from engine.devices import system_devices
    from engine.store import default_data_folder

    started = time.perf_counter()
    data_folder = default_data_folder()
    app = make_application(sys.argv[:1])
    opened = open_store(data_folder)
    if opened is None:
        return 1
    store, told = opened
    _start_log(data_folder / "logs")
    with open_context(data_folder, system_devices(), store) as context:
        reporter = CrashReporter(data_folder / "logs")
        context.tasks.crashed.connect(reporter.report)
        reporter.install()
        window = MainWindow(context)
        follow_appearance(app, context)
        window.show()
        if told:
            context.notices.show(*told, kind="warning")
        if paths:
            window.open_files(list(paths))
        context.tasks.create("Tidying up", lambda _ctx: store.maintain(), lane=FILES).start()
        waking = _quit_on_signals(app, context)
        _log.info("ready after %.2f s", time.perf_counter() - started)
        code = app.exec()
        waking.stop()
        reporter.uninstall()
        window.deleteLater()
    return code


def open_store(data_folder: Path) -> "tuple[Store, tuple[str, str] | None] | None":
    """Open the store; when it is damaged, ask whether to restore the last good backup.

    Returns:
        The store, and sentence and hint about what was restored or None; or None when the user was told that it
        cannot be used, or chose to leave it as it is.
    """
    from engine.store import Store, StoreDamagedError, repair_store

    try:
        try:
            return Store(data_folder), None
        except StoreDamagedError as error:
            box = QMessageBox(QMessageBox.Icon.Warning, "AutoVoice", error.message)
            box.setInformativeText(
                ("The last good backup can be restored; " if error.backup else "There is no backup; ")
                + "voices are found again in their own files, and the damaged file is kept aside."
            )
            repair = box.addButton("Restore", QMessageBox.ButtonRole.AcceptRole)
            box.addButton("Quit", QMessageBox.ButtonRole.RejectRole)
            box.exec()
            if box.clickedButton() is not repair:
                return None
            store, found = repair_store(data_folder, error.backup)
            names = ", ".join(found)
            return store, ("The data were restored.", f"Found again in their files: {names}." if names else "")
    except StoreError as error:
        box = QMessageBox(QMessageBox.Icon.Critical, "AutoVoice", error.message)
        box.setInformativeText(error.hint)
        box.exec()
        return None


def _quit_on_signals(app: QApplication, context: AppContext) -> QTimer:
    """Close on Ctrl-C and on the system's wish; the timer lets Python see signals while Qt waits."""

    def leave(_number: int, _frame: object) -> None:
        context.tasks.cancel_all()
        app.quit()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, leave)
    timer = QTimer(app, interval=250)
    timer.timeout.connect(lambda: None)
    timer.start()
    return timer


def _keep_singletons() -> None:
    """Let None, True and False survive PySide6 on Python 3.11.

    PySide6 6.12 counts on them being immortal, as they are from Python 3.12 on: here every call of a void Qt method
    takes one reference of None away (measured: sys.getrefcount(None) falls by one per QPainter.save(), that of True by
    one per Signal.emit), until the interpreter deallocates it and dies, some minutes of painting or two thousand
    emissions later.
    """
    if sys.version_info < (3, 12):
        for singleton in (None, True, False):
            ctypes.c_ssize_t.from_address(id(singleton)).value += 1 << 40


def make_application(arguments: Sequence[str]) -> QApplication:
    """The QApplication with the program's name and manners."""
    _keep_singletons()
    app = QApplication(list(arguments))
    app.setApplicationName("AutoVoice")
    app.setApplicationDisplayName("AutoVoice")
    app.setApplicationVersion(__version__)
    app.setDesktopFileName("autovoice")
    apply_theme(app)
    app.setWindowIcon(icon("waves", "accent"))
    app.installEventFilter(EnterPresses(app))
    return app


@contextlib.contextmanager
def open_context(data_folder: Path, devices: "AudioBackend", store: "Store | None" = None) -> Iterator[AppContext]:
    """Make what the pages share; on leaving, cancel all work, join every thread and write the settings.

    Args:
        data_folder: Store, settings and logs go here.
        devices: The machine's devices, or fake ones.
        store: The open store, closed on leaving; None opens the data folder's.

    Raises:
        StoreError: The data folder cannot be used.
    """
    from engine.store import Store

    store = store or Store(data_folder)
    settings = SettingsFile(data_folder / "settings.ini")
    notices = Notices()
    tasks = Tasks(notices)
    player = Player(devices, settings, notices)
    try:
        yield AppContext(store, settings, tasks, notices, player, devices, data_folder)
    finally:
        player.shut_down()
        tasks.shut_down()
        settings.save()
        store.close()


def follow_appearance(app: QApplication, context: AppContext) -> None:
    """Dress the application as the settings say, now and whenever they or the desktop's colour scheme change."""

    def dress() -> None:
        apply_theme(app, context.settings.current.appearance)

    seen = context.settings.current.appearance

    def take(settings: object) -> None:
        nonlocal seen
        if context.settings.current.appearance != seen:
            seen = context.settings.current.appearance
            dress()

    context.settings.changed.connect(take)
    app.styleHints().colorSchemeChanged.connect(dress)
    dress()


class CrashReporter(QObject):
    """Shows a bug of ours: traceback, versions, log folder; never two dialogs at once.

    Exception hooks run in any thread, so they reach the GUI by signal.
    """

    _caught = Signal(str)

    def __init__(self, log_folder: Path) -> None:
        super().__init__()
        self._log_folder = log_folder
        self._is_open = False
        self._caught.connect(self.report)

    def install(self) -> None:
        """Take the hooks."""
        sys.excepthook = self._take
        threading.excepthook = lambda hook: self._take(hook.exc_type, hook.exc_value, hook.exc_traceback)

    def uninstall(self) -> None:
        """Give the hooks back."""
        sys.excepthook = sys.__excepthook__
        threading.excepthook = threading.__excepthook__

    def report(self, text: str) -> None:
        """Show a traceback, unless one is on show."""
        if self._is_open:
            return
        self._is_open = True
        try:
            box = QMessageBox(QMessageBox.Icon.Critical, "AutoVoice", "Something went wrong inside AutoVoice.")
            box.setInformativeText(
                "That is a fault of the program, not yours. Your files are as they were; you can go on working. "
                f"To report it, copy the details; the log lies in {self._log_folder}."
            )
            box.setDetailedText(f"{_versions()}\n\n{text}")
            box.exec()
        finally:
            self._is_open = False

    def _take(self, kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
        if issubclass(kind, KeyboardInterrupt):
            QApplication.quit()
            return
        _log.critical("uncaught", exc_info=(kind, error or kind(), trace))
        self._caught.emit("".join(traceback.format_exception(kind, error, trace)))


def _versions() -> str:
    return (
        f"AutoVoice {__version__}, Python {platform.python_version()}, Qt {qVersion()}, "
        f"{platform.system()} {platform.release()} {platform.machine()}"
    )


def _start_log(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    handler = logging.handlers.RotatingFileHandler(
        folder / "autovoice.log", maxBytes=1_000_000, backupCount=3, encoding="utf-8"
    )
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(threadName)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    faulthandler.enable((folder / "faults.log").open("w", encoding="utf-8"))
