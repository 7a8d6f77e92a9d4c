"""The wizard that makes a voice: microphone and room, takes, name and consent. Dropped files are takes as well."""

import functools
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PySide6.QtCore import Qt, QTimer, Signal
from PySide6.QtGui import QCloseEvent, QDragEnterEvent, QDropEvent
from PySide6.QtWidgets import (
    QCheckBox,
    QDialog,
    QFileDialog,
    QHBoxLayout,
    QLineEdit,
    QPlainTextEdit,
    QProgressBar,
    QScrollArea,
    QStackedWidget,
    QVBoxLayout,
    QWidget,
)

from autovoice_app.assets import Space, icon, title_font
from autovoice_app.context import AppContext
from autovoice_app.tasks import ENGINE, FILES, EngineTask
from autovoice_app.views.voices_microphone import MONITOR, ROOM, TAKE, Microphone, RollingWaveform, TargetMeter
from autovoice_app.views.voices_prompts import LANGUAGES, PROMPTS, SING
from autovoice_app.views.voices_takes import judge_files, make_take_row
from autovoice_app.widgets.basics import (
    fill_combo,
    make_button,
    make_card,
    make_combo,
    make_heading,
    make_icon_button,
    make_label,
)
from engine.devices import AudioDevice
from engine.errors import AutoVoiceError
from engine.jobs import JobContext
from engine.signal import AudioClip, write_audio

if TYPE_CHECKING:
    from engine.enrollment import Take

ROOM_S = 3.0
_SHORTEST_TAKE_S = 0.5
_SING = "sing"
_OWN_VOICE = "This is my own voice."


