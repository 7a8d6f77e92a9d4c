import sys
import threading
import time

import numpy as np
import pytest
from PySide6.QtCore import QEvent, QPoint, Qt
from PySide6.QtGui import QKeyEvent
from PySide6.QtWidgets import QApplication

from autovoice_app.views import live
from autovoice_app.views.live_choices import BUILTIN_PRESETS, LiveChoices
from autovoice_app.views.live_plot import LivePlot
from engine.conversion.voice import Voice, voice_model_id
from engine.live import HistoryView, LiveSettings, LiveState
from tests.fakes import FakeConverter, voice_like


@pytest.fixture
def converter(monkeypatch):
    converter = FakeConverter(f0_hz=110.0)

    def make_stream(voice):
        converter.voice = voice
        return converter

    monkeypatch.setattr(live, "make_stream", make_stream)
    return converter


@pytest.fixture
def page(window, context, converter):
    for name, f0_hz in (("Ada", 220.0), ("Ben", 110.0)):
        embedding = np.full(4, 0.5, dtype=np.float32)
        context.store.add_voice(
            Voice(name, embedding, {}, f0_hz, (80.0, 400.0), voice_model_id()), consent="me", seconds=40.0
        )
    page = window.show_page("live")
    page.use_voice(context.store.voice("Ada").id)
    page.controls.block.setCurrentIndex(2)  # 10 ms, not measured
    page.controls.block.activated.emit(2)
    yield page
    page.shut_down()


def pump(qtbot, devices, condition, signal=None, seconds=10.0):
    """Let the devices hear `signal` over and over, and the window live, until the condition holds."""
    signal = np.zeros(4800, dtype=np.float32) if signal is None else signal
    deadline, turn = time.monotonic() + seconds, 0
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        start = turn * 480 % (len(signal) - 479)
        devices.feed(signal[start : start + 480])
        devices.drain(480)
        qtbot.wait(9)
        turn += 1


def go_live(qtbot, devices, page):
    page.start_button.click()
    pump(qtbot, devices, lambda: page.sign.text not in ("STARTING", "OFF"))


def test_going_live_shows_state_levels_pitch_and_delay_and_stops_again(qtbot, devices, page, window):
    assert page.sign.text == "OFF"
    go_live(qtbot, devices, page)
    assert page.sign.text == "LIVE"
    assert "LIVE" in window.windowTitle()
    assert page.start_button.text() == "Stop"
    pump(qtbot, devices, lambda: "+12.0" in page.pitch_text.text(), voice_like(110, 1.0))
    assert page.pitch_text.text().startswith("A2 → A3")
    assert float(page.latency_bar.accessibleDescription().split()[0]) > 40
    assert "xrun" in page.counts_text.text()
    page.start_button.click()
    qtbot.waitUntil(lambda: not page.is_live, timeout=5000)
    assert page.sign.text == "OFF"
    assert window.windowTitle() == "AutoVoice"
    assert not devices.streams


def test_mute_bypass_and_push_to_talk_change_what_goes_out(qtbot, devices, page):
    go_live(qtbot, devices, page)
    page.mute_button.click()
    assert page.sign.text == "MUTED"
    assert page.session.settings.muted
    page.mute_button.click()
    page.bypass_button.click()
    assert page.sign.text == "BYPASSED"
    assert page.session.settings.bypassed
    page.bypass_button.click()
    page.talk_button.click()
    assert page.session.settings.muted
    assert "Space" in page.message.text()
    press = QKeyEvent(QEvent.Type.KeyPress, Qt.Key.Key_Space, Qt.KeyboardModifier.NoModifier)
    QApplication.sendEvent(page, press)
    assert not page.session.settings.muted
    QApplication.sendEvent(page, QKeyEvent(QEvent.Type.KeyRelease, Qt.Key.Key_Space, Qt.KeyboardModifier.NoModifier))
    assert page.session.settings.muted
    qtbot.mousePress(page.talk_button, Qt.MouseButton.LeftButton, pos=QPoint(5, 5))
    qtbot.waitUntil(lambda: not page.session.settings.muted, timeout=2000)
    qtbot.mouseRelease(page.talk_button, Qt.MouseButton.LeftButton, pos=QPoint(5, 5))
    assert page.session.settings.muted
    assert page.talk_button.isChecked()


