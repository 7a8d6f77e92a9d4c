"""The judges on constructed data. They need the extra 'bench', which the development install has."""

import zlib
from pathlib import Path

import numpy as np
import pytest
import scipy.signal

from engine.bench.judges import (
    Ge2eJudge,
    NaturalnessJudge,
    PitchJudge,
    WordJudge,
    WorldConverter,
    edit_distance,
    high_band_db,
    words_of,
)
from engine.bench.speaker_judge import SpeakerJudge, equal_error, log_mel, train_on_segments
from engine.bench.spectrogram import write_spectrograms
from engine.jobs import JobContext
from engine.quality import compare_f0_values
from engine.signal import AudioClip
from tests.fakes import noise, tone, voice_like


def clip_of(samples, sample_rate=16000):
    return AudioClip(np.asarray(samples, np.float32)[None], sample_rate)


def babble(speaker, seed, seconds=4.0):
    """Random vowels; a speaker is a scaling of the formants with habits of its own for each vowel."""
    habits = np.random.default_rng(100 + speaker).normal(1.0, 0.06, (5, 3))
    rng = np.random.default_rng(seed)
    pieces = []
    for _ in range(int(seconds / 0.2)):
        vowel = rng.integers(5)
        formants = np.array(
            [[300, 2200, 3000], [500, 1800, 2500], [700, 1200, 2600], [450, 900, 2400], [320, 800, 2300]]
        )
        wave = rng.standard_normal(3200) * 0.1
        for hz in formants[vowel] * habits[vowel]:
            wave = wave + 3 * scipy.signal.lfilter(*scipy.signal.iirpeak(hz, 5, fs=16000), wave)
        pieces.append(0.05 * wave)
    return clip_of(np.concatenate(pieces))


@pytest.fixture(scope="module")
def speaker_judge():
    segments = [(speaker, log_mel(babble(speaker, 10 * speaker + take))) for speaker in range(12) for take in range(3)]
    return train_on_segments(segments, np.random.default_rng(0), JobContext())


def test_speaker_judge_tells_unseen_speakers_apart_whatever_the_equaliser(speaker_judge, tmp_path):
    enrolled = {s: speaker_judge.embed(babble(s, 1000 + s)) for s in range(20, 26)}
    tests = {s: babble(s, 2000 + s) for s in enrolled}
    equalised = {
        s: clip_of(scipy.signal.lfilter([1.0, -0.6 if s % 2 else 0.6], [1.0], clip.samples[0]))
        for s, clip in tests.items()
    }
    for clips in (tests, equalised):
        scores = [(s == o, float(speaker_judge.embed(c) @ enrolled[o])) for s, c in clips.items() for o in enrolled]
        rate, _threshold = equal_error([v for same, v in scores if same], [v for same, v in scores if not same])
        assert rate <= 0.1
    path = tmp_path / "judge.safetensors"
    speaker_judge.save(path)
    assert np.array_equal(SpeakerJudge.load(path).embed(tests[20]), speaker_judge.embed(tests[20]))


def test_speaker_judge_finds_nobody_in_silence(speaker_judge):
    assert not speaker_judge.embed(clip_of(np.zeros(16000))).any()


def test_equal_error_of_known_scores():
    assert equal_error([0.9, 0.8, 0.7], [0.1, 0.2])[0] == 0.0
    rate, threshold = equal_error([0.9, 0.8, 0.7, 0.3], [0.6, 0.2, 0.1, 0.0])
    assert rate == 0.25
    assert 0.3 < threshold <= 0.7


def test_words_and_their_errors():
    assert words_of("It's nine; O'Clock -- now!") == ["it's", "nine", "o'clock", "now"]
    assert edit_distance(["a", "b", "c", "d"], ["a", "x", "c"]) == 2
    assert edit_distance([], ["a"]) == 1
    assert edit_distance(["a"], []) == 1


def test_word_judge_hears_no_words_in_silence():
    count = WordJudge().count(clip_of(np.zeros(16000)), "three blind mice")
    assert (count.errors, count.words) == (3, 3)


@pytest.mark.slow  # the package imports librosa and numba for its own call
def test_naturalness_equals_the_packages_own_call():
    from speechmos import dnsmos

    samples = np.concatenate([voice_like(130, 3.0, 16000), 0.3 * noise(1, 2.0, 16000), voice_like(180, 4.01, 16000)])
    theirs = dnsmos.run(samples.astype(np.float32), sr=16000)["ovrl_mos"]
    assert NaturalnessJudge().score(clip_of(samples)) == pytest.approx(theirs, abs=0.01)


@pytest.mark.slow  # resemblyzer imports librosa and numba
def test_ge2e_judge_embeds_and_finds_nobody_in_silence():
    judge = Ge2eJudge()
    same, other = judge.embed(babble(1, 1)), judge.embed(clip_of(voice_like(220, 3.0, 16000)))
    assert np.linalg.norm(same) == pytest.approx(1.0, abs=1e-3)
    assert same @ judge.embed(babble(1, 2)) > same @ other
    assert not judge.embed(clip_of(np.zeros(16000))).any()


def test_pitch_judge_follows_a_voice_and_its_pauses():
    pause = 0.001 * noise(3, 0.5, 16000)
    figures_hz = np.full(251, np.nan)
    figures_hz[:101] = figures_hz[150:] = 140.0
    measured = PitchJudge().track(
        clip_of(np.concatenate([voice_like(140, 1.0, 16000), pause, voice_like(140, 1.0, 16000)]))
    )
    figures = compare_f0_values(figures_hz, measured.f0_hz[:251])
    assert figures.median_cents == pytest.approx(0.0, abs=10)
    assert figures.slips < 0.02
    assert figures.voicing_errors < 0.06


def test_world_moves_the_median_and_keeps_the_length():
    source, judge = clip_of(voice_like(120, 1.5, 16000)), PitchJudge()
    converted = WorldConverter().convert(source, judge.track(source), (np.log(240.0), 0.02))
    assert converted.num_samples == source.num_samples
    assert judge.track(converted).median_hz() == pytest.approx(240.0, rel=0.02)


def test_high_band_of_white_noise_is_its_share_of_the_band():
    assert high_band_db(AudioClip(noise(4, 2.0)[None], 48000)) == pytest.approx(10 * np.log10(12_000 / 7_900), abs=0.2)
    assert high_band_db(clip_of(noise(4, 1.0, 16000))) is None
    assert high_band_db(AudioClip(np.zeros((1, 48000), np.float32), 48000)) is None


def test_spectrogram_is_a_picture_with_the_tone_in_it(tmp_path: Path):
    path = tmp_path / "tone.png"
    write_spectrograms(path, [AudioClip(tone(1000.0, 0.5)[None], 48000)] * 2)
    data = path.read_bytes()
    width, height = int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
    start = data.index(b"IDAT")
    size = int.from_bytes(data[start - 4 : start], "big")
    rows = np.frombuffer(zlib.decompress(data[start + 4 : start + 4 + size]), np.uint8).reshape(height, -1)
    brightness = rows[:256, 1:].astype(int).sum(axis=1)
    mel = 2595 * np.log10(1 + np.array([1000.0, 24000.0]) / 700)
    assert abs(brightness.argmax() - 255 * (1 - mel[0] / mel[1])) < 4
    assert (width, height) == (rows.shape[1] // 3, 2 * 262)
