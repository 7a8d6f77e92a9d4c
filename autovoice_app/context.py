"""What every page is given, and what a page is."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from PySide6.QtCore import Signal
from PySide6.QtWidgets import QHBoxLayout, QLabel, QVBoxLayout, QWidget

from autovoice_app.assets import Space, title_font

if TYPE_CHECKING:
    from autovoice_app.notices import Notices
    from autovoice_app.player import Player
    from autovoice_app.settings import SettingsFile
    from autovoice_app.tasks import Tasks
    from engine.devices import AudioBackend
    from engine.store import Store


_HEAD_HEIGHT = 30  # that of its buttons, so that headings without any stand as high


@dataclass(frozen=True)
class AppContext:
    """The objects that pages share; `application` makes them and nobody else.

    Attributes:
        store: Voices and renders.
        settings: What is remembered between starts.
        tasks: Work away from the GUI thread.
        notices: Messages in the window.
        player: The one player; a page that starts it takes it from the page that had it.
        devices: Microphones and loudspeakers; slow to list, so from a task.
        data_folder: Where the store, settings, logs and kept stems lie.
    """

    store: "Store"
    settings: "SettingsFile"
    tasks: "Tasks"
    notices: "Notices"
    player: "Player"
    devices: "AudioBackend"
    data_folder: Path


class Page(QWidget):
    """One page of the window; a subclass's constructor takes the AppContext and nothing else.

    The window calls `on_shown` and `on_hidden` as pages change, and `shut_down` once, before it closes: stop timers,
    devices and threads there. Space, when no control wants it, arrives at `toggle_play`. Emitting `songs_offered` takes
    files to the Convert page.
    """

    songs_offered = Signal(list)  # paths for the Convert page

    def __init__(self, context: AppContext) -> None:
        super().__init__()
        self.context = context

    def on_shown(self) -> None:
        """The page came to the front."""

    def on_hidden(self) -> None:
        """Another page came to the front."""

    def toggle_play(self) -> None:
        """Space was pressed."""

    def shut_down(self) -> None:
        """The window is closing."""

    def page_layout(self, title: str, subtitle: str = "") -> tuple[QVBoxLayout, QHBoxLayout]:
        """Start the page as all pages start.

        Args:
            title: The heading.
            subtitle: One quiet line beside it.

        Returns:
            The page's vertical layout, and the heading's row for buttons at its right end.
        """
        column = QVBoxLayout(self)
        column.setContentsMargins(Space.L, Space.M, Space.L, Space.L)
        column.setSpacing(Space.M)
        head = QHBoxLayout()
        head.setSpacing(Space.S)
        head.addStrut(_HEAD_HEIGHT)
        heading = QLabel(title)
        heading.setFont(title_font(heading.font()))
        head.addWidget(heading)
        quiet = QLabel(subtitle)
        quiet.setProperty("muted", "true")
        head.addWidget(quiet)
        head.addStretch(1)
        column.addLayout(head)
        return column, head
