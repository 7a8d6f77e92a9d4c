import numpy as np
import pytest

from engine.live.chain import LiveChain
from engine.live.conditioning import DelayLine, Gate, HighPass, SmoothGain
from engine.live.drift import DriftControl, DriftResampler, EdgeResampler
from engine.live.measuring import BlockTimes, measure_blocks
from engine.live.options import LiveSettings
from engine.live.suppression import HeldNotes, NoiseSuppressor
from engine.live.transposing import AutoTranspose
from engine.signal import AudioClip, true_peak_dbtp
from tests.fakes import FakeConverter, noise, sweep, tone, voice_like

RATE = 48000


def in_blocks(push, samples, size):
    return np.concatenate([push(samples[start : start + size]) for start in range(0, len(samples), size)])


def level_db(samples):
    return 10 * np.log10(np.mean(np.square(samples, dtype=np.float64)) + 1e-20)


@pytest.mark.parametrize("size", [1, 7, 128, 480, 512])
def test_every_stage_gives_the_same_for_any_block_size(size):
    seconds = 0.06 if size == 1 else 0.25
    signal = (0.5 * sweep(seconds=seconds) + noise(2, seconds, amplitude=0.02)).astype(np.float32)
    for make in (
        lambda: LiveChain(FakeConverter(), 200.0, LiveSettings(noise_suppression=True, output_gain_db=12)).push,
        lambda: NoiseSuppressor().push,
        lambda: DriftResampler().push,
    ):
        whole, cut = make(), make()
        expected = whole(signal)
        got = [cut(signal[start : start + size]) for start in range(0, len(signal), size)]
        expected, got = (getattr(expected, "converted", expected), [getattr(g, "converted", g) for g in got])
        np.testing.assert_allclose(np.concatenate(got), expected, atol=2e-5)


def test_an_impulse_comes_out_exactly_at_the_stated_latency():
    for settings in (LiveSettings(bypassed=True), LiveSettings(), LiveSettings(bypassed=True, noise_suppression=True)):
        chain = LiveChain(FakeConverter(700), 200.0, LiveSettings(**{**vars(settings), "high_pass_hz": 0.0}))
        impulse = np.zeros(9600, dtype=np.float32)
        impulse[4000] = 0.9
        out = in_blocks(lambda block, chain=chain: chain.push(block).converted, impulse, 441)
        assert np.argmax(np.abs(out)) == 4000 + chain.latency_samples
        assert chain.latency_samples < 700 + 90 + 480


def test_silence_and_a_quiet_room_stay_silent():
    chain = LiveChain(FakeConverter(), 200.0)
    assert not in_blocks(lambda b: chain.push(b).converted, np.zeros(RATE, dtype=np.float32), 480).any()
    room = noise(3, 1.0, amplitude=10 ** (-58 / 20))
    assert level_db(in_blocks(lambda b: chain.push(b).converted, room, 480)) < -90


def test_gate_opens_before_the_first_syllable_and_does_not_chatter():
    gate = Gate(RATE)
    quiet, speech = noise(1, 0.3, amplitude=1e-4), voice_like(seconds=0.3)
    gains = in_blocks(lambda b: gate.push(b, -50.0, True), np.concatenate([quiet, speech, quiet, quiet]), 480)
    onset = len(quiet)
    assert gains[onset - 1] == 0
    assert gains[onset + int(0.012 * RATE)] == 1  # converted 20 ms late and held back 8 ms less, it is open in time
    assert gains[onset : onset + len(speech)][int(0.02 * RATE) :].min() == 1
    assert gains[-1] == 0
    assert np.abs(np.diff(gains)).max() < 0.01
    # Between the two thresholds it stays as it was.
    middle = tone(1000, 1.0, amplitude=10 ** (-50 / 20))
    assert in_blocks(lambda b: gate.push(b, -50.0, True), middle, 480).max() == 0  # 3 dB below, from closed


def test_loud_output_is_limited_without_distortion_of_what_is_below():
    chain = LiveChain(FakeConverter(), 200.0, LiveSettings(output_gain_db=24, gate_enabled=False, high_pass_hz=0))
    out = in_blocks(lambda b: chain.push(b).converted, sweep(100, 15000, 1.0, amplitude=0.9), 480)
    assert true_peak_dbtp(AudioClip(out[np.newaxis, :], RATE)) <= -0.7
    assert level_db(out) > -6


