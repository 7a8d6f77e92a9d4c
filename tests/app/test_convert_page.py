"""The Convert page in the real window, with real files; the engine's part is in test_convert_song."""

import os

import numpy as np
import pytest
from PySide6.QtCore import QMimeData, QPoint, QPointF, Qt, QUrl
from PySide6.QtGui import QDragEnterEvent, QDropEvent
from PySide6.QtWidgets import QApplication

from autovoice_app import songs
from autovoice_app.main_window import MainWindow
from autovoice_app.pitch_edits import PitchEdits
from autovoice_app.songs import Rendering, State
from autovoice_app.views.convert.export import Exportable, ExportDialog
from engine.jobs import JobContext
from engine.pitch import F0Contour
from engine.signal import AudioClip, PeakBuilder, PeakPyramid, probe_audio, write_audio
from engine.store import Store
from tests.fakes import tone

RATE = 24000


@pytest.fixture
def page(window):
    return window.show_page("convert")


@pytest.fixture
def song_file(tmp_path):
    path = tmp_path / "Ünï çödé 🎵 song.flac"
    write_audio(path, AudioClip(np.stack([tone(220, 4.0, RATE), tone(330, 4.0, RATE)]), RATE))
    return path


def drop(widget, *paths):
    data = QMimeData()
    data.setUrls([QUrl.fromLocalFile(str(path)) for path in paths])
    left, none = Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier
    enter = QDragEnterEvent(QPointF(50, 50), Qt.DropAction.CopyAction, data, left, none)
    QApplication.sendEvent(widget, enter)
    assert enter.isAccepted()
    QApplication.sendEvent(widget, QDropEvent(QPointF(50, 50), Qt.DropAction.CopyAction, data, left, none))


def make_rendering(folder, song_path, seconds=4.0):
    """A finished conversion on disk, as `songs.convert` leaves one."""
    (folder / "stems").mkdir(parents=True)
    for number, name in enumerate(("mix", "stems/vocals", "stems/converted", "stems/accompaniment")):
        samples = np.full((2, round(seconds * RATE)), 0.1 * (number + 1), np.float32)
        write_audio(folder / f"{name}.wav", AudioClip(samples, RATE))
    frames = round(seconds * 100) + 1
    contour = F0Contour(np.full(frames, 220.0, np.float32), np.ones(frames, np.float32))
    semitones = np.zeros(frames, np.float32)
    np.savez(folder / "pitch.npz", f0_hz=contour.f0_hz, periodicity=contour.periodicity, semitones=semitones)
    peaks = PeakPyramid.from_file(folder / "mix.wav")
    return Rendering(
        folder, songs._files_in(folder), peaks, contour, 0.0, semitones, "Anna", "fast", {"separation": "auto"}
    )


def choose(combo, data):
    combo.setCurrentIndex(combo.findData(data))
    combo.activated.emit(combo.currentIndex())


def add(qtbot, page, path):
    page.add_songs([path])
    song = page.queue.song_of(path)
    qtbot.waitUntil(lambda: song.peaks is not None or song.state is State.FAILED, timeout=10000)
    return song


@pytest.fixture
def converted(qtbot, page, song_file, context):
    """A song on the page whose conversion is done."""
    song = add(qtbot, page, song_file)
    song.take(make_rendering(context.data_folder / "renders" / "one", song_file))
    page._show_song(song)
    return song


def test_dropped_songs_form_a_queue_and_show_their_waveform(qtbot, window, page, song_file, tmp_path, context):
    other = tmp_path / "second.wav"
    write_audio(other, AudioClip(tone(200, 1.0, RATE)[None], RATE))
    drop(page, song_file, other)
    assert [song.path for song in page.queue.songs] == [song_file, other]
    qtbot.waitUntil(lambda: all(song.peaks is not None for song in page.queue.songs), timeout=10000)
    assert page.axis.duration_s == pytest.approx(4.0)
    assert page.convert_all_button.isVisible()
    assert context.settings.current.recent_files == (str(song_file), str(other))
    drop(page, other)
    assert len(page.queue.songs) == 2, "a song that is there already is only chosen"
    assert page.queue.current_song.path == other


def test_a_bad_file_is_a_notice_with_a_hint_and_the_others_are_read(qtbot, window, page, song_file, tmp_path, context):
    text = tmp_path / "text.wav"
    text.write_text("this is no sound")
    shown = []
    context.notices.shown.connect(shown.append)
    drop(page, text, song_file)
    bad, good = page.queue.songs
    qtbot.waitUntil(lambda: good.peaks is not None and bad.state is State.FAILED, timeout=10000)
    assert "text.wav" in shown[0].message
    assert shown[0].hint
    page.queue.choose(bad)
    assert not page.convert_button.isEnabled(), "nothing can be made of the bad one"
    assert context.settings.current.recent_files == (str(song_file),), "and it does not come back"


