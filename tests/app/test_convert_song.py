"""From a dropped song to exported files, in the real window with the real engine."""

import threading

import numpy as np
import pytest
import torch
from PySide6.QtCore import Qt

from autovoice_app import songs
from autovoice_app.assets import colours
from autovoice_app.songs import State
from autovoice_app.views.convert.export import ExportDialog
from engine import rendering
from engine.conversion import embed_voice
from engine.jobs import JobContext
from engine.pitch import estimate_f0
from engine.rendering import RenderOptions
from engine.signal import AudioClip, read_audio, write_audio
from tests.app.test_convert_page import choose, drop
from tests.fakes import noise, voice_like

RATE = 44100


@pytest.fixture(scope="module")
def voice():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # more only get in each other's way on such short songs
    yield embed_voice([AudioClip(voice_like(210.0, 4.0, 48000)[None], 48000)], name="Anna")
    torch.set_num_threads(threads)


@pytest.fixture
def kept_voice(context, voice):
    record = context.store.add_voice(voice, consent="Made by a formula.", seconds=4.0)
    context.settings.update(convert_voice=record.id, convert_preset="fast")
    return record


@pytest.fixture
def page(kept_voice, window):
    return window.show_page("convert")


def write_voice(path):
    write_audio(path, AudioClip(voice_like(140.0, 3.0, RATE)[None], RATE))
    return path


def convert(qtbot, page):
    song = page.queue.current_song
    qtbot.waitUntil(page.convert_button.isEnabled, timeout=10000)
    qtbot.keyClick(page, Qt.Key.Key_Return, Qt.KeyboardModifier.ControlModifier)
    assert song.is_busy
    qtbot.waitUntil(lambda: not song.is_busy, timeout=120_000)
    assert song.state is State.DONE, song.error
    return song


def test_a_dropped_song_is_converted_edited_and_exported(qtbot, page, context, tmp_path):
    """Drop, convert in another key, compare, edit the pitch, convert again with the kept stems, export."""
    drop(page, write_voice(tmp_path / "a tune.flac"))
    choose(page.choices.separation, "none")
    choose(page.choices.key, "5")
    song = convert(qtbot, page)
    first = song.rendering
    assert first.transpose_semitones == 5.0
    assert page.player_bar.version == songs.CONVERTED, "what was made is what one hears next"
    assert set(song.versions) == {songs.ORIGINAL, songs.CONVERTED, songs.CONVERTED_VOCALS, songs.VOCALS}
    converted_hz = estimate_f0(read_audio(song.versions[songs.CONVERTED])).median_hz()
    assert converted_hz == pytest.approx(140.0 * 2 ** (5 / 12), rel=0.03)

    page.axis.select((0.0, 3.0))
    page.plots.up_button.click()
    page.plots.up_button.click()
    assert song.has_new_edits
    song = convert(qtbot, page)
    assert not song.has_new_edits
    assert song.rendering.folder != first.folder
    edited_hz = estimate_f0(read_audio(song.versions[songs.CONVERTED])).median_hz()
    assert edited_hz == pytest.approx(140.0 * 2 ** (7 / 12), rel=0.03)
    renders = context.store.renders()
    assert [render.options["reused_stems"] for render in renders] == [True, False]
    assert "as measured here" in page.choices.cost.text()

    context.settings.update(export_folder=str(tmp_path), export_format="flac")
    page.export_current()
    with qtbot.waitSignal(context.notices.shown, timeout=20000):
        page.findChild(ExportDialog).export_button.click()
    exported = read_audio(tmp_path / "a tune (converted).flac")
    assert exported.seconds == pytest.approx(3.0)
    assert exported.sample_rate == RATE

    window = page.window()
    history = window.show_page("history")
    assert history.table.topLevelItemCount() == 2
    history.open_song()
    assert window.current_page is page
    assert page.queue.current_song is song


