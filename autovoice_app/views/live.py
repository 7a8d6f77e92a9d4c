"""The Live page: one large button, a state nobody can miss, and everything that may change while live."""

import dataclasses
import datetime
import functools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PySide6.QtCore import QEvent, QObject, Qt, QTimer
from PySide6.QtGui import QFont, QKeyEvent, QKeySequence, QMouseEvent, QShortcut
from PySide6.QtWidgets import (
    QApplication,
    QFrame,
    QGridLayout,
    QHBoxLayout,
    QLineEdit,
    QPushButton,
    QVBoxLayout,
)

from autovoice_app.assets import Space, icon
from autovoice_app.context import AppContext, Page
from autovoice_app.tasks import FILES
from autovoice_app.views.live_choices import LiveChoices
from autovoice_app.views.live_controls import LiveControls, settings_of
from autovoice_app.views.live_hotkeys import GlobalHotkeys
from autovoice_app.views.live_plot import LatencyBar, LivePlot, StateSign
from autovoice_app.widgets.basics import clock, fill_combo, make_button, make_card, make_combo, make_label
from autovoice_app.widgets.meters import LevelMeter
from autovoice_app.widgets.pitch_view import midi_of, note_name
from engine.devices import AudioDevice
from engine.errors import AutoVoiceError
from engine.jobs import JobContext
from engine.live import LiveSession, LiveSnapshot, LiveState, LiveVoice, VoiceStream

REPAINT_MS = 40  # as smooth as film; 30 Hz at most
_FIGURES_EVERY = 4  # repaints: nobody reads quicker
_HIDDEN_MS = 200
_FAVOURITES_SHOWN = 6


def make_stream(voice: Any) -> VoiceStream:
    """The conversion stream for a voice; runs in the live thread."""
    from engine.conversion import load_converter

    return load_converter("live").stream(voice)


