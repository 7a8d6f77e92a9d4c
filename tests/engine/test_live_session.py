import json
import threading
import time
from dataclasses import replace

import numpy as np
import pytest

from engine.errors import EngineBusyError
from engine.live import LiveOptions, LiveSession, LiveSettings, LiveState, dry_path, session_stats
from engine.live.session import LiveVoice
from engine.models import lease
from engine.signal import read_audio
from tests.fakes import FakeConverter, FakeDevices, noise, voice_like

PLAIN = LiveSettings(transpose=0.0, gate_enabled=False, high_pass_hz=0.0)


@pytest.fixture
def devices():
    return FakeDevices()


@pytest.fixture
def make_session(devices):
    sessions = []

    def make(converter=None, *, settings=PLAIN, voice=None, **options):
        converter = converter or FakeConverter()
        voice = voice or LiveVoice("ada", 220.0)
        options = LiveOptions(**{"block_ms": 10.0, **options})
        session = LiveSession(devices, lambda voice: converter, voice, options, settings)
        sessions.append(session)
        return session

    yield make
    for session in sessions:
        session.stop()


def wait_for(condition, seconds=30.0, devices=None):
    """Wait, while the devices go on hearing silence."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        if devices:
            devices.pump(np.zeros(960, dtype=np.float32))
        else:
            time.sleep(0.01)


def say(devices, converter, samples):
    """Speak in step with the session, however slow the machine is; returns what was heard."""
    return devices.pump(samples, taken=lambda: converter.pushes)


def go_live(session, devices):
    session.start()
    wait_for(lambda: session.snapshot.state is not LiveState.STARTING, devices=devices)
    assert session.snapshot.state is LiveState.LIVE, session.snapshot


def test_what_the_microphone_hears_comes_out_converted_and_complete(devices, make_session):
    converter = FakeConverter()
    session = make_session(converter)
    go_live(session, devices)
    signal = np.convolve(noise(4, 0.6, amplitude=0.4), np.hanning(33) / 8, "same").astype(np.float32)
    heard = say(devices, converter, np.concatenate([signal, np.zeros(9600, dtype=np.float32)]))
    start = signal[:2400]  # short, since the correction for drift stretches what is long
    correlation = np.correlate(heard, start, "valid")
    at = int(np.argmax(np.abs(correlation)))
    assert correlation[at] / np.sum(np.square(start)) == pytest.approx(-0.5, abs=0.1)  # the fake's mark
    assert np.sum(np.square(heard)) == pytest.approx(np.sum(np.square(signal)) / 4, rel=0.1)  # nothing is missing
    assert session.snapshot.counts.xruns == 0
    # The delay is what the parts say, without the devices' (the fake ones have none).
    parts = session.snapshot.latency
    stated = parts.total - parts.input_device - parts.output_device
    assert at / 48 == pytest.approx(stated + 5, abs=11)  # half a block: pumping asks for output at once
    stats = session_stats(session, session.snapshot)
    json.dumps(stats, allow_nan=False)
    assert stats["blocks"] > 50
    parts_ms = [value for name, value in stats["latency_ms"].items() if name != "sum"]
    assert stats["latency_ms"]["sum"] == pytest.approx(sum(parts_ms), abs=0.1)


def test_delay_does_not_grow_when_the_machine_stalls(devices, make_session):
    converter = FakeConverter()
    session = make_session(converter)
    go_live(session, devices)
    converter.work_s = 0.3  # one push takes 30 blocks
    devices.pump(np.zeros(4800, dtype=np.float32))
    converter.work_s = 0.0
    devices.pump(np.zeros(24000, dtype=np.float32))
    wait_for(lambda: session.snapshot.counts.dropped_blocks > 10, devices=devices)
    assert session.snapshot.counts.output_underflows > 0
    devices.pump(np.zeros(72000, dtype=np.float32))
    signal = noise(6, 0.3, amplitude=0.2)
    heard = devices.pump(np.concatenate([signal, np.zeros(14400, dtype=np.float32)]))
    at = int(np.argmax(np.abs(np.correlate(heard, signal[:2400], "valid"))))
    assert at / 48 < 20 + 70  # the fake's 20 ms and bounded buffers


def test_unplugging_pauses_and_replugging_resumes(devices, make_session):
    session = make_session()
    go_live(session, devices)
    devices.unplug("speakers")
    wait_for(lambda: session.snapshot.state is LiveState.PAUSED)
    assert session.snapshot.error.message == "The output device is gone."
    assert session.snapshot.hint
    time.sleep(0.6)
    assert session.snapshot.state is LiveState.PAUSED
    devices.plug_in("speakers")
    wait_for(lambda: session.snapshot.state is LiveState.LIVE, devices=devices)
    assert session.snapshot.counts.device_losses == 1


def test_a_stream_that_stands_still_is_opened_again_with_more_buffering(devices, make_session, caplog):
    session = make_session()
    go_live(session, devices)
    assert devices.streams[0].request.latency_s == pytest.approx(0.02)
    opened = devices.opened
    wait_for(lambda: devices.opened > opened)  # no callbacks any more, though the devices are there
    wait_for(
        lambda: session.snapshot.state is LiveState.LIVE and session.snapshot.counts.device_losses, devices=devices
    )
    assert devices.streams[0].request.latency_s == pytest.approx(0.04)
    assert "more buffering" in caplog.text


def test_devices_that_stumble_often_get_more_buffering(devices, make_session, caplog):
    session = make_session()
    go_live(session, devices)
    opened = devices.opened
    for _ in range(6):
        devices.feed(np.zeros(480, dtype=np.float32))
        devices.drain(480, xrun=True)
    wait_for(lambda: devices.opened > opened, devices=devices)
    wait_for(lambda: session.snapshot.state is LiveState.LIVE, devices=devices)
    assert devices.streams[0].request.latency_s == pytest.approx(0.04)
    assert "stumbles" in caplog.text


def test_missing_device_and_refused_rate_fail_with_a_hint(devices, make_session):
    missing = make_session(input_device="no such")
    missing.start()
    wait_for(lambda: not missing.is_running)
    assert missing.snapshot.state is LiveState.FAILED
    assert "no such" in missing.snapshot.message
    devices.refused_rates = (44100,)
    refused = make_session(output_device="headset")
    refused.start()
    wait_for(lambda: not refused.is_running)
    assert refused.snapshot.state is LiveState.FAILED
    assert "44100" in refused.snapshot.message
    assert refused.snapshot.hint
    assert not devices.streams


def test_devices_of_other_rates_are_resampled_at_the_edge(devices, make_session):
    session = make_session(input_device="headset", output_device="headset")
    session.start()
    tone = voice_like(200, 3.0, 44100)
    heard = []
    for start in range(0, len(tone) - 441, 441):
        devices.feed(tone[start : start + 441])
        heard.append(devices.drain(441))
        time.sleep(0.01)
    assert session.snapshot.state is LiveState.LIVE

    def strongest_hz(samples):
        return np.argmax(np.abs(np.fft.rfft(samples[-44100:] * np.hanning(44100))))

    assert strongest_hz(np.concatenate(heard)) == pytest.approx(strongest_hz(tone), abs=2)
    assert session.snapshot.latency.resampling > 9


def test_voice_settings_and_mute_change_while_running(devices, make_session):
    converter = FakeConverter(f0_hz=110.0)
    session = make_session(converter, settings=replace(PLAIN, transpose="auto"))
    go_live(session, devices)
    say(devices, converter, voice_like(110, 2.5))
    assert session.snapshot.transpose_settled
    assert session.snapshot.transpose_semitones == pytest.approx(12.0)
    session.voice = LiveVoice("eve", 165.0)
    say(devices, converter, voice_like(110, 0.2))
    assert converter.voice == "eve"
    assert session.snapshot.transpose_semitones == pytest.approx(7.0, abs=0.1)
    session.settings = replace(session.settings, transpose=-3.0, formant_semitones=2.0, muted=True)
    heard = say(devices, converter, voice_like(110, 0.5))
    assert (converter.transpose_semitones, converter.formant_semitones) == (-3.0, 2.0)
    assert not heard[-4800:].any()
    assert session.snapshot.output_peak_dbfs < -100
    assert session.snapshot.input_peak_dbfs > -20
    view = session.history.view()
    assert view.source_high[-20:].max() > 0.1
    assert view.converted_high[-5:].max() == 0
    assert np.nanmax(view.source_f0_hz) == pytest.approx(110)


def test_one_device_that_records_and_plays_gets_one_stream(devices, make_session):
    converter = FakeConverter()
    session = make_session(converter, input_device="headset", output_device="headset")
    go_live(session, devices)
    (stream,) = devices.streams
    assert stream.request.input_device is stream.request.output_device is devices.device("headset")
    heard = say(devices, converter, voice_like(110, 0.5))
    assert 0.1 < np.abs(heard).max() < 0.2  # the fake's half
    devices.feed(np.zeros(441, dtype=np.float32), xrun=True)
    devices.drain(441, xrun=True)
    wait_for(lambda: session.snapshot.counts.device_xruns, devices=devices)
    assert session.snapshot.counts.device_xruns == 1  # both halves of the stream tell of the same one
    devices.unplug("headset")
    wait_for(lambda: session.snapshot.state is LiveState.PAUSED)
    devices.plug_in("headset")
    wait_for(lambda: session.snapshot.state is LiveState.LIVE, devices=devices)
    assert len(devices.streams) == 1
    # Another rate on one side means two streams.
    session.stop()
    session = make_session(FakeConverter(), input_device="headset", output_device="headset", output_rate=48000)
    go_live(session, devices)
    assert len(devices.streams) == 2


def test_monitor_hears_the_same(devices, make_session):
    session = make_session(monitor_device="headset", settings=replace(PLAIN, monitor_gain_db=-6.0))
    go_live(session, devices)
    played = {stream.request.output_device.name: [] for stream in devices.streams if stream.request.output_device}
    assert sorted(played) == ["Headset", "Speakers"]
    for start in range(0, 48000, 480):
        devices.feed(noise(start, 0.01, amplitude=0.2))
        for stream in devices.streams:
            if stream.request.output_device:
                headset = stream.request.sample_rate == 44100
                played[stream.request.output_device.name].append(stream.drain(441 if headset else 480))
        time.sleep(0.01)
    levels = {name: np.sqrt(np.mean(np.square(np.concatenate(blocks[-40:])))) for name, blocks in played.items()}
    assert levels["Headset"] == pytest.approx(0.5 * levels["Speakers"], rel=0.15)


def test_recording_holds_both_voices(devices, make_session, tmp_path):
    converter = FakeConverter()
    session = make_session(converter, record=tmp_path / "talk.flac")
    go_live(session, devices)
    signal = noise(8, 0.5, amplitude=0.2)
    say(devices, converter, np.concatenate([signal, np.zeros(4800, dtype=np.float32)]))
    session.stop_recording()
    wait_for(lambda: dry_path(tmp_path / "talk.flac").exists(), devices=devices)
    converted, dry = read_audio(tmp_path / "talk.flac"), read_audio(dry_path(tmp_path / "talk.flac"))
    assert converted.num_samples == dry.num_samples > len(signal)
    at = int(np.argmax(np.correlate(dry.samples[0], signal, "valid")))
    np.testing.assert_allclose(dry.samples[0, at : at + len(signal)], signal, atol=1e-6)
    late = int(np.argmax(np.abs(np.correlate(converted.samples[0], signal, "valid")))) - at
    assert late / 48 == pytest.approx(session.snapshot.latency.algorithmic, abs=0.1)


def test_recording_to_a_missing_folder_is_said_and_live_goes_on(devices, make_session, tmp_path):
    session = make_session()
    go_live(session, devices)
    session.start_recording(tmp_path / "nowhere" / "talk.flac")
    seen = []
    wait_for(lambda: seen.append(session.snapshot.notice) or session.snapshot.notice, devices=devices)
    assert "nowhere" in session.snapshot.notice.message
    assert session.snapshot.state is LiveState.LIVE


def test_live_and_renders_keep_out_of_each_others_way(devices, make_session):
    session = make_session()
    with lease():
        session.start()
        wait_for(lambda: not session.is_running)
    assert isinstance(session.snapshot.error, EngineBusyError)
    go_live(session, devices)
    with pytest.raises(EngineBusyError), lease():
        pass


def test_fifty_rapid_starts_and_stops_leave_nothing_behind(devices, make_session):
    session = make_session()
    threads = threading.active_count()
    for turn in range(50):
        session.start()
        time.sleep(0.003 * (turn % 5))
        session.stop()
        assert session.snapshot.state is LiveState.STOPPED
    assert not devices.streams
    assert threading.active_count() == threads


def test_auto_block_is_measured_before_the_devices_open(devices, make_session, monkeypatch):
    session = make_session(block_ms="auto")
    measured, plain_open = [], devices.open

    def watched_open(request, callback):
        measured.append(len(session.measurements))
        return plain_open(request, callback)

    monkeypatch.setattr(devices, "open", watched_open)
    session.start()
    wait_for(lambda: len(measured) == 2)
    assert all(measured)
    assert session.snapshot.block_ms == session.measurements[-1].block_ms