def test_voices_switch_in_one_click_without_a_restart(qtbot, devices, page, converter, context):
    ben = context.store.voice("Ben").id
    page.use_voice(ben)
    page.star_button.click()
    page.use_voice(context.store.voice("Ada").id)
    go_live(qtbot, devices, page)
    assert converter.voice.name == "Ada"
    opened = devices.opened
    favourite = next(
        page.favourites.itemAt(i).widget()
        for i in range(page.favourites.count())
        if page.favourites.itemAt(i).widget() and page.favourites.itemAt(i).widget().property("voice") == ben
    )
    favourite.click()
    pump(qtbot, devices, lambda: converter.voice.name == "Ben")
    assert devices.opened == opened
    assert page.voice_picker.currentText() == "Ben"
    assert context.store.voice("Ben").last_used is not None


def test_unplugged_microphone_is_a_notice_and_live_resumes(qtbot, devices, page, window):
    go_live(qtbot, devices, page)
    devices.unplug("mic")
    qtbot.waitUntil(lambda: page.sign.text == "PAUSED", timeout=5000)
    assert any("microphone" in message for message in window.notice_bar.messages)
    devices.plug_in("mic")
    pump(qtbot, devices, lambda: page.sign.text == "LIVE")
    assert any("back" in message for message in window.notice_bar.messages)


def test_every_control_reaches_the_session_and_is_remembered(qtbot, devices, page, context):
    go_live(qtbot, devices, page)
    controls = page.controls
    controls.auto.click()
    controls.transpose.slider.setValue(-5)
    for name, value in (("formant_semitones", 4), ("input_gain_db", 6), ("output_gain_db", -3), ("wet", 10)):
        controls._sliders[name].slider.setValue(value)
    controls._sliders["gate_threshold_dbfs"].slider.setValue(-40)
    controls._sliders["high_pass_hz"].slider.setValue(12)
    controls.denoise.click()
    settings = page.session.settings
    assert settings == LiveSettings(
        transpose=-5.0, formant_semitones=2.0, input_gain_db=6.0, output_gain_db=-3.0, wet=0.5,
        gate_threshold_dbfs=-40.0, high_pass_hz=120.0, noise_suppression=True,
    )  # fmt: skip
    controls.save_preset("Mine")
    controls.preset.setCurrentIndex(controls.preset.findData("Quiet room"))
    controls.preset.activated.emit(0)
    assert page.session.settings == BUILTIN_PRESETS["Quiet room"]
    kept = LiveChoices.from_text(context.settings.current.live_choices)
    assert kept.presets["Mine"].transpose == -5.0
    assert kept.options.block_ms == 10.0


def test_another_device_restarts_live_on_it(qtbot, devices, page):
    qtbot.waitUntil(lambda: page.controls.output.count() == 3, timeout=5000)
    go_live(qtbot, devices, page)
    page.controls.output.setCurrentIndex(page.controls.output.findData("Fake: headset"))
    page.controls.output.activated.emit(0)
    headset = devices.device("headset")
    pump(qtbot, devices, lambda: any(s.request.output_device == headset for s in devices.streams))
    pump(qtbot, devices, lambda: page.sign.text == "LIVE")


def test_recording_lies_beside_its_dry_voice(qtbot, devices, page, context, tmp_path):
    context.settings.update(export_folder=str(tmp_path / "takes"))
    assert not page.record_button.isEnabled()
    go_live(qtbot, devices, page)
    page.record_button.click()
    pump(qtbot, devices, lambda: (page.session.snapshot.recording_seconds or 0) > 0.2)
    page.start_button.click()
    qtbot.waitUntil(lambda: not page.is_live, timeout=5000)
    names = sorted(path.name for path in (tmp_path / "takes").iterdir())
    assert len(names) == 2
    assert names[0].endswith("-dry.flac") or names[1].endswith("-dry.flac")


def test_live_without_a_voice_or_with_busy_models_says_why(qtbot, devices, page, window, context):
    running = []
    task = context.tasks.create("Rendering", lambda ctx: running.append(1) or time.sleep(1.5))
    task.start()
    qtbot.waitUntil(lambda: bool(running), timeout=3000)
    page.start_button.click()
    qtbot.waitUntil(lambda: not page.is_live, timeout=5000)
    assert any("in use" in message for message in window.notice_bar.messages)
    page.voice_picker.clear()
    page.start_button.click()
    assert any("no voice" in message for message in window.notice_bar.messages)
    qtbot.waitUntil(lambda: not context.tasks.open_tasks, timeout=5000)