class VoiceWizard(QDialog):
    """Leads from a microphone or files to a voice; at every moment it says what is still missing."""

    made = Signal(object)  # VoiceRecord

    def __init__(self, context: AppContext, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.context = context
        self.takes: list[Take] = []
        self._folder = tempfile.TemporaryDirectory(prefix="autovoice-takes-", ignore_cleanup_errors=True)
        self._devices: list[AudioDevice] = []
        self._prompt, self._redo, self._count = 0, -1, 0
        self._judging = 0
        self._task: EngineTask | None = None
        self.setWindowTitle("New voice")
        self.setMinimumSize(720, 600)
        self.setAcceptDrops(True)
        self.microphone = Microphone(context, self)
        self.microphone.started.connect(self._follow_microphone)
        self.microphone.ticked.connect(self._show_levels)
        self.microphone.recorded.connect(self._take_recording)
        self.microphone.failed.connect(self._show_error)
        self._room_timer = QTimer(self, interval=round(ROOM_S * 1000), singleShot=True)
        self._room_timer.timeout.connect(self.microphone.stop)
        column = QVBoxLayout(self)
        column.setContentsMargins(Space.L, Space.L, Space.L, Space.L)
        column.setSpacing(Space.M)
        self.steps = QStackedWidget()
        for page in (self._make_microphone_step(), self._make_takes_step(), self._make_name_step()):
            self.steps.addWidget(page)
        column.addWidget(self.steps, 1)
        self.error_label = make_label(wrap=True)
        self.error_label.setVisible(False)
        column.addWidget(self.error_label)
        column.addLayout(self._make_bottom())
        self.steps.currentChanged.connect(self._enter_step)
        self._list_devices()
        self._show_prompt()
        self._follow()

    # What others call.

    def add_files(self, paths: Sequence[Path]) -> None:
        """Judge recordings and folders of them as takes."""
        self._stop_microphone()
        self.steps.setCurrentIndex(1)
        self._judging += 1
        task = self.context.tasks.create(
            "Listening to the files", functools.partial(judge_files, list(paths)), lane=FILES
        )
        task.finished.connect(self._take_files)
        task.failed.connect(self._show_error)
        task.ended.connect(self._judged)
        task.start()
        self._follow()

    def toggle_recording(self) -> None:
        """Begin a take, or end it."""
        if self.microphone.mode == TAKE:
            self.microphone.stop()
            self._follow()
            return
        self.context.player.pause()
        self._say("")
        self.microphone.start(self._device, TAKE)

    def check_room(self) -> None:
        """Listen to the room for three seconds."""
        self._say("")
        self.room_label.setText("Be quiet for three seconds…")
        self.room_button.setEnabled(False)
        self.microphone.start(self._device, ROOM)

    def make_voice(self) -> None:
        """Make the voice of the takes."""
        from engine.enrollment import enroll

        name, consent = self.name_line.text(), self.consent_text.toPlainText().strip()
        takes, reduce_noise = list(self.takes), self.noise_box.isChecked()
        self._say("")

        def work(ctx: JobContext) -> Any:
            return enroll(self.context.store, name, takes, consent=consent, reduce_noise=reduce_noise, ctx=ctx)

        self._task = self.context.tasks.create(f"Making {name}", work, lane=ENGINE)
        self._task.finished.connect(self._finish)
        self._task.failed.connect(self._show_error)
        self._task.ended.connect(self._task_ended)
        self._task.start()
        self._progress_timer.start()
        self._follow()

    @property
    def missing(self) -> str:
        """The sentence that says what is still missing."""
        from engine.enrollment import still_missing

        levels = self.microphone.levels if self.microphone.mode == TAKE else None
        wishes = still_missing(
            self.takes,
            recording_s=levels.seconds if levels else 0.0,
            held_peak_dbfs=levels.held_peak_dbfs if levels else None,
            clipped=levels.clipped if levels else False,
        )
        parts = [wishes] if wishes else []
        if self.steps.currentIndex() == 2:
            if not self.name_line.text().strip():
                parts.append("a name")
            if not self.consent_text.toPlainText().strip():
                parts.append("whose voice it is and that they agreed")
        if self._judging:
            return "Listening to the recording…"
        if parts:
            return f"Still missing: {', '.join(parts)}."
        return (
            "Nothing is missing."
            if self.steps.currentIndex() == 2
            else "That is enough for a good voice; more is welcome."
        )

    # Steps.

    def _make_microphone_step(self) -> QWidget:
        page, column = _make_step(
            "Microphone and room", "Speak as you will speak later: a hand's breadth away, not into the plosives."
        )
        row = QHBoxLayout()
        self.device_combo = make_combo("Microphone", "Which microphone records", [("System default", "")])
        self.device_combo.setMinimumContentsLength(28)
        self.device_combo.activated.connect(self._choose_device)
        row.addWidget(make_label("Microphone", buddy=self.device_combo))
        row.addWidget(self.device_combo, 1)
        refresh = make_icon_button("arrows-clockwise", "Refresh", "Look for microphones again", self._list_devices)
        row.addWidget(refresh)
        column.addLayout(row)
        self.level_meter = TargetMeter("Microphone level", "Speak: the bar should stay inside the frame")
        column.addWidget(self.level_meter)
        column.addWidget(make_label("While you speak, the bar should mostly stay inside the frame.", muted=True))
        card, inside = make_card()
        inside.addWidget(make_heading("Room"))
        self.room_label = make_label("Three seconds of silence tell how noisy the room is.", wrap=True)
        inside.addWidget(self.room_label)
        self.room_button = make_button(
            "Check the room", "Listens for three seconds; be quiet", self.check_room, icon_name="ear"
        )
        inside.addWidget(self.room_button, 0, Qt.AlignmentFlag.AlignLeft)
        column.addWidget(card)
        card, inside = make_card()
        inside.addWidget(make_heading("Recordings instead"))
        inside.addWidget(
            make_label(
                "Drop audio files or folders on this window: half a minute to five minutes of one person.", wrap=True
            )
        )
        files = make_button(
            "Choose files…", "Make the voice of recordings you have", self._choose_files, icon_name="folder-open"
        )
        inside.addWidget(files, 0, Qt.AlignmentFlag.AlignLeft)
        column.addWidget(card)
        column.addStretch(1)
        return page

    def _make_takes_step(self) -> QWidget:
        page, column = _make_step(
            "Read aloud, or sing", "One take per text; listen to it, and do it again if you like."
        )
        row = QHBoxLayout()
        items = [*((label, key) for key, label in LANGUAGES.items()), ("Sing a verse", _SING)]
        self.language_combo = make_combo(
            "Text", "Which language to read in, or singing", items, self.context.settings.current.voices_language
        )
        self.language_combo.activated.connect(self._choose_language)
        row.addWidget(make_label("Text", buddy=self.language_combo))
        row.addWidget(self.language_combo)
        row.addStretch(1)
        row.addWidget(
            make_icon_button("caret-left", "Previous text", "The text before", functools.partial(self._turn, -1))
        )
        row.addWidget(make_icon_button("caret-right", "Next text", "The text after", functools.partial(self._turn, 1)))
        column.addLayout(row)
        card, inside = make_card()
        self.prompt_label = make_label(wrap=True)
        self.prompt_label.setFont(title_font(self.prompt_label.font(), 1.3))
        self.prompt_label.setMinimumHeight(96)
        self.prompt_label.setAlignment(Qt.AlignmentFlag.AlignVCenter | Qt.AlignmentFlag.AlignLeft)
        inside.addWidget(self.prompt_label)
        column.addWidget(card)
        self.waveform = RollingWaveform()
        column.addWidget(self.waveform)
        row = QHBoxLayout()
        self.record_button = make_button(
            "Record", "Begin a take, or end it", self.toggle_recording, icon_name="record", primary=True
        )
        self.record_button.setMinimumWidth(130)
        row.addWidget(self.record_button)
        self.take_meter = TargetMeter("Level of the take", "The bar should mostly stay inside the frame")
        row.addWidget(self.take_meter, 1)
        self.time_label = make_label("0 s")
        self.time_label.setMinimumWidth(48)
        row.addWidget(self.time_label)
        column.addLayout(row)
        scroll = QScrollArea()
        scroll.setWidgetResizable(True)
        scroll.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        scroll.setMinimumHeight(110)
        self._rows = QWidget()
        self._rows_layout = QVBoxLayout(self._rows)
        self._rows_layout.setContentsMargins(0, 0, 0, 0)
        self._rows_layout.setSpacing(Space.XS)
        scroll.setWidget(self._rows)
        column.addWidget(scroll, 1)
        return page

    def _make_name_step(self) -> QWidget:
        page, column = _make_step(
            "Name and consent", "A voice belongs to a person: note whose it is, and that they agreed."
        )
        self.name_line = QLineEdit()
        self.name_line.setPlaceholderText("Name of the voice")
        self.name_line.setAccessibleName("Name of the voice")
        self.name_line.setToolTip("How the voice is called in AutoVoice")
        self.name_line.setMaxLength(80)
        self.name_line.textChanged.connect(self._follow)
        column.addWidget(make_label("Name", buddy=self.name_line))
        column.addWidget(self.name_line)
        self.consent_text = QPlainTextEdit()
        self.consent_text.setPlaceholderText("For example: “Anna Berg agreed on 3 May, for our demo songs only.”")
        self.consent_text.setAccessibleName("Consent")
        self.consent_text.setToolTip("Shown on the voice's card and written into exports")
        self.consent_text.setTabChangesFocus(True)
        self.consent_text.setFixedHeight(72)
        self.consent_text.textChanged.connect(self._follow)
        column.addWidget(make_label("Whose voice is it, and did they agree?", buddy=self.consent_text))
        column.addWidget(self.consent_text)
        own = make_button(
            "It is my own voice", "Writes so into the note", lambda: self.consent_text.setPlainText(_OWN_VOICE)
        )
        column.addWidget(own, 0, Qt.AlignmentFlag.AlignLeft)
        self.noise_box = QCheckBox("Lower steady background noise")
        self.noise_box.setToolTip("For fans and hum; the recordings themselves are kept as they are")
        self.noise_box.setAccessibleName("Lower steady background noise")
        column.addWidget(self.noise_box)
        self.summary_label = make_label(muted=True, wrap=True)
        column.addWidget(self.summary_label)
        self.progress_bar = QProgressBar()
        self.progress_bar.setRange(0, 1000)
        self.progress_bar.setTextVisible(False)
        self.progress_bar.setAccessibleName("Progress of making the voice")
        self.progress_bar.setToolTip("How far the voice has come")
        self._progress_timer = QTimer(self, interval=100)
        self._progress_timer.timeout.connect(self._show_progress)
        column.addWidget(self.progress_bar)
        column.addStretch(1)
        return page

    def _make_bottom(self) -> QHBoxLayout:
        row = QHBoxLayout()
        row.setSpacing(Space.S)
        self.missing_label = make_label(wrap=True)
        self.missing_label.setAccessibleName("What is still missing")
        row.addWidget(self.missing_label, 1)
        self.cancel_button = make_button("Cancel", "Close without making a voice", self.reject)
        self.back_button = make_button("Back", "The step before", functools.partial(self._step, -1))
        self.next_button = make_button("Next", "The next step", functools.partial(self._step, 1))
        self.make_button = make_button("Make the voice", "Makes the voice and saves it", self.make_voice, primary=True)
        for button in (self.cancel_button, self.back_button, self.next_button, self.make_button):
            row.addWidget(button)
        return row

    # Qt's events.

    def dragEnterEvent(self, event: QDragEnterEvent) -> None:
        """Files and folders are welcome."""
        if event.mimeData().hasUrls():
            event.acceptProposedAction()

    def dropEvent(self, event: QDropEvent) -> None:
        """They become takes."""
        event.acceptProposedAction()
        self.add_files([Path(url.toLocalFile()) for url in event.mimeData().urls() if url.isLocalFile()])

    def done(self, result: int) -> None:
        """Let go of the microphone, the player and the takes."""
        if self._task is not None:
            self._task.cancel()
        self._stop_microphone()
        if self.context.player.path is not None and Path(self._folder.name) in self.context.player.path.parents:
            self.context.player.unload()
        self._folder.cleanup()
        super().done(result)

    def closeEvent(self, event: QCloseEvent) -> None:
        """Closing is cancelling."""
        self.reject()
        event.accept()

    def showEvent(self, event: Any) -> None:
        """Listen as soon as the first step is seen."""
        super().showEvent(event)
        self._enter_step()

    # Inside.

    @property
    def _device(self) -> AudioDevice | None:
        wanted = self.device_combo.currentData()
        return next((device for device in self._devices if device.id == wanted), None)

    def _list_devices(self) -> None:
        task = self.context.tasks.create(
            "Looking for microphones", lambda ctx: self.context.devices.devices(refresh=False), lane=FILES
        )
        task.finished.connect(self._show_devices)
        task.failed.connect(self._show_error)
        task.start()

    def _show_devices(self, found: list[AudioDevice]) -> None:
        self._devices = [device for device in found if device.max_input_channels and not device.is_monitor]
        items = [("System default", ""), *((f"{one.name} ({one.host_api})", one.id) for one in self._devices)]
        fill_combo(self.device_combo, items, self.context.settings.current.voices_input)
        if not self._devices:
            self._say("No microphone was found; recordings can be used instead.")

    def _choose_device(self) -> None:
        self.context.settings.update(voices_input=self.device_combo.currentData())
        self._enter_step()

    def _choose_language(self) -> None:
        if self.language_combo.currentData() != _SING:
            self.context.settings.update(voices_language=self.language_combo.currentData())
        self._prompt = 0
        self._show_prompt()

    def _choose_files(self) -> None:
        endings = "*.wav *.flac *.mp3 *.ogg *.opus *.m4a *.aac *.aiff"
        paths, _ = QFileDialog.getOpenFileNames(self, "Recordings", "", f"Audio ({endings});;All files (*)")
        if paths:
            self.add_files([Path(path) for path in paths])

    def _prompts(self) -> tuple[str, ...]:
        key = self.language_combo.currentData()
        return SING if key == _SING else PROMPTS[key]

    def _turn(self, by: int) -> None:
        self._prompt = (self._prompt + by) % len(self._prompts())
        self._show_prompt()

    def _show_prompt(self) -> None:
        prompts = self._prompts()
        self.prompt_label.setText(prompts[self._prompt % len(prompts)])

    def _step(self, by: int) -> None:
        self.steps.setCurrentIndex(self.steps.currentIndex() + by)

    def _enter_step(self) -> None:
        if self.isVisible():
            if self.steps.currentIndex() == 0 and self.context.devices is not None:
                self.microphone.start(self._device, MONITOR)
            else:
                self._stop_microphone()
        self._follow()

    def _stop_microphone(self) -> None:
        self._room_timer.stop()
        self.microphone.stop(discard=True)
        self.room_button.setEnabled(True)
        for meter in (self.level_meter, self.take_meter):
            meter.clear()

    def _follow_microphone(self, mode: str) -> None:
        if mode == ROOM:
            self._room_timer.start()
        self.waveform.clear()
        self._follow()

    def _show_levels(self) -> None:
        levels = self.microphone.levels
        if levels is None:
            return
        meter = self.take_meter if self.microphone.mode == TAKE else self.level_meter
        meter.set_level(levels.rms_dbfs, levels.peak_dbfs)
        if self.microphone.mode == TAKE:
            self.waveform.show_samples(self.microphone.recent(), self.microphone.sample_rate)
            self.time_label.setText(f"{levels.seconds:.0f} s")
            self.missing_label.setText(self.missing)

    def _take_recording(self, mode: str, clip: AudioClip) -> None:
        from engine.enrollment import judge_room, take_clip

        if mode == ROOM:
            room = judge_room(clip)
            self.room_label.setText(f"{room.message} ({room.level_dbfs:.0f} dBFS)")
            self.room_button.setEnabled(True)
            self._enter_step()
            return
        self.take_meter.clear()
        if clip.seconds < _SHORTEST_TAKE_S:
            self._follow()
            return
        self._count += 1
        redo, self._redo = self._redo, -1
        number = redo + 1 if redo >= 0 else self._count
        name, path = f"Take {number}", Path(self._folder.name) / f"take-{self._count}.flac"
        self._judging += 1

        def work(ctx: JobContext) -> Any:
            import dataclasses

            write_audio(path, clip)
            return dataclasses.replace(take_clip(clip, name, ctx=ctx), path=path)

        task = self.context.tasks.create("Listening to the take", work, lane=FILES)
        task.finished.connect(functools.partial(self._add_take, redo))
        task.failed.connect(self._show_error)
        task.ended.connect(self._judged)
        task.start()
        if redo < 0:
            self._turn(1)
        self._follow()

    def _add_take(self, redo: int, take: "Take") -> None:
        if 0 <= redo < len(self.takes):
            self.takes[redo] = take
        else:
            self.takes.append(take)
        self._show_takes()

    def _take_files(self, outcome: "tuple[list[Take], list[AutoVoiceError]]") -> None:
        takes, failures = outcome
        known = {take.path for take in self.takes}
        self.takes += [take for take in takes if take.path not in known]
        if failures:
            self._say(" ".join(f"{error.message} {error.hint}".strip() for error in failures[:3]))
        if self.takes and not self.name_line.text():
            path = self.takes[0].path
            if path is not None and Path(self._folder.name) not in path.parents:
                self.name_line.setText(path.stem[:80])
        self._show_takes()

    def _judged(self) -> None:
        self._judging = max(self._judging - 1, 0)
        self._follow()

    def _show_takes(self) -> None:
        while self._rows_layout.count():
            item = self._rows_layout.takeAt(0)
            widget = item.widget() if item is not None else None
            if widget is not None:
                widget.deleteLater()
        for number, take in enumerate(self.takes):
            self._rows_layout.addWidget(self._make_row(number, take))
        self._rows_layout.addStretch(1)
        self._follow()

    def _make_row(self, number: int, take: "Take") -> QWidget:
        from_microphone = take.path is not None and Path(self._folder.name) in take.path.parents
        return make_take_row(
            take,
            play=functools.partial(self._play, take),
            redo=functools.partial(self._again, number) if from_microphone else None,
            remove=functools.partial(self._drop, number),
        )

    def _play(self, take: "Take") -> None:
        if take.path is not None and self.microphone.mode != TAKE:
            self.context.player.open(take.path)
            self.context.player.play()

    def _again(self, number: int) -> None:
        if self.microphone.mode != TAKE:
            self._redo = number
            self._prompt = number % len(self._prompts())
            self._show_prompt()
            self.toggle_recording()

    def _drop(self, number: int) -> None:
        if number < len(self.takes):
            del self.takes[number]
        self._show_takes()

    def _say(self, text: str) -> None:
        self.error_label.setText(text)
        self.error_label.setVisible(bool(text))

    def _show_error(self, error: BaseException) -> None:
        self.room_button.setEnabled(True)
        if isinstance(error, AutoVoiceError):
            self._say(f"{error.message} {error.hint}".strip())
        self._follow()

    def _follow(self) -> None:
        step, busy = self.steps.currentIndex(), self._task is not None
        recording = self.microphone.mode == TAKE
        self.record_button.setText("Stop" if recording else "Record")
        self.record_button.setIcon(icon("stop-fill" if recording else "record", "on_accent"))
        self.back_button.setVisible(step > 0)
        self.back_button.setEnabled(not busy and not recording)
        self.next_button.setVisible(step < 2)
        self.next_button.setEnabled(step == 0 or (self._usable() and not recording and not self._judging))
        self.make_button.setVisible(step == 2)
        complete = bool(self.name_line.text().strip()) and bool(self.consent_text.toPlainText().strip())
        self.make_button.setEnabled(complete and not busy)
        self.progress_bar.setVisible(busy)
        for widget in (self.name_line, self.consent_text, self.noise_box):
            widget.setEnabled(not busy)
        self.missing_label.setText(self.missing if not busy else "")
        if step == 2:
            used = [take for take in self.takes if take.assessment.verdict != "refused"]
            seconds = sum(take.assessment.voiced_s for take in used)
            self.summary_label.setText(f"{len(used)} recordings with {seconds:.0f} s of voice.")

    def _usable(self) -> bool:
        from engine.enrollment import check_takes

        if not self.takes:
            return False
        try:
            check_takes(self.takes)
        except AutoVoiceError as error:
            self.next_button.setToolTip(f"{error.message} {error.hint}".strip())
            return False
        self.next_button.setToolTip("The next step")
        return True

    def _show_progress(self) -> None:
        if self._task is not None:
            progress = self._task.ctx.progress
            self.progress_bar.setValue(round(1000 * progress.fraction))
            waiting = "Waiting for another job" if not self._task.is_running else progress.stage
            self.missing_label.setText(waiting)

    def _finish(self, record: object) -> None:
        self._task = None
        self.made.emit(record)
        self.accept()

    def _task_ended(self) -> None:
        self._task = None
        self._progress_timer.stop()
        if self.isVisible():
            self._follow()


def _make_step(title: str, text: str) -> tuple[QWidget, QVBoxLayout]:
    page = QWidget()
    column = QVBoxLayout(page)
    column.setContentsMargins(0, 0, 0, 0)
    column.setSpacing(Space.M)
    column.addWidget(make_heading(title))
    column.addWidget(make_label(text, muted=True, wrap=True))
    return page, column
