"""Mixing two or more voices: weights, a preview to hear, and the new voice."""

import functools
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import QDialog, QGridLayout, QHBoxLayout, QLabel, QLineEdit, QSlider, QVBoxLayout, QWidget

from autovoice_app.assets import Space
from autovoice_app.context import AppContext
from autovoice_app.tasks import ENGINE, FILES, EngineTask
from autovoice_app.widgets.basics import make_button, make_combo, make_icon_button, make_label
from engine.errors import AutoVoiceError
from engine.jobs import JobContext
from engine.signal import write_audio
from engine.store import VoiceRecord

_FEWEST, _MOST = 2, 6


class BlendDialog(QDialog):
    """Chooses voices and weights."""

    made = Signal(object)  # VoiceRecord

    def __init__(
        self,
        context: AppContext,
        records: Sequence[VoiceRecord],
        chosen: Sequence[VoiceRecord],
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(parent)
        self.context = context
        self._records = {record.id: record for record in sorted(records, key=lambda one: one.name.casefold())}
        self._task: EngineTask | None = None
        self._folder = tempfile.TemporaryDirectory(prefix="autovoice-blend-", ignore_cleanup_errors=True)
        self._previews = 0
        self.rows: list[_Row] = []
        self.setWindowTitle("Blend voices")
        self.setMinimumWidth(560)
        column = QVBoxLayout(self)
        column.setContentsMargins(Space.L, Space.L, Space.L, Space.L)
        column.setSpacing(Space.M)
        column.addWidget(
            make_label("The new voice lies between these, nearer to the heavier ones.", muted=True, wrap=True)
        )
        self._grid = QGridLayout()
        self._grid.setColumnStretch(1, 1)
        self._grid.setHorizontalSpacing(Space.M)
        column.addLayout(self._grid)
        self.add_button = make_button(
            "Add a voice", "One more voice in the mix", lambda: self.add_row(), icon_name="plus"
        )
        column.addWidget(self.add_button, 0, Qt.AlignmentFlag.AlignLeft)
        self.name_line = QLineEdit()
        self.name_line.setPlaceholderText("Name of the new voice")
        self.name_line.setAccessibleName("Name of the new voice")
        self.name_line.setToolTip("How the blend is called")
        self.name_line.setMaxLength(80)
        self.name_line.textChanged.connect(self._follow)
        column.addWidget(self.name_line)
        self.said_label = make_label(wrap=True)
        column.addWidget(self.said_label)
        column.addStretch(1)
        row = QHBoxLayout()
        self.preview_button = make_button(
            "Preview", "Hear the mix before it is kept", self.preview, icon_name="play-fill"
        )
        row.addWidget(self.preview_button)
        row.addStretch(1)
        row.addWidget(make_button("Cancel", "Close without a new voice", self.reject))
        self.make_button = make_button("Make the blend", "Keeps the mix as a new voice", self.make_blend, primary=True)
        row.addWidget(self.make_button)
        column.addLayout(row)
        others = [record for record in self._records.values() if record not in chosen]
        for record in [*chosen, *others][:_FEWEST]:
            self.add_row(record)

    def add_row(self, record: VoiceRecord | None = None) -> None:
        """Put one more voice into the mix."""
        used = {row.combo.currentData() for row in self.rows}
        record = record or next((one for one in self._records.values() if one.id not in used), None)
        if record is None or len(self.rows) >= _MOST:
            return
        self.rows.append(_Row(self, record))
        self._lay_out()

    def remove_row(self, row: "_Row") -> None:
        """Take a voice out of the mix."""
        if len(self.rows) > _FEWEST:
            self.rows.remove(row)
            row.remove()
            self._lay_out()

    @property
    def parts(self) -> list[tuple[VoiceRecord, float]]:
        """The voices with their weights, those of weight 0 left out."""
        found = [(self._records[row.combo.currentData()], row.slider.value() / 100) for row in self.rows]
        return [(record, weight) for record, weight in found if weight > 0]

    def preview(self) -> None:
        """Convert some seconds to the mix and play them."""
        from autovoice_app.views.voices_samples import preview_source
        from engine.enrollment import blended, preview

        parts, store = self.parts, self.context.store
        self._previews += 1
        path = Path(self._folder.name) / f"preview-{self._previews}.flac"

        def work(ctx: JobContext) -> Path:
            voice = blended(store, "Preview", parts)
            write_audio(path, preview(voice, preview_source(), ctx=ctx))
            return path

        self._run("Making a preview", work, self._play, ENGINE)

    def make_blend(self) -> None:
        """Keep the mix."""
        from engine.enrollment import blend

        name, parts = self.name_line.text(), self.parts
        self._run("Blending", lambda ctx: blend(self.context.store, name, parts), self._finish, FILES)

    def done(self, result: int) -> None:
        """Let go of the preview."""
        if self._task is not None:
            self._task.cancel()
        if self.context.player.path is not None and Path(self._folder.name) in self.context.player.path.parents:
            self.context.player.unload()
        self._folder.cleanup()
        super().done(result)

    def _run(self, title: str, work: Any, then: Any, lane: str) -> None:
        self.said_label.setText(f"{title}…")
        self._task = self.context.tasks.create(title, work, lane=lane)
        self._task.finished.connect(then)
        self._task.failed.connect(self._show_error)
        self._task.ended.connect(self._ended)
        self._task.start()
        self._follow()

    def _play(self, path: Path) -> None:
        self.said_label.setText("")
        self.context.player.open(path)
        self.context.player.play()

    def _finish(self, record: object) -> None:
        self._task = None
        self.made.emit(record)
        self.accept()

    def _ended(self) -> None:
        self._task = None
        self._follow()

    def _show_error(self, error: BaseException) -> None:
        text = f"{error.message} {error.hint}".strip() if isinstance(error, AutoVoiceError) else ""
        self.said_label.setText(text)

    def _lay_out(self) -> None:
        for number, row in enumerate(self.rows):
            for place, widget in enumerate(row.widgets):
                self._grid.addWidget(widget, number, place)
            row.remove_button.setEnabled(len(self.rows) > _FEWEST)
        self.add_button.setEnabled(len(self.rows) < min(_MOST, len(self._records)))
        self._follow()

    def _follow(self) -> None:
        parts = self.parts
        total = sum(weight for _, weight in parts) or 1.0
        for row in self.rows:
            row.share.setText(f"{row.slider.value() / 100 / total:.0%}")
        different = len({record.id for record, _ in parts}) >= _FEWEST
        busy = self._task is not None
        self.preview_button.setEnabled(different and not busy)
        self.make_button.setEnabled(different and not busy and bool(self.name_line.text().strip()))


class _Row:
    """One voice of the mix."""

    def __init__(self, dialog: BlendDialog, record: VoiceRecord) -> None:
        items = [(one.name, one.id) for one in dialog._records.values()]
        self.combo = make_combo("Voice", "A voice of the mix", items, record.id)
        self.combo.currentIndexChanged.connect(dialog._follow)
        self.slider = QSlider(Qt.Orientation.Horizontal)
        self.slider.setRange(0, 100)
        self.slider.setValue(50)
        self.slider.setAccessibleName("Weight")
        self.slider.setToolTip("How much of this voice is in the mix")
        self.slider.valueChanged.connect(dialog._follow)
        self.share = QLabel("50%")
        self.share.setMinimumWidth(44)
        self.remove_button = make_icon_button(
            "x", "Remove", "Take this voice out of the mix", functools.partial(dialog.remove_row, self)
        )

    @property
    def widgets(self) -> tuple[QWidget, ...]:
        return (self.combo, self.slider, self.share, self.remove_button)

    def remove(self) -> None:
        for widget in self.widgets:
            widget.hide()
            widget.deleteLater()