def test_the_last_songs_choices_and_conversion_come_back(qtbot, window, page, song_file, context):
    song = add(qtbot, page, song_file)
    rendering = make_rendering(context.data_folder / "renders" / "one", song_file)
    stages = {"Separating vocals": 1.0, "Loading the voice models": 9.0, "Listening to the voice": 0.4, "Mixing": 0.6}
    report = {"transpose_semitones": 2.0, "separation": "none", "seconds": 4.0, "stage_seconds": stages}
    context.store.add_render(
        song.path, rendering.files[songs.CONVERTED], voice=None, voice_name="Anna", preset="fast", report=report
    )
    choose(page.choices.key, "-3")
    choose(page.choices.preset, "fast")
    window.close()

    again = MainWindow(context)
    qtbot.addWidget(again)
    again.show()
    page = again.current_page
    (song,) = page.queue.songs
    qtbot.waitUntil(lambda: song.rendering is not None, timeout=10000)
    assert song.path == song_file
    assert set(song.versions) == {
        songs.ORIGINAL,
        songs.CONVERTED,
        songs.CONVERTED_VOCALS,
        songs.VOCALS,
        songs.ACCOMPANIMENT,
    }
    assert page.choices.choices.transpose == "-3"
    assert "About 2 s for this song" in page.choices.cost.text(), "models are loaded once"
    choose(page.choices.separation, "none")
    assert "About 1 s for this song" in page.choices.cost.text(), "nothing is separated then"


def test_switching_versions_keeps_the_place(qtbot, page, converted, context, devices):
    page.player_bar.choose(songs.ORIGINAL)
    page._seek(2.0)
    qtbot.keyClick(page, Qt.Key.Key_Space)
    qtbot.waitUntil(lambda: context.player.is_playing, timeout=5000)
    devices.drain(4800)
    page.player_bar.choose(songs.ACCOMPANIMENT)
    qtbot.waitUntil(lambda: context.player._player.state.path == converted.versions[songs.ACCOMPANIMENT], timeout=5000)
    heard = np.concatenate([devices.drain(480) for _ in range(20)])
    assert heard[-1] == pytest.approx(0.4 * context.settings.current.volume, abs=0.01)
    assert 2.2 < context.player.position_s < 2.5
    qtbot.keyClick(page, Qt.Key.Key_Space)
    qtbot.waitUntil(lambda: not context.player.is_playing, timeout=5000)


