"""The window's one player: a Qt front of the engine's OutputPlayer."""

from pathlib import Path

from PySide6.QtCore import QObject, QTimer, Signal

from autovoice_app.notices import Notices
from autovoice_app.settings import Settings, SettingsFile
from engine.devices.backend import AudioBackend
from engine.devices.playback import OutputPlayer


class Player(QObject):
    """Plays one file at a time; failures become notices.

    A page that opens a file takes the player over: `changed` tells the other pages, which compare `path`.
    """

    changed = Signal()  # path, is_playing or duration_s
    moved = Signal(float)  # position, s; 30 times a second while playing, and after a seek
    _news = Signal()

    def __init__(
        self, devices: AudioBackend, settings: SettingsFile, notices: Notices, parent: QObject | None = None
    ) -> None:
        super().__init__(parent)
        self._notices, self._settings = notices, settings
        self._player = OutputPlayer(devices, self._news.emit)
        self._news.connect(self._take_news)
        self._path: Path | None = None
        self._device = ""
        self._wanted_s: float | None = None
        self._timer = QTimer(self, interval=33)
        self._timer.timeout.connect(lambda: self.moved.emit(self.position_s))
        self._use_settings(settings.current)
        settings.changed.connect(self._use_settings)

    @property
    def path(self) -> Path | None:
        """The file that was last asked for."""
        return self._path

    @property
    def is_playing(self) -> bool:
        """Whether it sounds."""
        return self._player.state.is_playing

    @property
    def position_s(self) -> float:
        """The place in the file, s."""
        return self._player.position_s if self._wanted_s is None else self._wanted_s

    @property
    def duration_s(self) -> float:
        """Of the file, s; 0 until it was opened."""
        return self._player.state.duration_s

    def open(self, path: Path, *, position_s: float | None = 0.0) -> None:
        """Take a file; `position_s` None keeps the place (A/B), and a sound that plays goes on playing."""
        if position_s is not None:
            self._player.pause()
        self._path, self._wanted_s = path, position_s
        self._player.load(path, position_s=position_s)
        self.changed.emit()

    def play(self) -> None:
        """Play from the present place."""
        self._player.play()

    def pause(self) -> None:
        """Fall silent and keep the place."""
        self._player.pause()

    def toggle(self) -> None:
        """Play or pause."""
        if self.is_playing:
            self.pause()
        else:
            self.play()

    def seek(self, position_s: float) -> None:
        """Go elsewhere in the file, s."""
        self._wanted_s = position_s
        self._player.seek(position_s)
        self.moved.emit(position_s)

    def unload(self) -> None:
        """Fall silent and let go of the file and the device (before live mode takes it, say)."""
        self._path, self._wanted_s = None, None
        self._player.unload()

    def shut_down(self) -> None:
        """End the player's thread."""
        self._timer.stop()
        self._player.close()

    def _use_settings(self, settings: Settings) -> None:
        self._player.volume = settings.volume
        if settings.output_device != self._device:
            self._device = settings.output_device
            self._player.use_device(self._device)

    def _take_news(self) -> None:
        self._wanted_s = None
        state = self._player.state
        if state.is_playing and not self._timer.isActive():
            self._timer.start()
        elif not state.is_playing:
            self._timer.stop()
        if state.error is not None:
            self._path = state.path  # what was asked for could not be opened
            self._notices.error(state.error)
        self.moved.emit(self.position_s)
        self.changed.emit()
