"""The player against files on disk, through its real callback."""

import time

import numpy as np
import pytest

from engine.devices.playback import OutputPlayer
from engine.signal import AudioClip, write_audio
from tests.fakes import FakeDevices, tone


def wait_for(condition, timeout_s=5.0):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.005)


@pytest.fixture
def devices():
    return FakeDevices()


@pytest.fixture
def player(devices):
    player = OutputPlayer(devices)
    yield player
    player.close()


def write(path, samples, sample_rate=48000):
    write_audio(path, AudioClip(np.stack([samples, samples]), sample_rate))
    return path


def ramp(seconds, start=0.0):
    return (start + np.arange(round(seconds * 48000)) / 48000 / 100).astype(np.float32)


def play(player, path, position_s=0.0):
    player.load(path, position_s=position_s)
    player.play()
    wait_for(lambda: player.state.is_playing)


def test_plays_what_the_file_holds_from_the_given_place(player, devices, tmp_path):
    play(player, write(tmp_path / "ramp.wav", ramp(3.0)), position_s=1.0)
    heard = np.concatenate([devices.drain(480) for _ in range(20)])
    np.testing.assert_allclose(heard, ramp(3.0)[48000 : 48000 + len(heard)], atol=1e-4)
    assert player.position_s == pytest.approx(1.2)


def test_switching_keeps_the_place_to_the_sample(player, devices, tmp_path):
    """Both files hold their own time as level, so what is heard tells where it came from."""
    play(player, write(tmp_path / "a.wav", ramp(5.0)))
    other = write(tmp_path / "b.wav", ramp(5.0, start=0.5))
    devices.drain(4800)
    player.load(other)
    wait_for(lambda: player.state.path == other)
    heard = np.concatenate([devices.drain(480) for _ in range(30)])
    expected = ramp(5.0)[4800 : 4800 + len(heard)]
    offset = heard - expected
    np.testing.assert_allclose(offset[:480], 0.0, atol=1e-4)
    np.testing.assert_allclose(offset[-4800:], 0.5, atol=1e-4)
    assert np.abs(np.diff(offset)).max() < 0.01, "the change is faded"


def test_seeking_while_playing_and_while_paused(player, devices, tmp_path):
    play(player, write(tmp_path / "a.wav", ramp(5.0)))
    devices.drain(480)
    player.seek(3.0)
    wait_for(lambda: devices.drain(480)[-1] > 0.0295)
    assert 3.0 <= player.position_s < 3.3
    player.pause()
    wait_for(lambda: not player.state.is_playing)
    assert not devices.drain(480).any()
    player.seek(1.0)
    player.play()
    wait_for(lambda: player.state.is_playing)
    np.testing.assert_allclose(devices.drain(480), ramp(5.0)[48000:48480], atol=1e-4)


def test_ends_by_itself_and_starts_over(player, devices, tmp_path):
    play(player, write(tmp_path / "short.wav", tone(seconds=0.3)))

    def pull():
        devices.drain(2400)
        return not player.state.is_playing

    wait_for(pull)
    assert player.position_s == pytest.approx(0.3)
    player.play()
    wait_for(lambda: player.state.is_playing)
    assert player.position_s < 0.1


def test_another_rate_is_resampled_and_mono_goes_to_both_sides(player, devices, tmp_path):
    path = tmp_path / "mono.wav"
    write_audio(path, AudioClip(tone(440.0, 2.0, 22050)[None], 22050))
    play(player, path, position_s=0.5)
    heard = np.concatenate([devices.drain(480) for _ in range(20)])
    spectrum = np.abs(np.fft.rfft(heard * np.hanning(len(heard))))
    assert np.argmax(spectrum) * 48000 / len(heard) == pytest.approx(440.0, abs=3.0)


def test_unplugged_output_is_told_and_the_place_is_kept(player, devices, tmp_path):
    play(player, write(tmp_path / "a.wav", ramp(5.0)))
    devices.drain(4800)
    devices.unplug("speakers")
    wait_for(lambda: player.state.error is not None)
    assert player.state.error.hint
    assert not player.state.is_playing
    assert player.position_s == pytest.approx(0.1)
    player.play()  # the headset is left, at another rate
    wait_for(lambda: player.state.is_playing)


def test_unreadable_file_is_told(player, tmp_path):
    (tmp_path / "text.wav").write_text("no sound")
    player.load(tmp_path / "text.wav")
    wait_for(lambda: player.state.error is not None)
    assert "text.wav" in player.state.error.message
