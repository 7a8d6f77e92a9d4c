"""Figures of conversions on signals whose answers are known."""

import numpy as np
import pytest

from engine.pitch import F0Contour
from engine.quality import compare_f0, compare_f0_values, loudness_or_none
from engine.signal import AudioClip
from tests.fakes import tone


def contour(values, hop_s=0.01):
    values = np.asarray(values, np.float32)
    return F0Contour(values, np.isfinite(values).astype(np.float32), hop_s)


def gliding(count=200):
    return np.geomspace(110.0, 330.0, count)


def test_the_same_contour_has_no_error():
    figures = compare_f0(contour(gliding()), contour(gliding()))
    assert figures.rmse_hz == pytest.approx(0.0, abs=1e-4)
    assert figures.correlation == pytest.approx(1.0)
    assert (figures.slips, figures.voicing_errors, figures.voiced_frames) == (0.0, 0.0, 200)


def test_a_constant_detuning_shows_in_cents_and_leaves_the_correlation():
    figures = compare_f0_values(gliding(), gliding() * 2 ** (25 / 1200))
    assert figures.rmse_cents == pytest.approx(25.0, abs=0.01)
    assert figures.median_cents == pytest.approx(25.0, abs=0.01)
    assert figures.rmse_hz == pytest.approx(np.sqrt(np.mean((gliding() * (2 ** (25 / 1200) - 1)) ** 2)), rel=1e-4)
    assert figures.correlation == pytest.approx(1.0)


def test_octave_slips_are_counted_apart():
    measured = gliding()
    measured[:20] *= 2
    figures = compare_f0_values(gliding(), measured)
    assert figures.slips == pytest.approx(0.1)
    assert figures.rmse_hz == pytest.approx(0.0, abs=1e-6)


def test_voicing_errors_count_both_directions():
    wanted, measured = gliding(), gliding()
    wanted[:10] = np.nan
    measured[-30:] = np.nan
    figures = compare_f0_values(wanted, measured)
    assert figures.voicing_errors == pytest.approx(40 / 200)
    assert figures.voiced_frames == 160


def test_nothing_voiced_leaves_the_errors_open():
    figures = compare_f0_values(np.full(50, np.nan), gliding(50))
    assert (figures.rmse_hz, figures.rmse_cents, figures.correlation) == (None, None, None)
    assert figures.voicing_errors == 1.0


def test_a_level_pitch_has_no_correlation():
    assert compare_f0_values(np.full(50, 200.0), np.full(50, 200.0)).correlation is None


def test_contours_of_other_hops_meet_in_time_and_missing_frames_are_unvoiced():
    figures = compare_f0(contour(np.full(100, 200.0)), contour(np.full(80, 200.0), hop_s=0.005))
    assert figures.voiced_frames == 40
    assert figures.voicing_errors == pytest.approx(0.6)
    assert figures.rmse_hz == pytest.approx(0.0, abs=1e-4)


def test_contours_of_other_lengths_are_a_bug():
    with pytest.raises(ValueError, match="one grid"):
        compare_f0_values(gliding(10), gliding(11))


def test_loudness_of_a_known_tone_and_of_none():
    clip = AudioClip(tone(997.0, 2.0, amplitude=1.0)[None], 48000)
    assert loudness_or_none(clip) == pytest.approx(-3.01, abs=0.1)  # ITU-R BS.1770: a full-scale sine of 997 Hz
    assert loudness_or_none(AudioClip(np.zeros((1, 48000), np.float32), 48000)) is None
    assert loudness_or_none(AudioClip(tone(997.0, 0.1)[None], 48000)) is None