@pytest.mark.parametrize(
    "change",
    [
        {"muted": True},
        {"bypassed": True},
        {"wet": 0.3},
        {"output_gain_db": -12.0},
        {"input_gain_db": -12.0},
        {"high_pass_hz": 0.0},
        {"gate_threshold_dbfs": 0.0},
        {"noise_suppression": True},
    ],
)
def test_no_setting_clicks(change):
    signal = tone(150, 0.6, amplitude=0.4)

    def hardest_step(settings_later):
        chain = LiveChain(FakeConverter(), 200.0)
        out = []
        for start in range(0, len(signal), 480):
            if start == 14400:
                chain.settings = settings_later
            out.append(chain.push(signal[start : start + 480]).converted)
        second_difference = np.diff(np.concatenate(out)[9600:], 2)  # a click is a corner
        return np.abs(second_difference).max()

    allowed = 12 * np.abs(np.diff(signal, 2)).max()
    assert hardest_step(LiveSettings(**change)) < allowed


def test_smooth_gain_turns_round_midway_without_a_jump():
    gain = SmoothGain(RATE, 1.0)
    parts = [gain.curve(200, 0.0), gain.curve(200, 1.0), gain.curve(600, 1.0)]
    curve = np.concatenate([np.atleast_1d(part) for part in parts])
    assert np.abs(np.diff(curve)).max() < 0.01
    assert curve[-1] == 1


