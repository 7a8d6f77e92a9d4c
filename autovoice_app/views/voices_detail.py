"""The chosen voice: what is known of it, and the buttons that act on it."""

from PySide6.QtCore import Qt, QTimer, Signal
from PySide6.QtGui import QFocusEvent
from PySide6.QtWidgets import QGridLayout, QHBoxLayout, QPlainTextEdit, QProgressBar, QScrollArea, QVBoxLayout, QWidget

from autovoice_app.assets import Space
from autovoice_app.tasks import EngineTask
from autovoice_app.views.voices_cards import made_text, pitch_text, used_text
from autovoice_app.widgets.basics import about, make_button, make_card, make_heading, make_label
from engine.store import VoiceRecord

_WIDTH = 304


class _Notes(QPlainTextEdit):
    """A few lines of text that tell when the user has left them."""

    left = Signal()

    def focusOutEvent(self, event: QFocusEvent) -> None:
        super().focusOutEvent(event)
        self.left.emit()


class VoiceDetail(QScrollArea):
    """Shows one voice; every wish is a signal, the page does the work."""

    play_asked = Signal()
    rename_asked = Signal()
    picture_asked = Signal()
    duplicate_asked = Signal()
    export_asked = Signal()
    delete_asked = Signal()
    improve_asked = Signal()
    cancel_asked = Signal()
    undo_asked = Signal()
    notes_changed = Signal(object, str)  # VoiceRecord, notes

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._record: VoiceRecord | None = None
        self._task: EngineTask | None = None
        self.setWidgetResizable(True)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setMinimumWidth(_WIDTH)
        self.setMaximumWidth(_WIDTH + 60)
        self.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self._inside = QWidget()
        outer = QVBoxLayout(self._inside)
        outer.setContentsMargins(Space.S, 0, 0, 0)
        card, column = make_card()
        outer.addWidget(card)
        outer.addStretch(1)
        self.name = make_heading("")
        self.name.setWordWrap(True)
        self.name.setTextFormat(Qt.TextFormat.PlainText)
        self.facts = make_label(muted=True, wrap=True)
        self.messages = make_label(wrap=True)
        self.consent = make_label(wrap=True)
        self.consent.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.play_button = make_button(
            "Play sample", "Hear this voice (Space)", self.play_asked.emit, icon_name="play-fill"
        )
        for widget in (self.name, self.facts, self.messages, self.play_button):
            column.addWidget(widget)
        column.addWidget(make_label("Consent", muted=True))
        column.addWidget(self.consent)
        self.notes = _Notes()
        self.notes.setPlaceholderText("Your notes")
        self.notes.setAccessibleName("Notes")
        self.notes.setToolTip("Anything you want to remember of this voice; saved when you leave the field")
        self.notes.setFixedHeight(64)
        self.notes.setTabChangesFocus(True)
        self.notes.left.connect(self.save_notes)
        column.addWidget(make_label("Notes", muted=True, buddy=self.notes))
        column.addWidget(self.notes)
        column.addLayout(self._make_buttons())
        column.addWidget(self._make_progress())
        self.setWidget(self._inside)
        self._timer = QTimer(self, interval=250)
        self._timer.timeout.connect(self._show_progress)
        self.show_record(None)

    def show_record(self, record: VoiceRecord | None) -> None:
        """Show a voice, or nothing."""
        self.save_notes()
        before, self._record = self._record, record
        self._inside.setVisible(record is not None)
        if record is None:
            return
        self.name.setText(record.name)
        facts = (made_text(record), pitch_text(record), _kept_text(record), used_text(record))
        self.facts.setText("\n".join(fact for fact in facts if fact))
        self.messages.setText("\n".join(record.messages))
        self.messages.setVisible(bool(record.messages))
        self.consent.setText(record.consent or "Nothing was noted when this voice was made.")
        if before is None or before.id != record.id or not self.notes.hasFocus():
            self.notes.setPlainText(record.notes)
        own = not record.builtin
        self.notes.setReadOnly(not own)
        for button in (self.rename_button, self.picture_button, self.delete_button):
            button.setEnabled(own)
        self.improve_button.setEnabled(own and record.num_recordings > 0)
        self.undo_button.setVisible(record.is_improved)

    def save_notes(self) -> None:
        """Tell of changed notes."""
        record = self._record
        if record is not None and not record.builtin and self.notes.toPlainText() != record.notes:
            notes = self.notes.toPlainText()[:4000]
            self._record = None  # told once; the page shows the changed record again
            self.notes_changed.emit(record, notes)

    def show_playing(self, playing: bool) -> None:
        """Whether the voice's sample sounds."""
        from autovoice_app.assets import icon

        self.play_button.setText("Pause sample" if playing else "Play sample")
        self.play_button.setIcon(icon("pause-fill" if playing else "play-fill"))

    def show_task(self, task: EngineTask | None) -> None:
        """Show how the improvement of this voice gets on, or that none is under way."""
        self._task = task
        self.progress_row.setVisible(task is not None)
        self.improve_button.setVisible(task is None)
        if task is not None:
            self._timer.start()
            self._show_progress()
        else:
            self._timer.stop()

    def _make_buttons(self) -> QGridLayout:
        grid = QGridLayout()
        grid.setSpacing(Space.S)
        self.rename_button = make_button("Rename…", "Give this voice another name (F2)", self.rename_asked.emit)
        self.picture_button = make_button("Picture…", "Choose a picture for the card", self.picture_asked.emit)
        self.duplicate_button = make_button(
            "Duplicate", "Copy this voice with its recordings", self.duplicate_asked.emit
        )
        self.export_button = make_button("Export…", "Write this voice as one .autovoice file", self.export_asked.emit)
        self.improve_button = make_button(
            "Improve",
            "Fine-tune on this voice's recordings, in the background; kept only when it sounds closer",
            self.improve_asked.emit,
            icon_name="sparkle",
        )
        self.undo_button = make_button(
            "Undo improving", "Go back to the voice before it was improved", self.undo_asked.emit
        )
        self.delete_button = make_button(
            "Delete", "Delete this voice; it can be brought back", self.delete_asked.emit, danger=True
        )
        buttons = (
            self.improve_button,
            self.undo_button,
            self.rename_button,
            self.picture_button,
            self.duplicate_button,
            self.export_button,
        )
        grid.addWidget(buttons[0], 0, 0, 1, 2)
        grid.addWidget(buttons[1], 1, 0, 1, 2)
        for number, button in enumerate(buttons[2:]):
            grid.addWidget(button, 2 + number // 2, number % 2)
        grid.addWidget(self.delete_button, 4, 0, 1, 2)
        return grid

    def _make_progress(self) -> QWidget:
        self.progress_row = QWidget()
        column = QVBoxLayout(self.progress_row)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(Space.XS)
        self.progress_label = make_label("Improving", muted=True, wrap=True)
        column.addWidget(self.progress_label)
        row = QHBoxLayout()
        self.progress_bar = QProgressBar()
        self.progress_bar.setRange(0, 1000)
        self.progress_bar.setTextVisible(False)
        self.progress_bar.setAccessibleName("Progress of improving")
        self.progress_bar.setToolTip("How far improving this voice has come")
        row.addWidget(self.progress_bar, 1)
        row.addWidget(make_button("Cancel", "Stop improving; the voice stays as it is", self.cancel_asked.emit))
        column.addLayout(row)
        self.progress_row.setVisible(False)
        return self.progress_row

    def _show_progress(self) -> None:
        if self._task is None or self._task.is_ended:
            return
        progress = self._task.ctx.progress
        left = self._task.seconds_left
        stage = progress.stage if self._task.is_running else "Waiting for another job"
        self.progress_label.setText(f"{stage or 'Improving'}{f', {about(left)} left' if left else ''}")
        self.progress_bar.setValue(round(1000 * progress.fraction))


def _kept_text(record: VoiceRecord) -> str:
    if record.builtin or not record.num_recordings:
        return ""
    return "1 recording kept" if record.num_recordings == 1 else f"{record.num_recordings} recordings kept"