def test_renders_wait_for_live_and_say_so(qtbot, devices, page, context):
    go_live(qtbot, devices, page)
    done = []
    task = context.tasks.create("Rendering", lambda ctx: done.append(1))
    task.start()
    pump(qtbot, devices, lambda: "live" in task.ctx.progress.stage)
    assert not done
    page.start_button.click()
    qtbot.waitUntil(lambda: bool(done), timeout=5000)


def test_global_hotkeys_press_the_buttons_and_say_when_they_cannot(qtbot, devices, page, window, monkeypatch):
    monkeypatch.setitem(sys.modules, "pynput.keyboard", None)  # as where it is not installed
    page.controls.hotkeys.click()
    assert not page.controls.hotkeys.isChecked()
    assert any("hotkeys" in message for message in window.notice_bar.messages)

    class Keyboard:
        class GlobalHotKeys(threading.Thread):
            def __init__(self, hotkeys):
                super().__init__()
                self.hotkeys, self.stopped = hotkeys, threading.Event()

            def run(self):
                self.hotkeys["<ctrl>+<alt>+m"]()
                self.stopped.wait()

            def stop(self):
                self.stopped.set()

    monkeypatch.setitem(sys.modules, "pynput.keyboard", Keyboard)
    page.controls.hotkeys.click()
    qtbot.waitUntil(page.mute_button.isChecked, timeout=3000)
    page.controls.hotkeys.click()
    assert page.hotkeys._listener is None


def test_closing_the_window_ends_the_session(qtbot, devices, page, window):
    go_live(qtbot, devices, page)
    session = page.session
    window.close()
    assert session.snapshot.state is LiveState.STOPPED
    assert not devices.streams


def test_choices_that_do_not_parse_become_defaults():
    assert LiveChoices.from_text("{nonsense") == LiveChoices()
    assert (
        LiveChoices.from_text('{"settings": {"wet": 7, "transpose": "x"}, "favourites": 3, "presets": []}')
        == LiveChoices()
    )
    assert LiveChoices.from_text(LiveChoices(host_api="ALSA").to_text()) == LiveChoices(host_api="ALSA")


def history_views(count, step):
    """A history that grows by `step` columns from view to view."""
    rng = np.random.default_rng(0)
    total = 1000 + count * step
    low, high = -rng.uniform(0, 0.5, total).astype(np.float32), rng.uniform(0, 0.5, total).astype(np.float32)
    f0 = np.where(rng.random(total) < 0.2, np.nan, 150 + 20 * np.sin(np.arange(total) / 9)).astype(np.float32)
    for last in range(1000, total, step):
        part = slice(last - 1000, last)
        yield HistoryView(
            low[part], high[part], 0.5 * low[part], high[part], f0[part], f0[part] * np.float32(1.5), last
        )


def make_plot(qtbot, width=900):
    plot = LivePlot()
    qtbot.addWidget(plot)
    plot.resize(width, 420)
    return plot


@pytest.mark.parametrize("width", [900, 300, 1400])
def test_scrolling_draws_what_drawing_anew_would(qtbot, window, width):
    plot = make_plot(qtbot, width)
    for view in history_views(200, 7):
        plot.show_history(view)
        scrolled = plot.grab().toImage()
    fresh = make_plot(qtbot, width)
    fresh.show_history(view)
    width = min(width, 900)  # a history of 10 s; older columns are only in the one that scrolled
    part = scrolled.rect().adjusted(scrolled.width() - width + 45, 0, 0, 0)
    assert scrolled.copy(part) == fresh.grab().toImage().copy(part)
    plot.show_history(None)
    fresh.show_history(None)
    assert plot.grab().toImage() == fresh.grab().toImage() != scrolled


def test_thirty_repaints_a_second_cost_under_a_tenth_of_a_core(qtbot, window):
    plot = make_plot(qtbot)
    views = list(history_views(31, 3))
    plot.show_history(views[0])
    plot.grab()
    started = time.process_time()
    for each in views[1:]:
        plot.show_history(each)
        plot.grab()
    assert time.process_time() - started < 0.1  # 30 frames, the most that a second brings
