"""Spoken phrases made to sing."""

import numpy as np
import pytest

from engine.pitch import estimate_f0
from engine.signal import AudioClip
from engine.training.singing import sing
from tests.synthetic_speech import speak


@pytest.fixture(scope="module")
def spoken():
    return speak("masetinalokiremo", f0_hz=110.0, seed=1)[0]


def test_a_phrase_lasts_longer_and_moves_on_notes(spoken):
    sung = sing(spoken, np.random.default_rng(3), bandwidth_hz=8000.0)
    assert sung is not None
    assert sung.sample_rate == 48_000
    assert sung.num_channels == 1
    assert np.isfinite(sung.samples).all()
    assert sung.seconds > 1.1 * spoken.seconds
    assert np.square(sung.samples).mean() == pytest.approx(np.square(spoken.samples).mean(), rel=0.05)
    before, after = (estimate_f0(clip, tracker="swift") for clip in (spoken, sung))
    semitones = 12 * np.log2(after.f0_hz[after.voiced])
    assert after.voiced.mean() > 0.3
    # A melody, not the speaker's monotone: it spans more than a third.
    assert (
        np.ptp(np.percentile(semitones, (5, 95)))
        > 4
        > np.ptp(np.percentile(12 * np.log2(before.f0_hz[before.voiced]), (5, 95)))
    )


def test_the_same_draw_sings_the_same(spoken):
    first, again = (sing(spoken, np.random.default_rng(5), bandwidth_hz=8000.0) for _ in range(2))
    assert np.array_equal(first.samples, again.samples)


def test_bands_that_the_recording_lacks_are_continued(spoken):
    sung = sing(spoken, np.random.default_rng(7), bandwidth_hz=4000.0)
    power = np.square(np.abs(np.fft.rfft(sung.samples[0])))
    hz = np.fft.rfftfreq(sung.num_samples, 1 / 48_000)
    assert power[(hz > 5000) & (hz < 7000)].sum() > 1e-6 * power.sum()


def test_silence_does_not_sing():
    silence = AudioClip(np.zeros((1, 48_000), np.float32), 48_000)
    assert sing(silence, np.random.default_rng(0), bandwidth_hz=8000.0) is None
