"""The plots of the song in front, waveform over pitch, with the tools to zoom and to edit the pitch."""

from collections.abc import Callable

from PySide6.QtCore import Signal
from PySide6.QtWidgets import QFrame, QHBoxLayout, QVBoxLayout, QWidget

from autovoice_app import songs
from autovoice_app.assets import Space
from autovoice_app.pitch_edits import PitchEdits
from autovoice_app.songs import Song, State
from autovoice_app.widgets.basics import make_icon_button, make_label
from autovoice_app.widgets.pitch_view import PitchView
from autovoice_app.widgets.time_axis import AxisScrollBar, TimeAxis
from autovoice_app.widgets.waveform import WaveformView

_ACCENTED = (songs.CONVERTED, songs.CONVERTED_VOCALS)


class PlotsCard(QFrame):
    """Shows a song on one time axis and lets its pitch be edited."""

    edited = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setProperty("card", "true")
        self._song: Song | None = None
        self.axis = TimeAxis(self)
        self.waveform = WaveformView(self.axis)
        self.pitch = PitchView(self.axis)
        self.pitch.edited.connect(self._tell_edit)
        self.axis.selection_changed.connect(self.show_tools)
        column = QVBoxLayout(self)
        column.setContentsMargins(Space.M, Space.M, Space.M, Space.M)
        column.setSpacing(Space.S)
        column.addLayout(self._make_tools())
        column.addWidget(self.waveform, 2)
        column.addWidget(self.pitch, 3)
        column.addWidget(AxisScrollBar(self.axis))

    def show_song(self, song: Song | None, version: str, transpose_semitones: float) -> None:
        """Draw a song, or another state of the one that is drawn.

        Args:
            song: None for empty plots.
            version: Which one is heard; the converted ones are drawn in the accent colour.
            transpose_semitones: The chosen key, for the wanted pitch.
        """
        if song is None:
            self._song = None
            self.waveform.show_peaks(None)
            self.pitch.show_pitch(None)
            self.show_tools()
            return
        duration_s = song.duration_s or (song.reading.duration_s if song.reading else 0.0)
        if song is not self._song or self.axis.duration_s != duration_s:
            self.axis.set_duration(duration_s)
            self.axis.move_cursor(song.place_s)
        self._song = song
        is_converted = version in _ACCENTED and song.rendering is not None
        peaks = song.rendering.peaks if is_converted and song.rendering else song.peaks
        if peaks is None and song.reading is not None:
            peaks = song.reading.peaks
        unread = song.error if song.state is State.FAILED else "Reading the waveform…"
        self.waveform.show_peaks(peaks, is_accented=is_converted, message=unread)
        hint = "The melody appears here once the conversion has found it, ready to be edited."
        self.pitch.show_pitch(song.edits, transpose_semitones, hint)
        self.show_tools()

    def show_tools(self) -> None:
        """Enable the tools that would do something."""
        song, edits = self._song, self._edits
        selected = edits is not None and self.axis.selection is not None
        self.undo_button.setEnabled(edits is not None and edits.can_undo)
        self.redo_button.setEnabled(edits is not None and edits.can_redo)
        self.up_button.setEnabled(selected)
        self.down_button.setEnabled(selected)
        self.reset_button.setEnabled(edits is not None and not edits.is_empty)
        for widget in self._pitch_tools:
            widget.setVisible(edits is not None)
        is_edited = song is not None and song.has_new_edits and not song.is_busy
        self.edit_note.setText("Edited: convert again to hear it." if is_edited else "")
        self._legend.setVisible(edits is not None and not is_edited)

    def undo(self) -> None:
        """Take back the last pitch edit."""
        self._edit(PitchEdits.undo)

    def redo(self) -> None:
        """Do it again."""
        self._edit(PitchEdits.redo)

    def reset(self) -> None:
        """Take back all edits, or those of the selection."""
        selection = self.axis.selection
        self._edit(lambda edits: edits.reset(*selection) if selection else edits.reset())

    @property
    def _edits(self) -> PitchEdits | None:
        return self._song.edits if self._song is not None else None

    def _edit(self, change: Callable[[PitchEdits], None]) -> None:
        if self._edits is not None:
            change(self._edits)
            self._tell_edit()

    def _tell_edit(self) -> None:
        if self._song is not None:
            self._song.changed.emit()
        self.show_tools()
        self.edited.emit()

    def _make_tools(self) -> QHBoxLayout:
        row = QHBoxLayout()
        row.setSpacing(Space.XS)
        self.undo_button = make_icon_button(
            "arrow-counter-clockwise", "Undo", "Take back the last pitch edit", self.undo, keys="Ctrl+Z"
        )
        self.redo_button = make_icon_button(
            "arrow-clockwise", "Redo", "Do the pitch edit again", self.redo, keys="Ctrl+Shift+Z"
        )
        self.up_button = make_icon_button(
            "arrow-up", "Semitone up", "Selection one semitone up", lambda: self.pitch.shift_selection(1.0), keys="Up"
        )
        self.down_button = make_icon_button(
            "arrow-down",
            "Semitone down",
            "Selection one semitone down",
            lambda: self.pitch.shift_selection(-1.0),
            keys="Down",
        )
        self.reset_button = make_icon_button(
            "eraser", "Reset pitch", "Take back all pitch edits, or those of the selection", self.reset
        )
        self._legend = make_label("Grey: as sung. Coloured: as wanted.", muted=True)
        self.edit_note = make_label()
        self._pitch_tools = (
            self.undo_button,
            self.redo_button,
            self.up_button,
            self.down_button,
            self.reset_button,
        )
        for widget in (*self._pitch_tools, self._legend, self.edit_note):
            row.addWidget(widget)
        row.addStretch(1)
        for name, title, tip, act, keys in (
            ("magnifying-glass-minus", "Zoom out", "Show more of the song", lambda: self.axis.zoom(1 / 0.6), "-"),
            ("magnifying-glass-plus", "Zoom in", "Show less of the song, larger", lambda: self.axis.zoom(0.6), "+"),
            ("arrows-out-line-horizontal", "Whole song", "Show the whole song", self.axis.fit, "0"),
        ):
            row.addWidget(make_icon_button(name, title, tip, act, keys=keys))
        return row
