import numpy as np

from engine.conversion.bands import NUM_BANDS, NUM_SPEECH_BANDS, loudness, shifted
from engine.conversion.prints import (
    PrintModel,
    PrintStatistics,
    estimate_prints,
    fit_print_model,
    formant_distance,
    pick,
)

PHONES = 6


def bumpy(rng, *shape):
    """Random smooth levels over the bands."""
    position = np.linspace(0.0, np.pi, NUM_BANDS)
    return sum(rng.normal(size=(*shape, 1)) * np.cos(order * position) for order in range(1, 9)).astype(np.float32)


def speech_of(prints, rng, num_frames, sharpness=0.3):
    """Frames that follow prints exactly, with posteriors as soft as a hesitant encoder's; loudness taken away."""
    posteriors = rng.dirichlet(np.full(prints.shape[1], sharpness), num_frames).astype(np.float32)
    voiced = rng.random(num_frames) < 0.6
    levels = pick(prints, posteriors, voiced)
    return levels - loudness(levels)[:, None], posteriors, voiced


def statistics_of(prints, rng, num_frames, bandwidth_hz=24000.0):
    levels, posteriors, voiced = speech_of(prints, rng, num_frames)
    statistics = PrintStatistics(prints.shape[1])
    everything = np.ones(num_frames, np.bool_)
    statistics.add(levels, posteriors, voiced, active=everything, bandwidth_hz=bandwidth_hz)
    return statistics


def model_of(rng):
    nothing = np.zeros((0, 2, PHONES, NUM_SPEECH_BANDS), np.float32)
    return PrintModel(bumpy(rng, 2, PHONES), nothing, np.ones(NUM_SPEECH_BANDS, np.float32))


def test_nothing_heard_gives_the_average_speaker():
    model = model_of(np.random.default_rng(0))
    np.testing.assert_allclose(estimate_prints(PrintStatistics(PHONES), model), model.mean)


def test_prints_explain_new_frames_of_the_voice():
    rng = np.random.default_rng(1)
    model, true = model_of(rng), bumpy(rng, 2, PHONES)
    found = estimate_prints(statistics_of(true, rng, 3000), model)
    levels, posteriors, voiced = speech_of(true, rng, 500)
    error = np.abs(pick(found, posteriors, voiced) - levels).mean()
    assert error < 0.5 * np.abs(pick(model.mean, posteriors, voiced) - levels).mean()


def test_bands_a_recording_lacks_continue_from_its_edge():
    rng = np.random.default_rng(2)
    model = model_of(rng)
    louder = model.mean + np.float32(1.0) * np.linspace(-1.0, 1.0, NUM_BANDS, dtype=np.float32)
    found = estimate_prints(statistics_of(louder, rng, 4000, bandwidth_hz=8000.0), model)
    assert np.isfinite(found).all()
    change = (found - model.mean).mean(axis=(0, 1))
    np.testing.assert_allclose(
        change[NUM_SPEECH_BANDS:], change[NUM_SPEECH_BANDS - 6 : NUM_SPEECH_BANDS].mean(), atol=0.2
    )


def test_eigenvoices_tell_of_phones_that_were_not_heard():
    rng = np.random.default_rng(3)
    mean, direction = bumpy(rng, 2, PHONES), bumpy(rng, 2, PHONES)
    voices = [statistics_of(mean + float(amount) * direction, rng, 1500) for amount in rng.normal(size=25)]
    model = fit_print_model(voices, num_directions=2)
    assert model.directions.shape == (2, 2, PHONES, NUM_SPEECH_BANDS)
    true = mean + 1.5 * direction
    levels, posteriors, voiced = speech_of(true, rng, 2000, sharpness=0.05)
    heard = posteriors[:, 3] < 0.02
    statistics = PrintStatistics(PHONES)
    statistics.add(levels, posteriors, voiced, active=heard, bandwidth_hz=24000.0)
    unheard = posteriors[:, 3] > 0.9

    def error(prints):
        return np.abs(pick(prints, posteriors, voiced) - levels)[unheard][:, :NUM_SPEECH_BANDS].mean()

    assert error(estimate_prints(statistics, model)) < 0.6 * error(model.mean)


def test_statistics_add_up_and_fade():
    rng = np.random.default_rng(4)
    true = bumpy(rng, 2, PHONES)
    statistics = statistics_of(true, rng, 300)
    twice = PrintStatistics(PHONES)
    twice.include(statistics)
    twice.include(statistics)
    assert twice.num_frames > 1.99 * statistics.num_frames
    twice.scale(0.5)
    np.testing.assert_allclose(twice.sums, statistics.sums, atol=1e-4)


def test_formants_are_found_where_they_went():
    prints = np.zeros((2, PHONES, NUM_BANDS), np.float32)
    for phone in range(PHONES):
        for formant in (8 + phone, 20 + phone, 32):
            prints[1, phone] += 4.0 * np.exp(-(((np.arange(NUM_BANDS) - formant) / 2.0) ** 2))
    moved = shifted(prints, 2.0)
    assert abs(formant_distance(prints, moved) - 2.0) <= 0.5
    assert abs(formant_distance(moved, prints) + 2.0) <= 0.5
    assert formant_distance(prints, prints) == 0.0