def test_high_pass_removes_rumble_and_keeps_the_voice():
    def filtered(samples):
        high_pass = HighPass(RATE, 80.0)
        return in_blocks(lambda block: high_pass.push(block, 80.0), samples, 480)[RATE // 2 :]

    assert level_db(filtered(tone(20, 1.0))) < level_db(tone(20, 1.0)) - 20
    assert abs(level_db(filtered(tone(300, 1.0))) - level_db(tone(300, 1.0))) < 0.3


def test_noise_suppression_lowers_noise_and_keeps_the_voice():
    hiss = noise(5, 3.0, amplitude=0.01)
    voice = np.concatenate([np.zeros(RATE, dtype=np.float32), voice_like(180, 2.0)])
    out = in_blocks(NoiseSuppressor().push, voice + hiss, 480)
    delay = NoiseSuppressor.latency_samples
    assert level_db(out[RATE // 2 : RATE]) < level_db(hiss) - 8
    kept, wanted = out[2 * RATE + delay :], voice[2 * RATE : len(voice) - delay]
    assert level_db(kept - wanted) < level_db(wanted) - 20


def test_noise_suppression_leaves_a_note_alone_that_is_held_for_long():
    """Eight seconds: without knowing of the note, the noise estimate takes it for noise after three."""
    hiss, note = noise(5, 9.0, amplitude=0.01), np.zeros(9 * RATE, dtype=np.float32)
    note[RATE:] = 0.3 * np.sin(2 * np.pi * 220 * np.arange(8 * RATE) / RATE) * np.minimum(1, np.arange(8 * RATE) / 480)

    def lost_db(out, gain):
        return level_db(gain * note[7 * RATE : 8 * RATE]) - level_db(out[7 * RATE : 8 * RATE])

    unknowing = NoiseSuppressor()
    assert lost_db(in_blocks(unknowing.push, note + hiss, 480), 1.0) > 6
    settings = LiveSettings(noise_suppression=True, transpose=0.0)
    chain = LiveChain(FakeConverter(f0_hz=220.0), 220.0, settings)
    assert abs(lost_db(in_blocks(lambda block: chain.push(block).converted, note + hiss, 480), 0.5)) < 1


def test_a_hum_that_never_ends_is_no_held_note():
    notes = HeldNotes()
    held = []
    for _ in range(2500):
        notes.listen(np.array([110.0], dtype=np.float32), True)
        held.append(notes.is_held)
    assert (held.index(True), held[::-1].index(True)) == (99, 501)
    notes.listen(np.array([np.nan], dtype=np.float32), True)
    for _ in range(150):
        notes.listen(np.array([110.0], dtype=np.float32), False)
        assert not notes.is_held


def test_auto_transpose_settles_within_three_seconds_of_speech_and_then_stays():
    auto, rng, values = AutoTranspose(), np.random.default_rng(1), []
    for _ in range(900):
        f0 = 120 * 2 ** (rng.normal(0, 2) / 12) if rng.random() < 0.55 else np.nan
        values.append(auto.listen(np.array([f0], dtype=np.float32), 220.0))
    assert auto.is_settled
    assert values[299] == pytest.approx(12 * np.log2(220 / 120), abs=0.7)
    assert len(set(values[300:])) == 1
    assert auto.listen(np.zeros(0, dtype=np.float32), 440.0) == pytest.approx(
        values[-1] + 12, abs=0.11
    )  # another voice


def test_auto_transpose_listens_anew_when_somebody_else_speaks():
    auto = AutoTranspose()
    for f0 in [110.0] * 400 + [210.0] * 1500:
        auto.listen(np.array([f0], dtype=np.float32), 220.0)
    assert auto.semitones == pytest.approx(12 * np.log2(220 / 210), abs=0.1)


@pytest.mark.parametrize("ppm", [-200.0, 200.0])
def test_drift_between_two_clocks_is_compensated_for_hours(ppm):
    """Two devices whose clocks differ, blocks of 40 ms with jitter: the buffer stays where it should."""
    control, rng = DriftControl(RATE), np.random.default_rng(7)
    target, level, levels, corrections = 480.0, 480.0, [], []
    jitter = rng.uniform(-144, 144, 3600 * 25)  # late wake-ups
    for turn, lateness in enumerate(jitter):
        level += 1920 / (1 + control.ppm * 1e-6) - 1920 * (1 + ppm * 1e-6)
        torn = 1920 if turn % 97 == 0 else 0  # the ring was read between the two readings
        control.observe(level + lateness - torn, target, 0.040)
        levels.append(level)
        corrections.append(control.ppm)
    settled = np.array(levels[60 * 25 :])
    assert np.abs(settled - target).max() < 0.003 * RATE
    assert abs(np.mean(settled[-25 * 60 :]) - np.mean(settled[: 25 * 60])) < 0.001 * RATE
    assert np.mean(corrections[-25 * 120 :]) == pytest.approx(-ppm, abs=20)


def test_drift_resampler_changes_length_by_the_asked_ppm_and_nothing_else():
    resampler = DriftResampler()
    signal = tone(1000, 4.0)
    resampler.ppm = 200.0
    out = in_blocks(resampler.push, signal, 480)
    assert len(out) == pytest.approx(len(signal) / 1.0002, abs=2)
    times = np.arange(len(out)) * 1.0002 - DriftResampler.latency_samples
    wanted = 0.5 * np.sin(2 * np.pi * 1000 * times / RATE)
    assert level_db(out[100:] - wanted[100:]) < -80


@pytest.mark.parametrize(("in_rate", "out_rate"), [(44100, 48000), (48000, 44100), (16000, 48000), (48000, 96000)])
def test_edge_resampler_is_clean_and_as_late_as_it_says(in_rate, out_rate):
    resampler = EdgeResampler(in_rate, out_rate)
    signal = tone(1000, 1.0, in_rate)
    pushed, sizes = [], []
    for start in range(0, len(signal), in_rate // 100):
        pushed.append(resampler.push(signal[start : start + in_rate // 100]))
        sizes.append(len(pushed[-1]))
    out = np.concatenate(pushed)
    assert max(sizes[5:]) - min(sizes[5:]) <= 2
    assert len(out) == pytest.approx(len(signal) * out_rate / in_rate, abs=2)
    assert resampler.latency_ms < 16
    phase = 2 * np.pi * 1000 * (np.arange(len(out)) / out_rate - resampler.latency_ms / 1000)
    parts = np.stack([np.sin(phase), np.cos(phase)], axis=1)[out_rate // 4 : out_rate * 3 // 4]
    middle = out[out_rate // 4 : out_rate * 3 // 4]
    (in_time, aside), *_ = np.linalg.lstsq(parts, middle, rcond=None)
    assert abs(np.arctan2(aside, in_time)) / (2 * np.pi * 1000) < 0.00015  # seconds off the stated delay
    assert in_time == pytest.approx(0.5, abs=0.02)
    assert level_db(middle - parts @ np.array([in_time, aside])) < -90


def test_block_times_give_percentiles_in_constant_memory():
    times, rng = BlockTimes(), np.random.default_rng(0)
    values = rng.lognormal(1.0, 0.5, 20000)
    for value in values:
        times.add(float(value))
    for percent in (50, 99):
        assert times.percentile_ms(percent) == pytest.approx(np.percentile(values, percent), rel=0.05)
    assert times.max_ms == values.max()


def test_auto_block_is_the_smallest_safe_one():
    fast = measure_blocks(FakeConverter().push)
    assert fast[-1].block_ms == 5
    slow = measure_blocks(FakeConverter(work_s=0.008).push)
    assert slow[-1].is_safe
    assert [m.is_safe for m in slow[:-1]] == [False] * (len(slow) - 1)
    assert slow[-1].block_ms >= 15


def test_delay_line_changes_its_length():
    line = DelayLine(10)
    line.push(np.arange(20, dtype=np.float32))
    line.change(4)
    np.testing.assert_array_equal(line.push(np.arange(20, 30, dtype=np.float32)), np.arange(16, 26))
