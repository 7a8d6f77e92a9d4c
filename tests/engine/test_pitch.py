import numpy as np
import pytest

from engine.errors import Cancelled
from engine.jobs import JobContext
from engine.pitch import (
    F0Contour,
    StreamingF0,
    auto_transpose_semitones,
    estimate_f0,
    estimate_f0_of_file,
    median_shift_semitones,
    repair_octaves,
)
from engine.signal import AudioClip, write_audio
from tests.clips import noise, sweep, tone


def glide(sample_rate=44100):
    """3 s rising from 110 to 440 Hz between two silences of half a second, and its true pitch."""
    sung = sweep(110, 440, 3, sample_rate, harmonics=8)
    silence = np.zeros((1, sample_rate // 2), np.float32)
    clip = AudioClip(np.concatenate([silence, sung.samples, silence], axis=1), sample_rate)

    def truth(times_s):
        inside = (times_s > 0.5) & (times_s < 3.5)
        return np.where(inside, 110 * 4 ** ((times_s - 0.5) / 3), np.nan)

    return clip, truth


def cents_off(contour, truth):
    off = 1200 * np.log2(contour.f0_hz / truth(contour.times_s))
    return np.abs(off[np.isfinite(off)])


@pytest.mark.parametrize("tracker", ["swift", "swift+crepe-tiny", "swift+crepe-full", "crepe-tiny"])
def test_a_glide_is_followed_on_the_grid(tracker):
    clip, truth = glide()
    if "crepe" in tracker:
        clip = AudioClip(clip.samples[:, : clip.sample_rate], clip.sample_rate)
    contour = estimate_f0(clip, tracker=tracker)
    assert contour.num_frames == 1 + round(clip.seconds * 100)
    wanted = np.isfinite(truth(contour.times_s))
    assert np.mean(contour.voiced != wanted) < 0.04
    assert np.percentile(cents_off(contour, truth), 95) < 25


def test_a_file_gives_what_the_clip_gives(tmp_path):
    clip, _ = glide()
    stereo = AudioClip(np.repeat(clip.samples, 2, axis=0), clip.sample_rate)
    write_audio(tmp_path / "a.wav", stereo, float_samples=True)
    whole, from_file = estimate_f0(stereo), estimate_f0_of_file(tmp_path / "a.wav")
    assert whole.num_frames == from_file.num_frames
    assert np.allclose(whole.f0_hz, from_file.f0_hz, rtol=1e-3, equal_nan=True)


@pytest.mark.parametrize("tracker", ["swift", "swift+crepe-tiny"])
def test_silence_and_noise_have_no_pitch(tracker):
    assert not estimate_f0(AudioClip(np.zeros((1, 8000), np.float32), 16000), tracker=tracker).voiced.any()
    assert estimate_f0(noise(), tracker=tracker).voiced.mean() < 0.1
    assert estimate_f0(AudioClip(np.zeros((1, 3), np.float32), 16000), tracker=tracker).num_frames == 1


def test_tracking_can_be_stopped():
    ctx = JobContext()
    ctx.cancel()
    with pytest.raises(Cancelled):
        estimate_f0(tone(), ctx=ctx)


def test_cutting_a_recording_up_changes_nothing(monkeypatch):
    clip = sweep(150.0, 400.0, seconds=7.0)
    whole = estimate_f0(clip)
    monkeypatch.setattr("engine.pitch._SWIFT_SEGMENT_S", 0.8)
    pieces = estimate_f0(clip)
    np.testing.assert_allclose(pieces.f0_hz, whole.f0_hz, rtol=1e-5)
    np.testing.assert_allclose(pieces.periodicity, whole.periodicity, atol=1e-5)


def test_short_octave_jumps_are_taken_back_and_long_ones_stay():
    pitch = np.full(200, 220.0)
    pitch[50:56] = 440  # 60 ms
    pitch[100:160] = 440  # 600 ms: a sung octave
    pitch[180:190] = np.nan
    repaired = repair_octaves(pitch, np.full(200, 0.9))
    assert np.allclose(repaired[:100], 220)
    assert np.allclose(repaired[100:160], 440)
    assert np.isnan(repaired[180:190]).all()
    doubtful = np.where((np.arange(200) >= 100) & (np.arange(200) < 118), 0.55, 0.9)
    pitch[118:160] = 220
    assert np.allclose(repair_octaves(pitch, doubtful)[100:118], 220)


def test_contour_between_its_frames():
    contour = F0Contour(np.array([np.nan, 100, 400, np.nan], np.float32), np.ones(4, np.float32))
    assert contour.median_hz() == 250
    assert np.allclose(contour.at([0.015, 0.01, 0.0, 0.03, 9]), [200, 100, np.nan, np.nan, np.nan], equal_nan=True)
    assert contour.transposed(12).f0_hz[1] == 200
    assert np.isnan(F0Contour(np.full(3, np.nan, np.float32), np.zeros(3, np.float32)).median_hz())
    assert np.isnan(F0Contour(np.full(3, np.nan, np.float32), np.zeros(3, np.float32)).at([0.01])).all()


def test_the_automatic_key_is_in_whole_semitones():
    assert median_shift_semitones(220, 440) == 12
    assert median_shift_semitones(220, 230) == 1
    assert median_shift_semitones(220, 223) == 0
    assert median_shift_semitones(float("nan"), 200) == 0


@pytest.mark.parametrize("rate", [16000, 44100, 48000])
@pytest.mark.parametrize("block", [1, 128, 480, 511])
def test_live_tracking_follows_with_the_delay_it_states(rate, block):
    clip, truth = glide(rate)
    clip = AudioClip(clip.samples[:, : rate if block > 1 else rate * 6 // 10], rate)
    tracker = StreamingF0(rate)
    assert tracker.latency_samples / rate < 0.018
    values = []
    for start in range(0, clip.num_samples, block):
        values.extend(tracker.push(clip.samples[0, start : start + block]))
        pushed = min(start + block, clip.num_samples)
        assert len(values) >= (pushed - tracker.latency_samples) // (rate * 0.01)
    contour = F0Contour(np.array(values, np.float32), np.ones(len(values), np.float32))
    wanted = np.isfinite(truth(contour.times_s))
    assert np.mean(contour.voiced != wanted) < 0.05
    assert np.percentile(cents_off(contour, truth), 90) < 20


def test_live_tracking_does_not_depend_on_the_blocks():
    clip, _ = glide(48000)
    tracker = StreamingF0(48000)
    whole = tracker.push(clip.samples[0])
    tracker.reset()
    parts = [tracker.push(clip.samples[0, i : i + 333]) for i in range(0, clip.num_samples, 333)]
    same = np.isclose(np.concatenate(parts), whole, rtol=1e-5, equal_nan=True)
    assert same.mean() > 0.99  # where a voice sets in after digital silence, rounding may decide between two octaves


@pytest.mark.parametrize(("voice_hz", "bare", "octaves"), [(440, 12, 12), (311, 6, 0), (78, -18, -12), (3000, 24, 24)])
def test_beside_an_accompaniment_the_key_moves_by_octaves(voice_hz, bare, octaves):
    source = F0Contour(np.full(10, 220, np.float32), np.ones(10, np.float32))
    assert auto_transpose_semitones(source, voice_hz, with_accompaniment=False) == bare
    assert auto_transpose_semitones(source, voice_hz, with_accompaniment=True) == octaves