class LivePage(Page):
    """Speak into the microphone, come out as someone else."""

    def __init__(self, context: AppContext) -> None:
        super().__init__(context)
        self.session: LiveSession | None = None
        self._restart = False
        self._is_loading = False  # the voice is being read, and the session's thread does not run yet
        self._wanted_voice = context.settings.current.live_voice
        self._told = LiveState.STOPPED
        self._was_paused = False
        self._is_talking = False
        self._is_shown = False
        self._repaints = 0
        choices = LiveChoices.from_text(context.settings.current.live_choices)
        column, head = self.page_layout("Live", "Speak, and come out as someone else")
        self.controls = LiveControls(context.tasks, choices)
        self.controls.changed.connect(self._apply)
        self.controls.options_changed.connect(self._apply_options)
        self.controls.refresh_wanted.connect(self._list_devices)
        column.addWidget(self._make_top())
        body = QHBoxLayout()
        body.setSpacing(Space.M)
        left = QVBoxLayout()
        left.setSpacing(Space.M)
        left.addWidget(self._make_voices())
        left.addWidget(self._make_picture(), 1)
        body.addLayout(left, 1)
        self.controls.setFixedWidth(336)
        body.addWidget(self.controls)
        column.addLayout(body, 1)
        self._timer = QTimer(self)
        self._timer.timeout.connect(self._show_snapshot)
        self._add_shortcuts()
        self.hotkeys = GlobalHotkeys(self)
        self.hotkeys.pressed.connect(self._take_hotkey)
        self._show_buttons()
        self._use_hotkeys()

    @property
    def is_live(self) -> bool:
        """Whether a session runs, be it starting, live or paused."""
        return self.session is not None

    @property
    def choices(self) -> LiveChoices:
        """All that is chosen."""
        return self.controls.choices

    def on_shown(self) -> None:
        """List voices and devices anew, and draw at full speed."""
        self._is_shown = True
        self._timer.setInterval(REPAINT_MS)
        self._list_voices()
        self._list_devices()
        self.controls.routing.look()
        self._watch_space()

    def on_hidden(self) -> None:
        """Live goes on; only the drawing rests."""
        self._is_shown = False
        self._timer.setInterval(_HIDDEN_MS)
        self._watch_space()
        self._talk(False)

    def shut_down(self) -> None:
        """End the session and wait for its thread."""
        self.on_hidden()
        self.hotkeys.stop()
        self._timer.stop()
        if self.session is not None:
            self.session.stop()
            self.session = None

    def toggle_live(self) -> None:
        """Start, or stop."""
        if self._is_loading:
            self._end()
        elif self.session is not None:
            self._restart = False
            self.session.request_stop()
        elif self.voice_picker.currentData():
            self._start()
        else:
            self.context.notices.show(
                "There is no voice yet.", "Make one on the Voices page, or install the demo voices.", kind="warning"
            )

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Space held means talking, while push-to-talk is on."""
        if (
            self.choices.push_to_talk
            and isinstance(event, QKeyEvent)
            and event.type() in (QEvent.Type.KeyPress, QEvent.Type.KeyRelease, QEvent.Type.ShortcutOverride)
            and event.key() == Qt.Key.Key_Space
            and event.modifiers() == Qt.KeyboardModifier.NoModifier
            and not isinstance(QApplication.focusWidget(), QLineEdit)
        ):
            if event.type() != QEvent.Type.ShortcutOverride and not event.isAutoRepeat():
                self._talk(event.type() == QEvent.Type.KeyPress)
            event.accept()
            return True
        return False

    def _make_top(self) -> QFrame:
        card, row = make_card(QHBoxLayout)
        self.start_button = make_button(
            "Go live", "Start or stop converting the microphone", self.toggle_live, icon_name="broadcast",
            primary=True, keys="Ctrl+L",
        )  # fmt: skip
        font = QFont(self.start_button.font())
        font.setPointSizeF(font.pointSizeF() * 1.35)
        self.start_button.setFont(font)
        self.start_button.setMinimumSize(150, 52)
        row.addWidget(self.start_button)
        self.sign = StateSign()
        row.addWidget(self.sign)
        self.message = make_label("", muted=True, wrap=True)
        self.message.setAccessibleName("What is going on")
        row.addWidget(self.message, 1)
        self.mute_button = self._toggle("Mute", "microphone-slash", "Nothing goes out", self._apply, "Ctrl+M")
        self.bypass_button = self._toggle(
            "Bypass", "arrow-bend-double-up-right", "Your own voice goes out", self._apply, "Ctrl+B"
        )
        self.talk_button = _HoldButton(self._talk)
        self.talk_button.setText("Push to talk")
        self.talk_button.setIcon(icon("hand-pointing"))
        self.talk_button.setIconSize(self.mute_button.iconSize())
        self.talk_button.setToolTip("Muted unless Space or this button is held; a click switches the mode (Ctrl+T)")
        self.talk_button.setAccessibleName("Push to talk")
        self.talk_button.setCheckable(True)
        self.talk_button.setChecked(self.choices.push_to_talk)
        self.talk_button.toggled.connect(self._take_push_to_talk)
        self.record_button = self._toggle(
            "Record", "record", "Record the converted and the dry voice as FLAC files", self._take_record, "Ctrl+R"
        )
        grid = QGridLayout()
        grid.setSpacing(Space.XS)
        for place, button in enumerate((self.mute_button, self.bypass_button, self.talk_button, self.record_button)):
            grid.addWidget(button, place // 2, place % 2)
        row.addLayout(grid)
        return card

    def _make_voices(self) -> QFrame:
        card, row = make_card(QHBoxLayout)
        self.voice_picker = make_combo("Voice", "Who comes out; switching needs no restart", [])
        self.voice_picker.setMinimumWidth(150)
        self.voice_picker.activated.connect(lambda: self.use_voice(self.voice_picker.currentData()))
        row.addWidget(self.voice_picker)
        self.star_button = QPushButton(icon("star"), "")
        self.star_button.setCheckable(True)
        self.star_button.setAccessibleName("Favourite")
        self.star_button.setToolTip("Keep this voice as a favourite, one click away (Alt+1 to Alt+6)")
        self.star_button.clicked.connect(self._take_star)
        row.addWidget(self.star_button)
        self.favourites = QHBoxLayout()
        self.favourites.setSpacing(Space.XS)
        row.addLayout(self.favourites, 1)
        return card

    def _make_picture(self) -> QFrame:
        card, column = make_card()
        meters = QGridLayout()
        meters.setHorizontalSpacing(Space.M)
        meters.setVerticalSpacing(Space.XS)
        self.input_meter = LevelMeter("Microphone level", "Your voice after the input gain, with its highest peak")
        self.output_meter = LevelMeter("Output level", "What goes out, with its highest peak")
        self.pitch_text = make_label("", muted=True)
        self.pitch_text.setMinimumWidth(self.pitch_text.fontMetrics().horizontalAdvance("A♭4 → G♯4  +12.0 st  "))
        self.pitch_text.setAccessibleName("Pitch now")
        for place, (name, meter) in enumerate((("In", self.input_meter), ("Out", self.output_meter))):
            meters.addWidget(make_label(name, muted=True, buddy=meter), place, 0)
            meters.addWidget(meter, place, 1)
        meters.setColumnStretch(1, 1)
        meters.addWidget(self.pitch_text, 0, 2, 2, 1)
        column.addLayout(meters)
        self.plot = LivePlot()
        column.addWidget(self.plot, 1)
        row = QHBoxLayout()
        row.addWidget(make_label("Delay", muted=True))
        self.latency_bar = LatencyBar()
        row.addWidget(self.latency_bar, 1)
        column.addLayout(row)
        self.counts_text = make_label("", muted=True)
        self.counts_text.setAccessibleName("Blocks and interruptions")
        self.counts_text.setToolTip(
            "Xruns: input lost, output run dry, the devices' own, stale blocks dropped. Load: computing time over "
            "audio time, usual and slowest hundredth. Clocks: the correction between the two devices"
        )
        column.addWidget(self.counts_text)
        return card

    def _toggle(self, text: str, icon_name: str, tip: str, act: Callable[[], Any], keys: str) -> QPushButton:
        button = make_button(text, tip, act, icon_name=icon_name, keys=keys)
        button.setCheckable(True)
        return button

    def _add_shortcuts(self) -> None:
        for keys, act in (
            ("Ctrl+L", self.start_button.click),
            ("Ctrl+M", self.mute_button.click),
            ("Ctrl+B", self.bypass_button.click),
            ("Ctrl+R", self.record_button.click),
            ("Ctrl+T", self.talk_button.toggle),
        ):
            QShortcut(QKeySequence(keys), self, act, context=Qt.ShortcutContext.WidgetWithChildrenShortcut)
        for number in range(_FAVOURITES_SHOWN):
            QShortcut(
                QKeySequence(f"Alt+{number + 1}"), self, functools.partial(self._use_favourite, number),
                context=Qt.ShortcutContext.WidgetWithChildrenShortcut,
            )  # fmt: skip

    # Devices and voices

    def _list_devices(self) -> None:
        task = self.context.tasks.create("Listing devices", self._find_devices, lane=FILES)
        task.finished.connect(self.controls.show_devices)
        task.start()

    def _find_devices(self, ctx: JobContext) -> list[AudioDevice]:
        return self.context.devices.devices(refresh=self.session is None and not self.context.player.is_playing)

    def _list_voices(self) -> None:
        records = self.context.store.voices()
        known = {record.id: record.name for record in records}
        if self._wanted_voice not in known:
            self._wanted_voice = next(iter(known), "")
        fill_combo(self.voice_picker, [(name, key) for key, name in known.items()], self._wanted_voice)
        while self.favourites.count():
            item = self.favourites.takeAt(0)
            widget = item.widget() if item is not None else None
            if widget is not None:
                widget.hide()
                widget.deleteLater()
        kept = [key for key in self.choices.favourites if key in known][:_FAVOURITES_SHOWN]
        for number, key in enumerate(kept):
            button = make_button(
                known[key], f"Speak as {known[key]}", functools.partial(self.use_voice, key), keys=f"Alt+{number + 1}"
            )
            button.setCheckable(True)
            button.setChecked(key == self._wanted_voice)
            button.setProperty("voice", key)
            self.favourites.addWidget(button)
        if not kept:
            self.favourites.addWidget(make_label("Star a voice to keep it at hand.", muted=True))
        self.favourites.addStretch(1)
        self.star_button.setChecked(self._wanted_voice in self.choices.favourites)
        self.star_button.setIcon(icon("star-fill" if self.star_button.isChecked() else "star"))

    def use_voice(self, voice_id: str) -> None:
        """Speak as this voice, from now on; while live it is loaded beside and takes over without a gap."""
        self._wanted_voice = voice_id
        self.context.settings.update(live_voice=voice_id)
        self._list_voices()
        if self.session is not None:
            self._load_voice(voice_id)

    def _use_favourite(self, number: int) -> None:
        kept = [key for key in self.choices.favourites if self.voice_picker.findData(key) >= 0]
        if number < len(kept):
            self.use_voice(kept[number])

    def _take_star(self) -> None:
        others = tuple(key for key in self.choices.favourites if key != self._wanted_voice)
        favourites = (*others, self._wanted_voice) if self.star_button.isChecked() else others
        self.controls.choices = dataclasses.replace(self.choices, favourites=favourites)
        self._save()
        self._list_voices()

    def _load_voice(self, voice_id: str) -> None:
        task = self.context.tasks.create("Loading a voice", functools.partial(self._read_voice, voice_id), lane=FILES)
        task.finished.connect(self._take_voice)
        task.failed.connect(self._give_up)
        task.start()

    def _read_voice(self, voice_id: str, ctx: JobContext) -> tuple[str, LiveVoice]:
        record = self.context.store.voice(voice_id)
        voice = self.context.store.load_voice(record, ctx)
        self.context.store.mark_used(record)
        return voice_id, LiveVoice(voice, voice.median_f0_hz)

    def _take_voice(self, loaded: Any) -> None:
        voice_id, voice = loaded
        if voice_id != self._wanted_voice or self.session is None:
            return
        if self.session.is_running:
            self.session.voice = voice
        elif self._is_loading:
            self._begin(voice)

    # The session

    def _start(self) -> None:
        self.context.player.pause()
        # Made anew when the voice is there; until then it only says that something starts.
        self.session = LiveSession(self.context.devices, make_stream, LiveVoice(None, math.nan))
        self._told = LiveState.STARTING
        self._is_loading = True
        self._timer.start(REPAINT_MS if self._is_shown else _HIDDEN_MS)
        self._show_buttons()
        self._load_voice(self._wanted_voice)

    def _begin(self, voice: LiveVoice) -> None:
        self._is_loading = False
        options = dataclasses.replace(self.choices.options, record=None)
        settings = self._settings()
        self.session = LiveSession(self.context.devices, lambda wanted: make_stream(wanted), voice, options, settings)
        self.session.start()

    def _give_up(self, error: object) -> None:
        if self._is_loading:
            self._end()

    def _end(self) -> None:
        self.session = None
        self._is_loading = self._was_paused = False
        self._told = LiveState.STOPPED
        self._timer.stop()
        self.record_button.setChecked(False)
        for meter in (self.input_meter, self.output_meter):
            meter.clear()
        self._show_buttons()
        if self._restart:
            self._restart = False
            self._start()

    def _settings(self) -> Any:
        silent = self.mute_button.isChecked() or (self.choices.push_to_talk and not self._is_talking)
        return settings_of(self.choices, muted=silent, bypassed=self.bypass_button.isChecked())

    def _apply(self) -> None:
        if self.session is not None:
            self.session.settings = self._settings()
        self._use_hotkeys()
        self._save()
        self._show_buttons()

    def _use_hotkeys(self) -> None:
        if not self.choices.global_hotkeys:
            self.hotkeys.stop()
            return
        try:
            self.hotkeys.start()
        except AutoVoiceError as error:
            self.context.notices.error(error)
            self.controls.show_choices(dataclasses.replace(self.choices, global_hotkeys=False))

    def _take_hotkey(self, name: str) -> None:
        buttons = {"live": self.start_button, "mute": self.mute_button, "bypass": self.bypass_button}
        buttons[name].click()

    def _apply_options(self) -> None:
        self._save()
        if self.session is not None and self.session.is_running:
            self._restart = True  # other devices need a new stream
            self.session.request_stop()

    def _save(self) -> None:
        self.context.settings.update(live_choices=self.choices.to_text())

    def _take_push_to_talk(self, on: bool) -> None:
        self.controls.choices = dataclasses.replace(self.choices, push_to_talk=on)
        self._watch_space()
        self._apply()

    def _watch_space(self) -> None:
        """See the program's events only while they matter: Python looks at each of hundreds a second."""
        application = QApplication.instance()
        if application is None:
            return
        application.removeEventFilter(self)
        if self._is_shown and self.choices.push_to_talk:
            application.installEventFilter(self)

    def _talk(self, on: bool) -> None:
        if on != self._is_talking:
            self._is_talking = on
            self._apply()

    def _take_record(self) -> None:
        session = self.session
        if session is None or not session.is_running:
            self.record_button.setChecked(False)
            return
        if self.record_button.isChecked():
            folder = Path(self.context.settings.current.export_folder or self.context.data_folder / "recordings")
            folder.mkdir(parents=True, exist_ok=True)
            name = f"live {datetime.datetime.now():%Y-%m-%d %H.%M.%S}.flac"
            session.start_recording(folder / name)
            self.context.notices.show(f"Recording to “{name}”.", f"In {folder}; the dry voice goes beside it.")
        else:
            session.stop_recording()

    # What is shown

    def _show_snapshot(self) -> None:
        session = self.session
        if session is None or self._is_loading:
            return
        snapshot = session.snapshot
        if snapshot.state is not self._told:
            self._tell(snapshot)
        if snapshot.notice is not None and self.record_button.isChecked():
            self.record_button.setChecked(False)
            self.context.notices.error(snapshot.notice)
        if not session.is_running and snapshot.state in (LiveState.STOPPED, LiveState.FAILED):
            session.stop()  # its thread has ended; this only joins it
            self._end()
            return
        self._show_state(snapshot)
        if self._is_shown:
            self._show_figures(snapshot)
            self.plot.show_history(session.history.view())

    def _tell(self, snapshot: LiveSnapshot) -> None:
        self._told = snapshot.state
        if snapshot.state is LiveState.FAILED:
            self.context.notices.show(snapshot.message, snapshot.hint, kind="error")
        elif snapshot.state is LiveState.PAUSED:
            self._was_paused = True
            self.context.notices.show(snapshot.message, snapshot.hint, kind="warning")
        elif snapshot.state is LiveState.LIVE and self._was_paused:
            self._was_paused = False
            self.context.notices.show("The device is back; live goes on.", kind="success")
        self._show_buttons()

    def _show_buttons(self) -> None:
        running = self.session is not None
        self.start_button.setText("Stop" if running else "Go live")
        self.start_button.setAccessibleName(self.start_button.text())
        self.start_button.setIcon(icon("stop" if running else "broadcast", "on_accent"))
        self.record_button.setEnabled(running)
        self._show_state(self.session.snapshot if self.session is not None else LiveSnapshot())

    def _show_state(self, snapshot: LiveSnapshot) -> None:
        settings = self._settings()
        state = LiveState.STARTING if self._is_loading else snapshot.state
        text, role, message = _STATES[state]
        if snapshot.state is LiveState.LIVE:
            if settings.muted:
                text, role, message = "MUTED", "danger", "Nobody hears you."
                if self.choices.push_to_talk and not self.mute_button.isChecked():
                    message = "Hold Space to talk."
            elif settings.bypassed:
                text, role, message = "BYPASSED", "warning", "Others hear your own voice."
        if self.sign.text != text:
            self.sign.show_state(text, role)
            window = self.window()
            window.setWindowTitle("AutoVoice" if text == "OFF" else f"{text} - AutoVoice")
        self.message.setText(snapshot.message or message)

    def _show_figures(self, snapshot: LiveSnapshot) -> None:
        self.input_meter.set_level(snapshot.input_peak_dbfs)
        self.output_meter.set_level(snapshot.output_peak_dbfs)
        self._repaints += 1
        if self._repaints % _FIGURES_EVERY:
            return
        self.pitch_text.setText(_pitch_text(snapshot))
        self.latency_bar.show_latency(snapshot.latency)
        counts = snapshot.counts
        parts = [
            f"{counts.xruns} xruns" if counts.xruns != 1 else "1 xrun",
            clock(snapshot.seconds),
            f"block {snapshot.block_ms:g} ms",
            f"load {snapshot.rtf_median:.0%} to {snapshot.rtf_p99:.0%}",
            f"clocks {snapshot.drift_ppm:+.0f} ppm",
        ]
        if snapshot.recording_seconds is not None:
            parts.insert(0, f"recording {clock(snapshot.recording_seconds)}")
        self.counts_text.setText("  ·  ".join(parts))


