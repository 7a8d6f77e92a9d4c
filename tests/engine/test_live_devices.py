"""Live mode on real PortAudio streams of a private PulseAudio server."""

import shutil
import time
from dataclasses import replace

import numpy as np
import pytest

from engine.bench.roundtrip import MICROPHONE, SPEAKERS, Listener, Passthrough, PrivatePulse, delay_ms
from engine.conversion import embed_voice, load_converter, similarity
from engine.devices import InputRecorder, choose_device, pulse, system_devices
from engine.live import LiveOptions, LiveSession, LiveSettings, LiveState, LiveVoice
from engine.pitch import estimate_f0
from engine.signal import AudioClip, resample
from tests.fakes import FakeConverter, noise
from tests.synthetic_speech import speak

pytestmark = [
    pytest.mark.audio_device,
    pytest.mark.skipif(shutil.which("pulseaudio") is None, reason="PulseAudio is not installed"),
]

OPTIONS = LiveOptions(input_device=MICROPHONE, output_device=SPEAKERS, block_ms=10.0)
PLAIN = LiveSettings(transpose=0.0, gate_enabled=False, high_pass_hz=0.0)


@pytest.fixture(scope="module")
def server():
    with PrivatePulse() as server:
        system_devices().devices(refresh=True)
        yield server


def speech(seed, **manner):
    """Ten seconds of generated speech, [N] at 48 kHz."""
    clip = speak("masetinalokiremoSutefa.zilanemu.sorikalenaSimo.rafunetilomas.enuSifa.", seed=seed, **manner)[0]
    samples = resample(clip, 48000).samples[0]
    return np.resize(samples, 480000)


def make_session(make_stream=None, voice=None, settings=PLAIN, **options):
    return LiveSession(
        system_devices(),
        make_stream or (lambda voice: FakeConverter(960)),
        voice or LiveVoice(None, float("nan")),
        replace(OPTIONS, **options),
        settings,
    )


