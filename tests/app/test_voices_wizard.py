import threading
import time

import numpy as np
import pytest

from autovoice_app.views.voices_microphone import MONITOR, TAKE
from autovoice_app.views.voices_prompts import LANGUAGES, PROMPTS, SING
from autovoice_app.views.voices_wizard import VoiceWizard
from engine.signal import AudioClip, write_audio
from tests.fakes import noise, voice_like

RATE = 48000


class Speaker:
    """Feeds the fake microphone in real time: background noise, and a voice while `speaks`."""

    def __init__(self, devices):
        self._devices, self._stopping = devices, threading.Event()
        self.speaks = True
        self._voice = voice_like(150.0, 4.0, RATE, 0.25)
        self._noise = noise(3, 4.0, RATE, 0.0005)
        self._thread = threading.Thread(target=self._run, name="speaker")

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *error):
        self._stopping.set()
        self._thread.join()

    def _run(self):
        place = 0
        while not self._stopping.is_set():
            block = self._noise[place : place + 4800]
            if self.speaks:
                block = block + self._voice[place : place + 4800]
            self._devices.feed(block)
            place = (place + 4800) % (len(self._voice) - 4800)
            time.sleep(0.05)  # twice as fast as real time


@pytest.fixture
def speaker(devices):
    with Speaker(devices) as speaker:
        yield speaker


@pytest.fixture
def wizard(qtbot, context, speaker):
    wizard = VoiceWizard(context)
    qtbot.addWidget(wizard)
    wizard.open()
    qtbot.waitUntil(lambda: wizard.device_combo.count() >= 3, timeout=5000)
    yield wizard
    wizard.reject()


def recording(path, seconds=14.0, f0_hz=140.0):
    """Sung-like syllables with pauses, over quiet noise."""
    voice = voice_like(f0_hz, seconds, RATE, 0.3)
    gate = (np.arange(len(voice)) / RATE % 2.0 < 1.7).astype(np.float32)
    write_audio(path, AudioClip((voice * gate + noise(1, seconds, RATE, 0.0005))[np.newaxis], RATE))
    return path


def test_room_is_checked_and_the_level_moves(qtbot, wizard, speaker):
    wizard._room_timer.setInterval(400)
    qtbot.waitUntil(lambda: wizard.microphone.mode == MONITOR, timeout=5000)
    qtbot.waitUntil(lambda: wizard.level_meter._level > -40, timeout=5000)
    speaker.speaks = False
    wizard.room_button.click()
    qtbot.waitUntil(lambda: "dBFS" in wizard.room_label.text(), timeout=8000)
    assert "quiet" in wizard.room_label.text()


def test_a_take_is_recorded_judged_heard_and_redone(qtbot, wizard, context):
    assert wizard.missing == "Still missing: 25 s more."
    wizard._step(1)
    first_prompt = wizard.prompt_label.text()
    wizard.record_button.click()
    qtbot.waitUntil(lambda: wizard.microphone.mode == TAKE, timeout=5000)
    assert not wizard.next_button.isEnabled()
    qtbot.waitUntil(lambda: wizard.microphone.levels.seconds > 5, timeout=15000)
    assert "s more" in wizard.missing_label.text()
    assert len(wizard.waveform._peaks) > 50
    wizard.record_button.click()
    qtbot.waitUntil(lambda: len(wizard.takes) == 1 and not wizard._judging, timeout=30000)
    assert wizard.takes[0].assessment.voiced_s > 3
    assert wizard.takes[0].path.exists()
    assert wizard.prompt_label.text() != first_prompt
    wizard._play(wizard.takes[0])
    assert context.player.path == wizard.takes[0].path
    old = wizard.takes[0]
    wizard._again(0)
    assert wizard.prompt_label.text() == first_prompt
    qtbot.waitUntil(lambda: wizard.microphone.mode == TAKE, timeout=5000)
    qtbot.waitUntil(lambda: wizard.microphone.levels.seconds > 2, timeout=15000)
    wizard.record_button.click()
    qtbot.waitUntil(lambda: not wizard._judging and wizard.takes[0] is not old, timeout=30000)
    assert len(wizard.takes) == 1
    wizard._drop(0)
    assert wizard.missing == "Still missing: 25 s more."


def test_unplugged_microphone_is_told_and_the_take_so_far_kept(qtbot, wizard, devices):
    wizard._step(1)
    wizard.record_button.click()
    qtbot.waitUntil(lambda: wizard.microphone.mode == TAKE, timeout=5000)
    qtbot.waitUntil(lambda: wizard.microphone.levels.seconds > 1.5, timeout=10000)
    devices.unplug("mic")
    qtbot.waitUntil(lambda: "gone" in wizard.error_label.text(), timeout=10000)
    qtbot.waitUntil(lambda: len(wizard.takes) == 1, timeout=30000)


def test_files_become_a_voice(qtbot, wizard, context, tmp_path):
    folder = tmp_path / "clips"
    folder.mkdir()
    recording(folder / "Grüße 1.wav", 8.0)
    recording(folder / "two.flac", 7.0)
    (folder / "notes.txt").write_text("no audio")
    (folder / "broken.wav").write_text("no audio either")
    wizard.add_files([folder])
    qtbot.waitUntil(lambda: len(wizard.takes) == 2 and not wizard._judging, timeout=60000)
    assert "broken.wav" in wizard.error_label.text()
    assert wizard.next_button.isEnabled()
    wizard._step(1)
    assert "whose voice it is" in wizard.missing
    assert not wizard.make_button.isEnabled()
    wizard.name_line.setText("Grüße")
    wizard.consent_text.setPlainText("My own voice.")
    assert wizard.missing.endswith("s more.")
    assert wizard.make_button.isEnabled(), "little voice is poor, not refused"
    with qtbot.waitSignal(wizard.made, timeout=60000) as made:
        wizard.make_button.click()
    record = made.args[0]
    assert context.store.voice("Grüße") == record
    assert (record.consent, record.num_recordings) == ("My own voice.", 2)
    assert (folder / "two.flac").read_bytes() == context.store.recordings(record)[1].original.read_bytes()


def test_too_little_voice_does_not_go_on_and_says_why(qtbot, wizard, tmp_path):
    wizard.add_files([recording(tmp_path / "short.wav", 4.0)])
    qtbot.waitUntil(lambda: len(wizard.takes) == 1 and not wizard._judging, timeout=60000)
    assert not wizard.next_button.isEnabled()
    assert "at least 10 s" in wizard.next_button.toolTip()
    assert wizard.missing.startswith("Still missing: 2")


def test_every_language_has_prompts_of_some_length():
    assert set(LANGUAGES) == set(PROMPTS)
    for prompts in (*PROMPTS.values(), SING):
        assert len(set(prompts)) == len(prompts) >= 4
        assert all(40 < len(prompt) < 220 for prompt in prompts)