def test_pitch_is_edited_by_dragging_and_by_keys_and_undone(qtbot, window, page, converted):
    edits = converted.edits
    view = page.plots.pitch
    page.axis.select((1.0, 2.0))
    x = round(view.x_of(1.5))
    one_semitone = view.y_of(60) - view.y_of(61)
    start = QPoint(x, view.height() // 2)
    qtbot.mousePress(view, Qt.MouseButton.LeftButton, pos=start)
    qtbot.mouseMove(view, start - QPoint(0, round(2 * one_semitone)))
    qtbot.mouseRelease(view, Qt.MouseButton.LeftButton, pos=start - QPoint(0, round(2 * one_semitone)))
    assert edits.semitones[150] == pytest.approx(2.0)
    assert edits.semitones[[50, 250]].tolist() == [0.0, 0.0]
    assert edits.wanted(0.0).f0_hz[150] == pytest.approx(220.0 * 2 ** (2 / 12), rel=1e-4)
    assert page.plots.edit_note.text()
    qtbot.keyClick(view, Qt.Key.Key_Down)
    assert edits.semitones[150] == pytest.approx(1.0)
    qtbot.keyClick(page, Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier)
    qtbot.keyClick(page, Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier)
    assert edits.is_empty
    qtbot.keyClick(page, Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier | Qt.KeyboardModifier.ShiftModifier)
    assert edits.semitones[150] == pytest.approx(2.0)
    page.plots.reset()
    assert edits.is_empty
    assert edits.can_undo


def test_a_stretch_is_selected_and_edited_by_keys_alone(qtbot, page, converted):
    view = page.plots.pitch
    shift, control = Qt.KeyboardModifier.ShiftModifier, Qt.KeyboardModifier.ControlModifier
    qtbot.keyClick(view, Qt.Key.Key_Right, control)
    assert page.axis.cursor_s == pytest.approx(1.0)
    qtbot.keyClick(view, Qt.Key.Key_Right, shift | control)
    for _ in range(5):
        qtbot.keyClick(view, Qt.Key.Key_Right, shift)
    for _ in range(2):
        qtbot.keyClick(view, Qt.Key.Key_Left, shift)
    assert page.axis.selection == pytest.approx((1.0, 2.3))
    assert page.axis.cursor_s == pytest.approx(1.0), "one goes on hearing from there"
    qtbot.keyClick(view, Qt.Key.Key_Up)
    assert converted.edits.semitones[[150, 250]].tolist() == [1.0, 0.0]
    qtbot.keyClick(view, Qt.Key.Key_Escape)
    qtbot.keyClick(view, Qt.Key.Key_Left, shift)
    assert page.axis.selection == pytest.approx((0.9, 1.0))
    for _ in range(20):
        qtbot.keyClick(view, Qt.Key.Key_Left, shift)
    assert page.axis.selection == pytest.approx((0.0, 1.0)), "no further than the song"


def test_edits_glide_at_their_edges():
    edits = PitchEdits(F0Contour(np.full(300, 200.0, np.float32), np.ones(300, np.float32)))
    edits.shift(1.0, 2.0, 12.0)
    assert np.abs(np.diff(edits.semitones)).max() <= 4.0 + 1e-3


def test_zoom_and_pan_stay_within_the_song(qtbot, page, converted):
    axis = page.axis
    axis.zoom(0.25, 3.9)
    assert axis.end_s == pytest.approx(4.0, abs=0.2)
    axis.pan(100.0)
    assert (axis.start_s, axis.end_s) == (pytest.approx(3.0), pytest.approx(4.0))
    qtbot.keyClick(page.plots.waveform, Qt.Key.Key_0)
    assert (axis.start_s, axis.end_s) == (0.0, 4.0)
    qtbot.mouseClick(
        page.plots.waveform, Qt.MouseButton.LeftButton, pos=QPoint(round(page.plots.waveform.x_of(2.5)), 40)
    )
    assert axis.cursor_s == pytest.approx(2.5, abs=0.05)


def test_export_writes_the_chosen_files(qtbot, page, converted, context, tmp_path):
    folder = tmp_path / "öut"
    folder.mkdir()
    context.settings.update(export_folder=str(folder))
    qtbot.keyClick(page, Qt.Key.Key_E, Qt.KeyboardModifier.ControlModifier)
    dialog = page.findChild(ExportDialog)
    dialog.format.setCurrentIndex(dialog.format.findData("flac"))
    dialog.boxes["vocals"].setChecked(True)
    with qtbot.waitSignal(context.notices.shown, timeout=10000) as caught:
        dialog.export_button.click()
    assert caught.args[0].kind == "success"
    stem = converted.path.stem
    assert sorted(path.name for path in folder.iterdir()) == [f"{stem} (converted).flac", f"{stem} (vocals).flac"]
    assert probe_audio(folder / f"{stem} (vocals).flac").num_samples == 4 * RATE
    assert context.settings.current.export_format == "flac"


def test_export_says_why_it_cannot_write(qtbot, page, converted, context, tmp_path):
    gone = tmp_path / "gone"
    with qtbot.waitSignal(context.notices.shown, timeout=10000) as caught:
        page.export_files([(converted.versions[songs.CONVERTED], gone / "x.wav")])
    assert caught.args[0].kind == "error"
    assert caught.args[0].hint


def test_export_dialog_is_named_throughout_and_refuses_a_missing_folder(qtbot, context, song_file, tmp_path):
    from tests.app.test_window import controls_of

    items = [Exportable("converted", "Mix", "The mix", song_file)]
    dialog = ExportDialog("“x”", "x", items, context.settings)
    qtbot.addWidget(dialog)
    assert not [c for c in controls_of(dialog) if not c.toolTip() or not c.accessibleName()]
    dialog.folder.setText(str(tmp_path / "nowhere"))
    assert not dialog.export_button.isEnabled()
    dialog.folder.setText(str(tmp_path))
    assert dialog.export_button.isEnabled()


def test_old_conversions_are_pruned_and_shown_ones_kept(tmp_path):
    folders = [tmp_path / "renders" / name for name in ("newest", "middle", "oldest", "left over")]
    with Store(tmp_path) as store:
        for age, folder in enumerate(folders):
            folder.mkdir(parents=True)
            if folder.name != "left over":
                (folder / "mix.wav").write_bytes(b"x" * 1000)
                store.add_render(tmp_path / f"{folder.name}.flac", folder / "mix.wav", voice=None, preset="fast")
            os.utime(folder, (1000 - age, 1000 - age))
        shown = [str(tmp_path / "oldest.flac")]
        assert songs.prune(store, tmp_path, shown, JobContext(), limit_bytes=1500) == 2
    assert [folder.exists() for folder in folders] == [True, False, True, False]


def test_a_waveform_can_be_drawn_while_the_file_is_read():
    blocks = [np.random.default_rng(i).standard_normal((2, 1000 + 77 * i)).astype(np.float32) for i in range(5)]
    builder = PeakBuilder(RATE)
    for block in blocks:
        builder.push(block)
        assert builder.finish().num_samples == builder.num_samples
    whole = PeakPyramid.from_blocks(blocks, RATE)
    for seen, expected in zip(builder.finish().levels(0, 1, 50), whole.levels(0, 1, 50), strict=True):
        np.testing.assert_array_equal(seen, expected)