def test_the_melody_is_drawn_and_can_be_edited_while_the_song_converts(qtbot, page, tmp_path, monkeypatch):
    """Source and wanted pitch are there before any voice was converted; edits made meanwhile outlive the conversion."""
    may_convert = threading.Event()
    convert_voice = rendering._Render._convert

    def wait_and_convert(render, *args):
        assert may_convert.wait(60)
        convert_voice(render, *args)

    monkeypatch.setattr(rendering._Render, "_convert", wait_and_convert)
    drop(page, write_voice(tmp_path / "a tune.flac"))
    choose(page.choices.separation, "none")
    choose(page.choices.key, "5")
    song = page.queue.current_song
    qtbot.waitUntil(page.convert_button.isEnabled, timeout=10000)
    page.convert_current()
    view = page.plots.pitch
    try:
        qtbot.waitUntil(lambda: view.edits is not None, timeout=60_000)
        assert song.state is State.RUNNING
        assert song.rendering is None
        assert view.edits.source.median_hz() == pytest.approx(140.0, rel=0.03)
        drawn_hz = view.edits.wanted(view.transpose_semitones).median_hz()
        assert drawn_hz == pytest.approx(140.0 * 2 ** (5 / 12), rel=0.03)
        picture = view.grab().toImage()
        inked = {
            picture.pixelColor(x, y).name() for x in range(60, picture.width(), 3) for y in range(picture.height())
        }
        assert {colours().muted, colours().accent} <= inked
        page.axis.select((0.0, 3.0))
        page.plots.up_button.click()
        assert not page.plots.edit_note.text(), "it cannot be converted again yet"
    finally:
        may_convert.set()
    qtbot.waitUntil(lambda: not song.is_busy, timeout=120_000)
    assert song.state is State.DONE, song.error
    assert song.has_new_edits, "this conversion sang without them"
    assert page.plots.edit_note.text()


def test_a_song_is_taken_apart_and_put_together(qtbot, page, context, tmp_path):
    """With the embedded separator: all five versions exist and last as long as the song."""
    mixture = np.stack([voice_like(200.0, 3.0, RATE), voice_like(200.0, 3.0, RATE)])
    mixture += np.stack([noise(1, 3.0, RATE), noise(2, 3.0, RATE)])
    write_audio(tmp_path / "mixture.flac", AudioClip(mixture, RATE))
    drop(page, tmp_path / "mixture.flac")
    song = convert(qtbot, page)
    assert len(song.versions) == 5
    vocals, accompaniment = (read_audio(song.versions[key]) for key in (songs.VOCALS, songs.ACCOMPANIMENT))
    np.testing.assert_allclose(
        vocals.samples + accompaniment.samples,
        read_audio(song.path).samples,
        atol=2e-4,
        err_msg="stems sum to the song",
    )


def test_cancel_leaves_nothing_and_the_queue_goes_on(qtbot, page, context, tmp_path):
    drop(page, write_voice(tmp_path / "one.flac"), write_voice(tmp_path / "two.flac"))
    choose(page.choices.separation, "none")
    one, two = page.queue.songs
    qtbot.waitUntil(lambda: all(song.peaks is not None for song in (one, two)), timeout=10000)
    page.convert_all_button.click()
    qtbot.waitUntil(lambda: one.state is State.RUNNING, timeout=10000)
    page.cancel_button.click()
    qtbot.waitUntil(lambda: not one.is_busy, timeout=10000)
    assert one.state is State.NEW
    qtbot.waitUntil(lambda: not two.is_busy, timeout=120_000)
    assert two.state is State.DONE
    assert len(list((context.data_folder / "renders").iterdir())) == 1, "only the finished one"


def test_a_failing_conversion_is_a_notice_and_leaves_no_folder(qtbot, page, context, tmp_path):
    write_audio(tmp_path / "gone.flac", AudioClip(voice_like(140.0, 1.0, RATE)[None], RATE))
    drop(page, tmp_path / "gone.flac")
    song = page.queue.current_song
    qtbot.waitUntil(page.convert_button.isEnabled, timeout=10000)
    (tmp_path / "gone.flac").unlink()
    with qtbot.waitSignal(context.notices.shown, timeout=20000) as caught:
        page.convert_current()
    assert "gone.flac" in caught.args[0].message
    assert caught.args[0].hint
    qtbot.waitUntil(lambda: song.state is State.FAILED, timeout=5000)
    assert not list((context.data_folder / "renders").glob("*"))


def test_conversion_is_reopened_as_it_was_left(context, kept_voice, tmp_path):
    source = write_voice(tmp_path / "tune.flac")
    folder = songs.new_folder(context.data_folder)
    options = RenderOptions(preset="fast", separation="none")
    made = songs.convert(context.store, source, folder, kept_voice, options, None, JobContext())
    found = songs.reopen(context.store.renders()[0], JobContext())
    assert found is not None
    assert found.files == made.files
    assert found.transpose_semitones == made.transpose_semitones
    np.testing.assert_array_equal(found.source_f0.f0_hz, made.source_f0.f0_hz)