class _HoldButton(QPushButton):
    """A click switches the mode; held longer than a click, while the mode is on, it means talking."""

    def __init__(self, talk: Callable[[bool], None]) -> None:
        super().__init__()
        self._talk = talk
        self._held = QTimer(self, singleShot=True, interval=250)
        self._held.timeout.connect(self._begin)
        self.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        self._is_talking = False

    def mousePressEvent(self, event: QMouseEvent) -> None:
        """A press may become a hold."""
        if self.isChecked():
            self._held.start()
        super().mousePressEvent(event)

    def mouseReleaseEvent(self, event: QMouseEvent) -> None:
        """The end of a hold leaves the mode as it was."""
        self._held.stop()
        if self._is_talking:
            self._is_talking = False
            self._talk(False)
            self.setDown(False)
        else:
            super().mouseReleaseEvent(event)

    def _begin(self) -> None:
        self._is_talking = True
        self._talk(True)


_STATES = {
    LiveState.STOPPED: ("OFF", "muted", "Choose a voice and go live."),
    LiveState.STARTING: ("STARTING", "muted", "Loading the voice."),
    LiveState.LIVE: ("LIVE", "good", "Others hear the converted voice."),
    LiveState.PAUSED: ("PAUSED", "warning", ""),
    LiveState.FAILED: ("OFF", "muted", ""),
}


def _pitch_text(snapshot: LiveSnapshot) -> str:
    shift = f"{snapshot.transpose_semitones:+.1f} st" + ("" if snapshot.transpose_settled else " …")
    if not math.isfinite(snapshot.source_f0_hz):
        return f"–  {shift}"
    source, converted = midi_of(np.array([snapshot.source_f0_hz, snapshot.converted_f0_hz], dtype=np.float32))
    return f"{note_name(source)} → {note_name(converted)}  {shift}"