def wait_for(condition, seconds=30.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def go_live(session):
    session.start()
    wait_for(lambda: session.snapshot.state not in (LiveState.STARTING, LiveState.STOPPED))
    assert session.snapshot.state is LiveState.LIVE, session.snapshot


def test_devices_are_listed_by_the_servers_names(server):
    devices = system_devices().devices()
    assert choose_device(devices, "mic.monitor", is_input=True).is_monitor
    assert choose_device(devices, "speakers", is_input=False).default_sample_rate == 48000


def run_beside_a_passthrough(session, samples, folder):
    """Convert, then bypass: snapshots and recordings of both, delays in five stretches, whether those were steady."""
    listener = Listener(samples, folder)
    try:
        go_live(session)
        passthrough = Passthrough(round(48 * session.snapshot.block_ms))
        try:
            session.settings, started = replace(session.settings, bypassed=False), session.snapshot
            listener.wait(5.5)
            converting, converted = session.snapshot, listener.heard(2.5)
            session.settings = replace(session.settings, bypassed=True)
            listener.wait(5.5)
            bypassed, dry = session.snapshot, listener.heard(5.0)
        finally:
            passthrough.close()
    finally:
        session.stop()
        listener.close()
    delays = {
        name: [delay_ms(dry["mic"], dry[name], start_s=start, seconds=0.7) for start in (0.3, 1.1, 1.9, 2.7, 3.5)]
        for name in ("speakers", "passed")
    }
    is_steady = bypassed.counts.xruns == started.counts.xruns and all(np.ptp(found) < 1.0 for found in delays.values())
    return converting, converted, bypassed, delays, is_steady


def test_a_played_file_comes_out_as_the_voice_at_the_stated_delay(server, tmp_path):
    """Against a plain passthrough of the same block on the same server at the same time."""
    low = speech(1, f0_hz=115.0, formants=1.0, tilt=0.95)
    high = speech(2, f0_hz=215.0, formants=1.17, tilt=0.85)
    voice = embed_voice([AudioClip(high[np.newaxis, :], 48000)], name="High")
    session = make_session(
        lambda voice: load_converter("live").stream(voice),
        LiveVoice(voice, voice.median_f0_hz),
        replace(PLAIN, transpose="auto"),
        block_ms=20.0,
    )
    for _ in range(3):  # something else may keep the machine so busy that a plain passthrough stumbles
        converting, converted, bypassed, delays, is_steady = run_beside_a_passthrough(session, low, tmp_path)
        if is_steady:
            break
    result, source = (AudioClip(converted[name][np.newaxis, :], 48000) for name in ("speakers", "mic"))
    # Converted, not dry: its pitch is the voice's, and it is more like the voice than what was played.
    assert converting.transpose_settled
    median_hz = estimate_f0(result, tracker="swift").median_hz()
    assert abs(12 * np.log2(median_hz / voice.median_f0_hz)) < 3.0  # the source's is ten semitones away
    assert similarity(result, voice) > similarity(source, voice)
    # The delay: the dry voice is held back as long as the converted one.
    if is_steady:  # else the machine is too busy to measure anything
        live_ms, passed_ms = np.median(delays["speakers"]), np.median(delays["passed"])
        assert live_ms == pytest.approx(bypassed.latency.total, abs=20)
        grown_ms = 2.0 * bypassed.counts.output_underflows  # what a busy machine made it keep in reserve
        assert live_ms - passed_ms < 80 + grown_ms


def test_the_voice_switches_while_live(server, tmp_path):
    """Each voice is soon heard, at its own pitch."""
    high = speech(2, f0_hz=215.0, formants=1.17, tilt=0.85)
    low = speech(3, f0_hz=105.0, formants=0.95, tilt=0.95)
    voices = [embed_voice([AudioClip(clip[np.newaxis, :], 48000)], name="Voice") for clip in (high, low)]
    session = make_session(
        lambda voice: load_converter("live").stream(voice),
        LiveVoice(voices[0], voices[0].median_f0_hz),
        replace(PLAIN, transpose="auto"),
        block_ms=30.0,
    )
    listener = Listener(speech(1, f0_hz=150.0), tmp_path)
    heard = []
    try:
        go_live(session)
        listener.wait(6.0)
        for voice in (*voices, voices[0]):
            session.voice = LiveVoice(voice, voice.median_f0_hz)
            listener.wait(3.5)
            heard.append(listener.heard(2.5)["speakers"])
        assert session.snapshot.state is LiveState.LIVE
    finally:
        session.stop()
        listener.close()
    for samples, voice in zip(heard, (*voices, voices[0]), strict=True):
        median_hz = estimate_f0(AudioClip(samples[np.newaxis, :], 48000), tracker="swift").median_hz()
        assert abs(12 * np.log2(median_hz / voice.median_f0_hz)) < 3.0  # eleven or more semitones lie between them


def test_unplugged_output_pauses_and_resumes(server):
    session = make_session()
    go_live(session)
    try:
        server.unplug("speakers")
        wait_for(lambda: session.snapshot.state is LiveState.PAUSED)
        assert session.snapshot.error is not None
        server.plug_in("speakers")
        wait_for(lambda: session.snapshot.state is LiveState.LIVE)
        assert session.snapshot.counts.device_losses == 1
    finally:
        session.stop()


def test_fifty_rapid_starts_and_stops(server):
    session = make_session()
    opened = 0
    for turn in range(50):
        session.start()
        if turn % 5 == 0:
            wait_for(lambda: "devices" in session.snapshot.message)
            time.sleep(0.02 * (turn % 4))
            opened += 1
        session.stop()
        assert session.snapshot.state is LiveState.STOPPED
    assert opened == 10
    go_live(session)
    session.stop()


def test_a_minute_keeps_its_delay_and_its_memory(server, tmp_path):
    """The short form of `autovoice bench soak`."""
    from engine.bench.soak import soak

    figures = soak(
        server, lambda: FakeConverter(960), LiveVoice(None, float("nan")), seconds=60.0, window_s=10.0, block_ms=10.0
    )
    if not figures["live_xruns"]:  # each may move the delay
        assert abs(figures["delay_drift_ms"]) < 5
    assert figures["memory_growth_mb"] < 20
    assert figures["live"]["real_time_factor"]["p99"] < 0.7


def test_recorder_hears_what_is_played(server, tmp_path):
    recorder = InputRecorder(system_devices(), choose_device(system_devices().devices(), MICROPHONE, is_input=True))
    listener = Listener(noise(1, 1.5, amplitude=0.2), tmp_path)
    recorder.start()
    listener.wait(2.0)
    levels = recorder.levels
    clip = recorder.stop()
    listener.close()
    assert levels.error is None
    assert clip.seconds > 0.4
    assert np.abs(clip.samples).max() > 0.2


def test_virtual_microphone_is_made_found_and_removed(server):
    microphone = pulse.create_virtual_microphone()
    try:
        assert pulse.find_virtual_microphone() == microphone
        devices = system_devices().devices()
        assert choose_device(devices, microphone.output_device_id, is_input=False).name == "AutoVoice"
        assert choose_device(devices, "AutoVoice-microphone", is_input=True)
    finally:
        pulse.remove_virtual_microphone(microphone)
    assert pulse.find_virtual_microphone() is None
