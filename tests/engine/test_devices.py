import time
import tracemalloc

import numpy as np
import pytest

from engine.devices import CaptureEnd, InputRecorder, PlaybackEnd, SampleRing, choose_device, open_stream
from engine.errors import AudioDeviceError
from tests.fakes import FakeDevices, noise, tone


def test_ring_keeps_order_across_its_end_and_refuses_what_does_not_fit():
    ring = SampleRing(64)
    samples, out = np.arange(1000, dtype=np.float32), np.zeros(48, dtype=np.float32)
    for start in range(0, 960, 48):
        assert ring.write(samples[start : start + 48])
        assert not ring.write(samples[:48])
        assert ring.read_into(out)
        np.testing.assert_array_equal(out, samples[start : start + 48])
    assert not ring.read_into(out)


def test_playback_waits_for_its_prefill_then_plays_everything_in_order():
    end = PlaybackEnd(48000, prefill_samples=960)
    out = np.full((480, 2), np.nan, dtype=np.float32)
    signal = tone(seconds=0.1)
    played = []
    for start in range(0, len(signal), 480):
        end.ring.write(signal[start : start + 480])
        end.on_block(out, False)
        played.append(out[:, 1].copy())
    heard = np.concatenate(played)
    assert not heard[:480].any()  # the first block alone is less than the prefill
    np.testing.assert_array_equal(heard[480 + 144 :], signal[144:-480])
    assert end.underflows == 0


def test_underflow_fades_to_silence_without_a_click_and_comes_back_with_a_fade():
    end = PlaybackEnd(48000, prefill_samples=480)
    signal = tone(200, 0.2)
    out = np.empty((480, 1), dtype=np.float32)
    heard, position = [], 0
    for turn in range(16):
        if turn not in (5, 6, 7):
            count = 300 if turn == 4 else 480
            end.ring.write(signal[position : position + count])
            position += count
        end.on_block(out, False)
        heard.append(out[:, 0].copy())
    steps = np.abs(np.diff(np.concatenate(heard)))
    assert end.underflows == 1
    assert steps.max() < 2 * np.abs(np.diff(signal)).max()
    assert not heard[6].any()
    assert np.abs(heard[-1]).max() > 0.4


def test_callbacks_create_no_arrays():
    capture, playback = CaptureEnd(48000, channel=None), PlaybackEnd(48000, prefill_samples=480)
    block, out = np.zeros((256, 2), dtype=np.float32), np.zeros((256, 2), dtype=np.float32)
    moved = np.zeros(256, dtype=np.float32)

    def turn():
        capture.on_block(block, False)
        if capture.ring.read_into(moved):
            playback.ring.write(moved)
        playback.on_block(out, False)

    for _ in range(50):
        turn()
    tracemalloc.start()
    for number in range(2000):
        if number % 100 < 97:
            turn()
        else:
            playback.on_block(out, False)  # nothing new: underflows are part of it
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert playback.underflows > 10
    assert peak < block[:, 0].nbytes * 4


def test_recorder_keeps_what_the_microphone_heard_and_shows_levels():
    devices = FakeDevices()
    recorder = InputRecorder(devices)
    recorder.start()
    signal = noise(1, seconds=0.3)
    devices.pump(signal)
    time.sleep(0.05)
    levels = recorder.levels
    clip = recorder.stop()
    np.testing.assert_array_equal(clip.samples[0], signal)
    assert clip.sample_rate == 48000
    assert -22 < levels.rms_dbfs < -18
    assert levels.seconds == pytest.approx(0.3)
    assert not levels.clipped
    assert not devices.streams


def test_recorder_says_when_the_microphone_is_pulled_and_keeps_the_rest():
    devices = FakeDevices()
    recorder = InputRecorder(devices)
    recorder.start()
    devices.pump(tone(seconds=0.1))
    devices.unplug("mic")
    deadline = time.monotonic() + 2
    while recorder.is_recording and time.monotonic() < deadline:
        time.sleep(0.01)
    assert recorder.levels.error is not None
    assert recorder.levels.error.hint
    assert recorder.stop().num_samples == 4800


def test_devices_are_found_by_id_name_part_or_default():
    devices = FakeDevices().devices()
    assert choose_device(devices, None, is_input=True).name == "Microphone"
    assert choose_device(devices, "Fake: headset", is_input=False).name == "Headset"
    assert choose_device(devices, "head", is_input=True).name == "Headset"
    with pytest.raises(AudioDeviceError, match="Several"):
        choose_device(devices, "fake", is_input=False)
    with pytest.raises(AudioDeviceError, match="no output device 'mic'"):
        choose_device(devices, "mic", is_input=False)


def test_refused_rate_is_a_device_error():
    devices = FakeDevices(refused_rates=(96000,))
    with pytest.raises(AudioDeviceError, match="96000"):
        open_stream(devices, sample_rate=96000, block_samples=480, input_device=devices.device("mic"))
