"""Settings: appearance, where sound goes, where things lie, the shortcuts."""

import functools
from pathlib import Path
from typing import Any

from PySide6.QtCore import Qt, QUrl
from PySide6.QtGui import QDesktopServices, QKeySequence
from PySide6.QtWidgets import QFormLayout, QGridLayout, QScrollArea, QSlider, QVBoxLayout, QWidget

from autovoice_app import __version__
from autovoice_app.assets import APPEARANCES, Space
from autovoice_app.context import AppContext, Page
from autovoice_app.tasks import FILES
from autovoice_app.widgets.basics import (
    add_row,
    fill_combo,
    make_button,
    make_card,
    make_combo,
    make_form,
    make_heading,
    make_label,
)
from engine.jobs import JobContext

SHORTCUTS = (
    ("Space", "Play or pause"),
    ("Ctrl+O", "Open songs"),
    ("Ctrl+Return", "Convert"),
    ("Ctrl+E", "Export the mix and the stems"),
    ("Ctrl+Z", "Undo the last pitch edit"),
    ("Ctrl+Shift+Z", "Redo it"),
    ("Left", "In a plot: 5 seconds back; Right: forward"),
    ("Shift+Right", "In a plot: select from the cursor on; Shift+Left: back; with Ctrl: faster"),
    ("Up", "In the pitch view: selection one semitone up; Down: down"),
    ("+", "In a plot: zoom in; -: out; 0: the whole song"),
    ("Ctrl+1", "First page, Ctrl+2 the second, and so on"),
    ("Ctrl+,", "This page"),
)


class SettingsPage(Page):
    """Everything that is not chosen on the other pages."""

    def __init__(self, context: AppContext) -> None:
        super().__init__(context)
        column, _ = self.page_layout("Settings")
        scroll = QScrollArea()
        scroll.setWidgetResizable(True)
        scroll.setAccessibleName("Settings")
        inner = QWidget()
        cards = QVBoxLayout(inner)
        cards.setContentsMargins(0, 0, 0, 0)
        cards.setSpacing(Space.M)
        for card in (self._make_choices(), self._make_folders(), self._make_shortcuts()):
            cards.addWidget(card)
        cards.addStretch(1)
        scroll.setWidget(inner)
        column.addWidget(scroll, 1)

    def on_shown(self) -> None:
        """Look for output devices anew."""
        task = self.context.tasks.create("Listing output devices", self._list_outputs, lane=FILES)
        task.finished.connect(self._show_outputs)
        task.start()

    def _make_choices(self) -> QWidget:
        settings = self.context.settings.current
        card, column = make_card()
        column.addWidget(make_heading("Appearance and sound"))
        form = make_form()
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.FieldsStayAtSizeHint)
        self.appearance = make_combo(
            "Appearance",
            "Light or dark colours, or as the desktop has them",
            [(label, key) for key, label in APPEARANCES.items()],
            settings.appearance,
        )
        self.appearance.setMinimumContentsLength(16)
        self.appearance.activated.connect(
            lambda: self.context.settings.update(appearance=self.appearance.currentData())
        )
        add_row(form, "Appearance", self.appearance)
        self.output = make_combo("Output device", "Where songs and previews are played", [("System default", "")])
        self.output.setMinimumContentsLength(28)
        self.output.activated.connect(lambda: self.context.settings.update(output_device=self.output.currentData()))
        add_row(form, "Play through", self.output)
        self.volume = QSlider(Qt.Orientation.Horizontal)
        self.volume.setRange(0, 100)
        self.volume.setValue(round(settings.volume * 100))
        self.volume.setFixedWidth(280)
        self.volume.setToolTip("How loud songs and previews are played; files are not changed")
        self.volume.setAccessibleName("Playback volume")
        self.volume.valueChanged.connect(lambda value: self.context.settings.update(volume=value / 100))
        add_row(form, "Volume", self.volume)
        column.addLayout(form)
        return card

    def _make_folders(self) -> QWidget:
        card, column = make_card()
        column.addWidget(make_heading("Folders"))
        column.addWidget(
            make_label(
                "Voices, history and settings lie in the data folder; nothing is sent anywhere.", muted=True, wrap=True
            )
        )
        grid = QGridLayout()
        grid.setHorizontalSpacing(Space.L)
        for row, (name, path) in enumerate(
            (("Data folder", self.context.data_folder), ("Log folder", self.context.data_folder / "logs"))
        ):
            grid.addWidget(make_label(name), row, 0)
            shown = make_label(str(path), muted=True, wrap=True)
            shown.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
            grid.addWidget(shown, row, 1)
            button = make_button("Open", f"Show the {name.lower()} in the file manager", functools.partial(_show, path))
            button.setAccessibleName(f"Open the {name.lower()}")
            grid.addWidget(button, row, 2)
        grid.setColumnStretch(1, 1)
        column.addLayout(grid)
        return card

    def _make_shortcuts(self) -> QWidget:
        card, column = make_card()
        column.addWidget(make_heading("Keyboard"))
        grid = QGridLayout()
        grid.setHorizontalSpacing(Space.L)
        grid.setVerticalSpacing(Space.XS)
        for row, (keys, meaning) in enumerate(SHORTCUTS):
            text = QKeySequence(keys).toString(QKeySequence.SequenceFormat.NativeText)
            grid.addWidget(make_label(text), row, 0)
            grid.addWidget(make_label(meaning, muted=True), row, 1)
        grid.setColumnStretch(1, 1)
        column.addLayout(grid)
        column.addWidget(make_label(f"AutoVoice {__version__}, Apache-2.0 licence", muted=True))
        return card

    def _list_outputs(self, ctx: JobContext) -> list[tuple[str, str]]:
        devices = self.context.devices.devices(refresh=not self.context.player.is_playing)
        return [(f"{d.name} ({d.host_api})", d.id) for d in devices if d.max_output_channels]

    def _show_outputs(self, found: Any) -> None:
        wanted = self.context.settings.current.output_device
        items = [("System default", ""), *found]
        if wanted and wanted not in [data for _, data in found]:
            items.append((f"{wanted} (not there now)", wanted))
        fill_combo(self.output, items, wanted)


def _show(path: Path) -> None:
    path.mkdir(parents=True, exist_ok=True)
    QDesktopServices.openUrl(QUrl.fromLocalFile(str(path)))
