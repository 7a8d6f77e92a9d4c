"""Play, pause, where it stands, how loud, and A/B between the versions of one song."""

from pathlib import Path

from PySide6.QtCore import QSize, Qt, Signal
from PySide6.QtWidgets import QButtonGroup, QHBoxLayout, QPushButton, QSlider, QWidget

from autovoice_app.assets import Space, icon
from autovoice_app.context import AppContext
from autovoice_app.widgets.basics import clock, make_icon_button, make_label, with_keys


class PlayerBar(QWidget):
    """Plays versions of one song through the window's player and keeps the place when switching between them.

    Args:
        context: The player and the volume's setting.
        versions: (key, label, tooltip) of the versions that a song can have, in order; each has a number key.
    """

    version_chosen = Signal(str)

    def __init__(
        self, context: AppContext, versions: tuple[tuple[str, str, str], ...], parent: QWidget | None = None
    ) -> None:
        super().__init__(parent)
        self._context, self._player = context, context.player
        self._paths: dict[str, Path] = {}
        self._place_s = 0.0
        self.version = versions[0][0]
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(Space.S)
        self.play_button = make_icon_button("play-fill", "Play", "Play or pause", self.toggle, keys="Space")
        self.play_button.setIconSize(QSize(24, 24))
        row.addWidget(self.play_button)
        self.time_label = make_label("0:00 / 0:00")
        self.time_label.setMinimumWidth(self.time_label.fontMetrics().horizontalAdvance("00:00 / 00:00") + 4)
        row.addWidget(self.time_label)
        self.buttons: dict[str, QPushButton] = {}
        choice = QHBoxLayout()
        choice.setSpacing(Space.XS)
        row.addLayout(choice)
        self._group = QButtonGroup(self)
        for number, (key, label, tip) in enumerate(versions, start=1):
            button = QPushButton(label)
            button.setCheckable(True)
            button.setProperty("compact", "true")
            button.setToolTip(with_keys(tip, str(number)))
            button.setAccessibleName(f"Hear {label.lower()}")
            button.setFocusPolicy(Qt.FocusPolicy.TabFocus)
            button.setShortcut(str(number))
            button.clicked.connect(lambda _checked, key=key: self.choose(key))
            self._group.addButton(button)
            self.buttons[key] = button
            choice.addWidget(button)
        row.addStretch(1)
        self._loud = make_icon_button("speaker-high", "Mute", "Silence the player, or bring the sound back", self._mute)
        row.addWidget(self._loud)
        self.volume = QSlider(Qt.Orientation.Horizontal)
        self.volume.setRange(0, 100)
        self.volume.setFixedWidth(72)
        self.volume.setToolTip("How loud it is played; files are not changed")
        self.volume.setAccessibleName("Playback volume")
        self.volume.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        self.volume.setValue(round(context.settings.current.volume * 100))
        self.volume.valueChanged.connect(lambda value: context.settings.update(volume=value / 100))
        row.addWidget(self.volume)
        context.settings.changed.connect(self._follow_settings)
        self._before_mute = self.volume.value() or 80
        self._player.changed.connect(self._follow)
        self._player.moved.connect(self._move)
        self.show_versions({}, 0.0)

    def show_versions(self, paths: dict[str, Path], duration_s: float, *, place_s: float = 0.0) -> None:
        """Offer the versions that exist.

        Args:
            paths: Version key -> file; missing keys are disabled.
            duration_s: Of the song.
            place_s: Where to stand, when none of these files is in the player.
        """
        self._paths, self._duration_s, self._place_s = paths, duration_s, place_s
        for key, button in self.buttons.items():
            button.setEnabled(key in paths)
        self.play_button.setEnabled(bool(paths))
        if self.version not in paths and paths:
            self.version = next(key for key in self.buttons if key in paths)
        if self.version in paths:
            self.buttons[self.version].setChecked(True)
            if self._player.path not in paths.values():
                self._player.open(paths[self.version], position_s=place_s)
            elif self._player.path != paths[self.version]:
                self._player.open(paths[self.version], position_s=None)
        self._follow()

    @property
    def is_ours(self) -> bool:
        """Whether the player holds a version of this song."""
        return self._player.path is not None and self._player.path in self._paths.values()

    @property
    def position_s(self) -> float:
        """Where it stands, s."""
        return self._player.position_s if self.is_ours else self._place_s

    def choose(self, key: str) -> None:
        """Hear another version from the same place on."""
        if key not in self._paths:
            return
        self.version = key
        self.buttons[key].setChecked(True)
        place_s = None if self.is_ours else self._place_s
        self._player.open(self._paths[key], position_s=place_s)
        self.version_chosen.emit(key)

    def toggle(self) -> None:
        """Play or pause; takes the player back when another page has it."""
        if not self._paths:
            return
        if not self.is_ours:
            self._player.open(self._paths[self.version], position_s=self._place_s)
            self._player.play()
        else:
            self._player.toggle()

    def seek(self, seconds: float) -> None:
        """Go elsewhere."""
        if self.is_ours:
            self._player.seek(seconds)
        else:
            self._place_s = seconds
            self._show_time(seconds)

    def _mute(self) -> None:
        if self.volume.value():
            self._before_mute = self.volume.value()
            self.volume.setValue(0)
        else:
            self.volume.setValue(self._before_mute)

    def _follow_settings(self) -> None:
        value = round(self._context.settings.current.volume * 100)
        if value != self.volume.value():
            self.volume.setValue(value)
        self._loud.setIcon(icon("speaker-high" if value else "speaker-slash"))

    def _follow(self) -> None:
        playing = self.is_ours and self._player.is_playing
        self.play_button.setIcon(icon("pause-fill" if playing else "play-fill"))
        self.play_button.setAccessibleName("Pause" if playing else "Play")
        self._show_time(self.position_s)

    def _move(self, seconds: float) -> None:
        if self.is_ours:
            self._place_s = seconds
            self._show_time(seconds)

    def _show_time(self, seconds: float) -> None:
        self.time_label.setText(f"{clock(seconds)} / {clock(self._duration_s)}")
