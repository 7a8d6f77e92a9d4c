"""The Convert page itself: the queue at the left, the song in front at the right."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PySide6.QtCore import QTimer
from PySide6.QtGui import QAction, QKeySequence
from PySide6.QtWidgets import (
    QFileDialog,
    QHBoxLayout,
    QProgressBar,
    QSplitter,
    QStackedWidget,
    QVBoxLayout,
    QWidget,
)

from autovoice_app import songs
from autovoice_app.assets import Space
from autovoice_app.context import AppContext, Page
from autovoice_app.demo import demo_song
from autovoice_app.songs import Rendering, Song, State
from autovoice_app.tasks import FILES, EngineTask
from autovoice_app.views.convert.choices import Choices, ChoicesPanel
from autovoice_app.views.convert.export import Exportable, ExportDialog
from autovoice_app.views.convert.plots import PlotsCard
from autovoice_app.views.convert.queue import SongList
from autovoice_app.widgets.basics import about, make_button, make_card, make_empty, make_icon_button, make_label
from autovoice_app.widgets.drop_zone import DropZone
from autovoice_app.widgets.player_bar import PlayerBar
from engine.errors import AutoVoiceError
from engine.pitch import auto_transpose_semitones
from engine.rendering import FoundPitch, RenderOptions
from engine.signal import READABLE_ENDINGS, PeakPyramid

if TYPE_CHECKING:
    from engine.store.records import VoiceRecord

VERSIONS = (
    (songs.ORIGINAL, "Original", "The song as it was"),
    (songs.CONVERTED, "Converted", "The song in the chosen voice"),
    (songs.CONVERTED_VOCALS, "New voice", "The converted voice alone"),
    (songs.VOCALS, "Vocals", "The original voice alone"),
    (songs.ACCOMPANIMENT, "Backing", "The accompaniment alone"),
)
_EXPORTS = (
    (songs.CONVERTED, "converted", "Mix", "The song in the chosen voice"),
    (songs.CONVERTED_VOCALS, "converted vocals", "Converted vocals", "The converted voice alone"),
    (songs.VOCALS, "vocals", "Original vocals", "The original voice alone"),
    (songs.ACCOMPANIMENT, "accompaniment", "Accompaniment", "Everything but the voice"),
)
_RECENT_KEPT = 12


class ConvertPage(Page):
    """Drop songs, choose a voice, convert, compare, edit the pitch, export."""

    def __init__(self, context: AppContext) -> None:
        super().__init__(context)
        column, head = self.page_layout("Convert", "Sing a song in another voice")
        self.open_button = make_button(
            "Open songs…", "Open one or more songs", self.open_dialog, icon_name="folder-open", keys="Ctrl+O"
        )
        head.addWidget(self.open_button)
        self.export_button = make_button(
            "Export…", "Write the mix and the stems to files", self.export_current, icon_name="export", keys="Ctrl+E"
        )
        head.addWidget(self.export_button)
        self._stack = QStackedWidget()
        self._stack.addWidget(self._make_empty())
        self._stack.addWidget(self._make_desk())
        column.addWidget(self._stack, 1)
        self._add_actions()
        self._drop_zone = DropZone(self, self.add_songs)
        self._timer = QTimer(self, interval=100)
        self._timer.timeout.connect(self._show_progress)
        self._song: Song | None = None
        self._was_restored = False
        self._shown_peaks: PeakPyramid | None = None
        context.player.moved.connect(self._follow_player)
        self._show_song(None)

    # What the window calls.

    def on_shown(self) -> None:
        """Voices may have come or gone; at the first time the last songs come back."""
        self.choices.refresh()
        self.choices.find_costs()
        if not self._was_restored:
            self._was_restored = True
            self.add_songs(
                [path for name in self.context.settings.current.recent_files if (path := Path(name)).is_file()]
            )
            store, data_folder = self.context.store, self.context.data_folder
            shown = self.context.settings.current.recent_files
            self.context.tasks.create(
                "Tidying up", lambda ctx: songs.prune(store, data_folder, shown, ctx), lane=FILES
            ).start()

    def on_hidden(self) -> None:
        """Leave the engine to other pages."""
        self.choices.timing.pause()

    def toggle_play(self) -> None:
        """Space."""
        self.player_bar.toggle()

    def shut_down(self) -> None:
        """Stop the timers; `tasks` stops the work."""
        self._timer.stop()
        self.choices.timing.pause()

    # Songs.

    def open_dialog(self) -> None:
        """Ask for songs."""
        endings = " ".join(f"*.{ending}" for ending in READABLE_ENDINGS)
        folder = self.context.settings.current.last_folder or str(Path.home())
        names, _ = QFileDialog.getOpenFileNames(self, "Open songs", folder, f"Sound files ({endings});;All files (*)")
        self.add_songs([Path(name) for name in names])

    def add_songs(self, paths: Sequence[Path]) -> None:
        """Put songs on the list, the first new one in front; those on it already are only chosen."""
        first = None
        for path in paths:
            song = self.queue.song_of(path)
            if song is None:
                song = Song(path, self)
                self.queue.add(song)
                self._read(song)
            first = first or song
        if first is not None:
            self.queue.choose(first)
            self.context.settings.update(last_folder=str(first.path.parent))
            self._remember()
        self._stack.setCurrentIndex(1 if self.queue.songs else 0)

    def _read(self, song: Song) -> None:
        """Draw the waveform, and find out whether the song was converted before."""
        path, store = song.path, self.context.store
        reading = song.reading = songs.Reading()
        task = self.context.tasks.create(
            f"Reading {path.name}", lambda ctx: songs.read(store, path, reading, ctx), lane=FILES
        )
        task.finished.connect(functools.partial(self._take_reading, song))
        task.failed.connect(functools.partial(self._take_failure, song))
        task.start()
        self._timer.start()

    def _take_reading(self, song: Song, result: tuple[PeakPyramid, Rendering | None]) -> None:
        peaks, rendering = result
        song.show_waveform(peaks)
        if rendering is not None and song.rendering is None and not song.is_busy:
            song.take(rendering)
        if song is self._song:
            self._show_song(song)

    def _take_failure(self, song: Song, error: BaseException) -> None:
        song.state = State.FAILED
        song.error = error.message if isinstance(error, AutoVoiceError) else "Something went wrong inside AutoVoice."
        song.task = song.reading = None
        song.changed.emit()
        self._show_if_front(song)
        self._remember()

    def _forget(self, song: Song) -> None:
        if song.task is not None:
            song.task.cancel()
        self._remember()
        if not self.queue.songs:
            self.context.player.unload()
            self._stack.setCurrentIndex(0)
            self._show_song(None)

    def _remember(self) -> None:
        readable = [song for song in self.queue.songs if song.peaks is not None or song.state is not State.FAILED]
        kept = [str(song.path) for song in readable][-_RECENT_KEPT:]
        self.context.settings.update(recent_files=tuple(kept))

    def _remove_current(self) -> None:
        if self._song is not None:
            self.queue.remove(self._song)

    # Converting.

    def convert_current(self) -> None:
        """Convert the song in front, or convert it again with its edits."""
        if self._song is not None and not self._song.is_busy:
            self._convert(self._song)

    def convert_all(self) -> None:
        """Queue every song that is not converted yet."""
        for song in self.queue.songs:
            if song.state in (State.NEW, State.FAILED):
                self._convert(song)

    def cancel_current(self) -> None:
        """Stop the song in front."""
        if self._song is not None and self._song.task is not None:
            self._song.task.cancel()

    def _convert(self, song: Song) -> None:
        chosen = self.choices.choices
        voice = self.choices.voice_record
        if voice is None:
            self.choices.refresh()
            self.context.notices.show(
                "There is no voice to sing it.", "Make one on the Voices page first.", kind="warning"
            )
            return
        options, semitones = self._options_for(song, voice, chosen)
        store, source, folder = self.context.store, song.path, songs.new_folder(self.context.data_folder)
        task = self.context.tasks.create(
            f"Converting {song.title}",
            lambda ctx: songs.convert(store, source, folder, voice, options, semitones, ctx),
        )
        task.started.connect(functools.partial(self._take_start, song))
        task.finished.connect(functools.partial(self._take_rendering, song, task))
        task.failed.connect(functools.partial(self._take_failure, song))
        task.cancelled.connect(functools.partial(self._take_cancel, song))
        song.task, song.state, song.error = task, State.WAITING, ""
        task.start()
        song.changed.emit()
        self._timer.start()
        self._show_if_front(song)

    def _options_for(
        self, song: Song, voice: "VoiceRecord", chosen: Choices
    ) -> tuple[RenderOptions, songs.FloatArray | None]:
        transpose: Any = "auto" if chosen.transpose_semitones is None else chosen.transpose_semitones
        edits = semitones = None
        if song.edits is not None and not song.edits.is_empty:
            transpose = self._transpose_of(song, voice, chosen)
            edits, semitones = song.edits.wanted(transpose), song.edits.semitones.copy()
        return (
            RenderOptions(
                preset=chosen.preset,
                transpose=transpose,
                separation=chosen.separation,
                f0_edits=edits,
                reuse_stems=_stems_to_reuse(song, chosen),
            ),
            semitones,
        )

    def _transpose_of(self, song: Song, voice: "VoiceRecord | None", chosen: Choices) -> float:
        """The key in semitones; an automatic one as rendering would choose it."""
        if chosen.transpose_semitones is not None:
            return chosen.transpose_semitones
        if song.edits is None or voice is None:
            return 0.0
        return auto_transpose_semitones(
            song.edits.source, voice.median_f0_hz, with_accompaniment=chosen.separation != "none"
        )

    def _take_start(self, song: Song) -> None:
        song.state = State.RUNNING
        song.changed.emit()
        self._show_if_front(song)

    def _take_pitch(self) -> None:
        """Draw the melodies that running conversions have found since the last look."""
        for song in self.queue.songs:
            found = song.task.ctx.progress.interim if song.task is not None else None
            if isinstance(found, FoundPitch) and found is not song.found:
                song.take_pitch(found)
                self._show_if_front(song)

    def _take_rendering(self, song: Song, task: EngineTask, rendering: Rendering) -> None:
        song.task = None
        song.take(rendering)
        self.choices.refresh()
        for note in task.ctx.progress.notes:
            self.context.notices.show(note)
        if not self.isVisible():
            self.context.notices.show(f"“{song.title}” was converted.", "It waits on the Convert page.", kind="success")
        self.player_bar.version = songs.CONVERTED if song is self._song else self.player_bar.version
        self._show_if_front(song)

    def _take_cancel(self, song: Song) -> None:
        song.task = None
        song.state = State.DONE if song.rendering is not None else State.NEW
        song.changed.emit()
        self._show_if_front(song)

    # Exporting.

    def export_current(self) -> None:
        """Ask what to export, and write it in the file lane."""
        song = self._song
        if song is None or song.rendering is None:
            return
        items = [
            Exportable(key, label, tip, song.rendering.files[version])
            for version, key, label, tip in _EXPORTS
            if version in song.rendering.files
        ]
        dialog = ExportDialog(f"“{song.title}”", song.title, items, self.context.settings, self)
        dialog.accepted.connect(lambda: self.export_files(dialog.chosen))
        dialog.finished.connect(dialog.deleteLater)
        dialog.open()

    def export_files(self, files: list[tuple[Path, Path]]) -> None:
        """Write copies: (source, destination) pairs."""
        task = self.context.tasks.create("Exporting", lambda ctx: songs.export(files, ctx), lane=FILES)
        task.finished.connect(self._tell_export)
        task.start()

    def _tell_export(self, written: list[Path]) -> None:
        names = ", ".join(path.name for path in written)
        self.context.notices.show(f"Exported {names}.", f"In {written[0].parent}", kind="success")

    # Showing.

    def _show_if_front(self, song: Song) -> None:
        if song is self._song:
            self._show_song(song)
        self._show_buttons()

    def _show_song(self, song: Song | None) -> None:
        """Fill the desk with a song, or with another state of the one that is on it."""
        is_other = song is not self._song
        if is_other and self._song is not None:
            self._song.place_s = self.player_bar.position_s
        self._song = song
        if song is None:
            self._show_plots()
            self.player_bar.show_versions({}, 0.0)
            self._show_buttons()
            return
        self.player_bar.show_versions(song.versions, song.duration_s, place_s=song.place_s)
        self._show_plots()
        self._show_buttons()
        self._show_progress()

    def _show_plots(self) -> None:
        song = self._song
        transpose = self._transpose_of(song, self.choices.voice_record, self.choices.choices) if song else 0.0
        self.plots.show_song(song, self.player_bar.version, transpose)

    def _show_buttons(self) -> None:
        song = self._song
        waiting = [s for s in self.queue.songs if s.state in (State.NEW, State.FAILED)]
        busy = song is not None and song.is_busy
        self.convert_button.setEnabled(song is not None and not busy and song.peaks is not None)
        again = song is not None and song.rendering is not None
        self.convert_button.setText("Convert again" if again else "Convert")
        self.convert_all_button.setVisible(len(self.queue.songs) > 1)
        self.convert_all_button.setEnabled(bool(waiting))
        self.export_button.setEnabled(song is not None and song.rendering is not None)
        self.remove_button.setEnabled(song is not None)
        keeps_stems = song is not None and _stems_to_reuse(song, self.choices.choices) is not None
        self.choices.show_cost(song.duration_s if song else 0.0, keeps_stems=keeps_stems)
        self.plots.show_tools()

    def _show_progress(self) -> None:
        song = self._song
        self.queue.viewport().update()
        self._take_pitch()
        if not any(s.is_busy or s.reading is not None for s in self.queue.songs):
            self._timer.stop()
        if song is not None and song.reading is not None and song.reading.peaks is not self._shown_peaks:
            self._shown_peaks = song.reading.peaks
            self._show_plots()
        busy = song is not None and song.is_busy and song.task is not None
        self._progress_row.setVisible(busy)
        if not busy or song is None or song.task is None:
            return
        task, progress = song.task, song.task.ctx.progress
        self.progress_bar.setValue(round(1000 * progress.fraction))
        if song.state is State.WAITING:
            self.progress_label.setText("Waiting for the job before it")
            return
        left = task.seconds_left
        text = f"{progress.stage or 'Starting'}   {progress.fraction:.0%}"
        self.progress_label.setText(text if left is None else f"{text}   about {about(left)} left")

    def _follow_player(self, seconds: float) -> None:
        if self.player_bar.is_ours:
            self.axis.move_cursor(seconds, follow=self.context.player.is_playing)

    def _seek(self, seconds: float) -> None:
        self.player_bar.seek(seconds)
        self.axis.move_cursor(seconds)

    def _take_choice(self) -> None:
        self._show_plots()
        self._show_buttons()

    # Building.

    def _make_empty(self) -> QWidget:
        return make_empty(
            "music-notes",
            "Drop songs here",
            "AutoVoice takes the vocals out, sings them in another voice and mixes them back in. "
            "Songs may be of any length, in wav, flac, mp3, m4a, ogg or opus.",
            make_button(
                "Open songs…", "Open one or more songs", self.open_dialog, icon_name="folder-open", primary=True
            ),
            *self._make_demo_button(),
        )

    def _make_demo_button(self) -> list[QWidget]:
        demo = demo_song()
        return [
            make_button(
                "Try the demo song", "Open the short song that comes with AutoVoice", lambda: self.add_songs([demo])
            )
        ]

    def _make_desk(self) -> QWidget:
        splitter = QSplitter()
        splitter.setChildrenCollapsible(False)
        splitter.setHandleWidth(Space.M)
        splitter.addWidget(self._make_queue())
        splitter.addWidget(self._make_song_area())
        splitter.setStretchFactor(0, 0)
        splitter.setStretchFactor(1, 1)
        splitter.setSizes([200, 800])
        return splitter

    def _make_queue(self) -> QWidget:
        side = QWidget()
        column = QVBoxLayout(side)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(Space.S)
        self.queue = SongList()
        self.queue.setMinimumWidth(150)
        self.queue.song_chosen.connect(self._show_song)
        self.queue.removed.connect(self._forget)
        column.addWidget(self.queue, 1)
        row = QHBoxLayout()
        row.setSpacing(Space.S)
        self.convert_all_button = make_button(
            "Convert all", "Convert every song on the list that is not converted yet", self.convert_all
        )
        row.addWidget(self.convert_all_button)
        row.addStretch(1)
        self.remove_button = make_icon_button(
            "trash",
            "Remove song",
            "Take the song off the list; files are not touched",
            self._remove_current,
            keys="Del",
        )
        row.addWidget(self.remove_button)
        column.addLayout(row)
        return side

    def _make_song_area(self) -> QWidget:
        area = QWidget()
        column = QVBoxLayout(area)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(Space.M)
        column.addWidget(self._make_choices_card())
        self.plots = PlotsCard()
        self.axis = self.plots.axis
        self.axis.seek_requested.connect(self._seek)
        self.plots.edited.connect(self._show_buttons)
        column.addWidget(self.plots, 1)
        column.addWidget(self._make_player_card())
        return area

    def _make_choices_card(self) -> QWidget:
        card, column = make_card()
        row = QHBoxLayout()
        row.setSpacing(Space.L)
        self.choices = ChoicesPanel(self.context)
        self.choices.changed.connect(self._take_choice)
        row.addWidget(self.choices, 1)
        self.convert_button = make_button(
            "Convert", "Sing the song in the chosen voice", self.convert_current, primary=True, keys="Ctrl+Return"
        )
        self.convert_button.setMinimumWidth(self.convert_button.fontMetrics().horizontalAdvance("Convert again") + 40)
        row.addWidget(self.convert_button)
        column.addLayout(row)
        self._progress_row = QWidget()
        line = QHBoxLayout(self._progress_row)
        line.setContentsMargins(0, 0, 0, 0)
        line.setSpacing(Space.M)
        self.progress_bar = QProgressBar()
        self.progress_bar.setRange(0, 1000)
        self.progress_bar.setTextVisible(False)
        self.progress_bar.setAccessibleName("Progress of the conversion")
        self.progress_bar.setToolTip("How far the conversion is")
        line.addWidget(self.progress_bar, 1)
        self.progress_label = make_label()
        line.addWidget(self.progress_label)
        self.cancel_button = make_button(
            "Cancel", "Stop this conversion; nothing half-done is kept", self.cancel_current
        )
        line.addWidget(self.cancel_button)
        self._progress_row.setVisible(False)
        column.addWidget(self._progress_row)
        return card

    def _make_player_card(self) -> QWidget:
        card, column = make_card()
        self.player_bar = PlayerBar(self.context, VERSIONS)
        self.player_bar.version_chosen.connect(self._show_plots)
        column.addWidget(self.player_bar)
        return card

    def _add_actions(self) -> None:
        for keys, act in (
            ("Ctrl+O", self.open_dialog),
            ("Ctrl+Return", self.convert_current),
            ("Ctrl+E", self.export_current),
            ("Ctrl+Z", self.plots.undo),
            ("Ctrl+Shift+Z", self.plots.redo),
            ("Ctrl+Y", self.plots.redo),
        ):
            action = QAction(self)
            action.setShortcut(QKeySequence(keys))
            action.triggered.connect(act)
            self.addAction(action)


def _stems_to_reuse(song: Song, chosen: Choices) -> Path | None:
    """The stems of this song's last conversion, if the separation would be the same again."""
    rendering = song.rendering
    if rendering is None or songs.VOCALS not in rendering.files:
        return None
    if rendering.report.get("separation") != chosen.separation:
        return None
    try:
        made, changed = rendering.files[songs.VOCALS].stat().st_mtime, song.path.stat().st_mtime
    except OSError:
        return None
    return rendering.folder / "stems" if changed < made else None
