"""The dialog that asks what to export, as what and where."""

from dataclasses import dataclass
from pathlib import Path

from PySide6.QtWidgets import QCheckBox, QDialog, QFileDialog, QGridLayout, QHBoxLayout, QLineEdit, QVBoxLayout, QWidget

from autovoice_app.assets import Space
from autovoice_app.settings import SettingsFile
from autovoice_app.widgets.basics import make_button, make_combo, make_heading, make_label

FORMATS = (
    ("WAV, 24 bit", "wav"),
    ("FLAC, lossless", "flac"),
    ("MP3", "mp3"),
    ("Ogg Vorbis", "ogg"),
    ("Opus", "opus"),
    ("M4A (AAC)", "m4a"),
)


@dataclass(frozen=True)
class Exportable:
    """One thing that can be written.

    Attributes:
        key: Ending of the file's name.
        label: For people.
        tip: What it is, one line.
        path: The sound.
    """

    key: str
    label: str
    tip: str
    path: Path


class ExportDialog(QDialog):
    """Mix and stems of one song, as checkboxes, a format and a folder."""

    def __init__(
        self, title: str, stem: str, items: list[Exportable], settings: SettingsFile, parent: QWidget | None = None
    ) -> None:
        super().__init__(parent)
        self.setWindowTitle(f"Export {title}")
        self._stem, self._settings = stem, settings
        self._items = items
        column = QVBoxLayout(self)
        column.setSpacing(Space.M)
        column.setContentsMargins(Space.L, Space.L, Space.L, Space.L)
        column.addWidget(make_heading(f"Export {title}"))
        self.boxes: dict[str, QCheckBox] = {}
        for number, item in enumerate(items):
            box = QCheckBox(item.label)
            box.setChecked(number == 0)
            box.setToolTip(item.tip)
            box.setAccessibleName(f"Export {item.label.lower()}")
            box.toggled.connect(self._check)
            self.boxes[item.key] = box
            column.addWidget(box)
        grid = QGridLayout()
        grid.setHorizontalSpacing(Space.M)
        self.format = make_combo("Format", "The kind of file", list(FORMATS), settings.current.export_format)
        grid.addWidget(make_label("Format", buddy=self.format), 0, 0)
        grid.addWidget(self.format, 0, 1)
        self.folder = QLineEdit(settings.current.export_folder or str(_music_folder()))
        self.folder.setToolTip("The folder that the files are written to")
        self.folder.setAccessibleName("Export folder")
        self.folder.setMinimumWidth(320)
        self.folder.textChanged.connect(self._check)
        grid.addWidget(make_label("Folder", buddy=self.folder), 1, 0)
        row = QHBoxLayout()
        row.addWidget(self.folder, 1)
        row.addWidget(make_button("Browse…", "Choose the folder", self._browse, icon_name="folder-open"))
        grid.addLayout(row, 1, 1)
        column.addLayout(grid)
        self._note = make_label(muted=True, wrap=True)
        column.addWidget(self._note)
        buttons = QHBoxLayout()
        buttons.addStretch(1)
        buttons.addWidget(make_button("Cancel", "Write nothing", self.reject))
        self.export_button = make_button("Export", "Write the chosen files", self.accept, primary=True)
        self.export_button.setDefault(True)
        buttons.addWidget(self.export_button)
        column.addLayout(buttons)
        self._check()

    @property
    def chosen(self) -> list[tuple[Path, Path]]:
        """(source, destination) of what is ticked."""
        folder, ending = Path(self.folder.text()).expanduser(), self.format.currentData()
        return [
            (item.path, folder / f"{self._stem} ({item.key}).{ending}")
            for item in self._items
            if self.boxes[item.key].isChecked()
        ]

    def accept(self) -> None:
        """Remember format and folder."""
        self._settings.update(export_format=self.format.currentData(), export_folder=self.folder.text())
        super().accept()

    def _check(self) -> None:
        folder = Path(self.folder.text()).expanduser()
        is_there = folder.is_dir()
        present = [destination.name for _, destination in self.chosen if is_there and destination.exists()]
        if not is_there:
            self._note.setText("There is no such folder.")
        elif present:
            self._note.setText(f"Will be replaced: {', '.join(present)}.")
        else:
            self._note.setText("")
        self.export_button.setEnabled(is_there and bool(self.chosen))

    def _browse(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, "Folder for the exported files", self.folder.text())
        if folder:
            self.folder.setText(folder)


def _music_folder() -> Path:
    from PySide6.QtCore import QStandardPaths

    music = Path(QStandardPaths.writableLocation(QStandardPaths.StandardLocation.MusicLocation))
    return music if music.is_dir() else Path.home()
