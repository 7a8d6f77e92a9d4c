import dataclasses

import numpy as np
import pytest
import scipy.signal
import torch

from engine.conversion import Voice, blend_voices, embed_voice, load_converter, similarity, voice_model_id
from engine.conversion.bands import NUM_BANDS, band_levels, envelopes
from engine.conversion.decoder import CONDITION_SIZE
from engine.conversion.streaming import GivenPitch
from engine.errors import EnrollmentError, ModelError
from engine.pitch import F0Contour
from engine.signal.clip import AudioClip

RATE = 48000


def voiced_sound(seconds, f0_hz, seed=0, sample_rate=RATE):
    """A buzzing vowel that changes, with breath, at about -20 dBFS."""
    num_samples = int(seconds * sample_rate)
    time = np.arange(num_samples) / sample_rate
    sound = np.zeros(num_samples)
    for harmonic in range(1, int(7000 / f0_hz)):
        formant = 600 + 300 * np.sin(2 * np.pi * 1.3 * time)
        strength = 1 / harmonic + np.exp(-(((harmonic * f0_hz - formant) / 150) ** 2))
        sound += strength * np.sin(2 * np.pi * f0_hz * harmonic * time + harmonic)
    sound += 0.05 * np.random.default_rng(seed).standard_normal(num_samples)
    return AudioClip((0.1 * sound / sound.std())[None].astype(np.float32), sample_rate)


def contour(seconds, f0_hz):
    frames = int(seconds * 100) + 1
    f0 = np.full(frames, f0_hz, np.float32)
    f0[frames // 2 : frames // 2 + 15] = np.nan
    return F0Contour(f0, np.where(np.isfinite(f0), 1.0, 0.0).astype(np.float32))


@pytest.fixture(scope="module")
def converter():
    return load_converter("live")


@pytest.fixture(scope="module")
def voice():
    return embed_voice([voiced_sound(4.0, 140.0)], name="Low")


@pytest.fixture(scope="module")
def other_voice():
    return embed_voice([voiced_sound(4.0, 260.0, seed=3)], name="High")


@pytest.mark.parametrize("block", [1, 7, 128, 480, 512])
def test_streaming_equals_offline(converter, voice, block):
    seconds = 0.6 if block > 100 else 0.12
    clip, f0 = voiced_sound(seconds, 200.0), contour(seconds, 200.0)
    whole = converter.convert(clip, voice, f0, source_f0=f0).samples[0]
    primed = converter.source_statistics(clip, f0)
    stream = converter.stream(voice, pitch=lambda: GivenPitch(f0, f0), primed=primed)
    samples = clip.samples[0]
    pieces = [stream.push(samples[start : start + block]) for start in range(0, len(samples), block)]
    assert all(len(piece) == min(block, len(samples) - block * i) for i, piece in enumerate(pieces))
    streamed = np.concatenate([*pieces, stream.flush()])[stream.latency_samples :][: len(whole)]
    assert np.abs(whole).max() > 0.01
    np.testing.assert_allclose(streamed, whole, atol=2e-5)


def test_long_stretches_equal_the_stream(converter, voice, monkeypatch):
    clip = voiced_sound(4.5, 200.0)
    source = F0Contour(
        (200 + 40 * np.sin(np.arange(451) / 20)).astype(np.float32) * np.where(np.arange(451) % 90 < 12, np.nan, 1),
        np.ones(451, np.float32),
    )
    wanted = source.transposed(-4.0)
    monkeypatch.setattr("engine.conversion.converter._SEGMENT_SECONDS", 2)
    whole = converter.convert(clip, voice, wanted, source_f0=source, formant_semitones=1.0, consonants=0.5).samples[0]
    primed = converter.source_statistics(clip, source)
    stream = converter.stream(
        voice, pitch=lambda: GivenPitch(source, wanted), primed=primed, formant_semitones=1.0, consonants=0.5
    )
    streamed = np.concatenate([stream.push(clip.samples[0]), stream.flush()])[stream.latency_samples :]
    np.testing.assert_allclose(streamed[: len(whole)], whole, atol=2e-5)


def test_recordings_of_many_stretches_are_whole(converter, voice, monkeypatch):
    clip, f0 = voiced_sound(3.0, 200.0), contour(3.0, 200.0)
    whole = converter.convert(clip, voice, f0, source_f0=f0).samples[0]
    monkeypatch.setattr("engine.conversion.converter._STRETCH_FRAMES", 100)
    blocks = np.split(clip.samples[0], [30000, 30001, 90000])
    pieces = np.concatenate(list(converter.convert_blocks(blocks, voice, f0, source_f0=f0)))
    assert len(pieces) == len(whole)
    assert np.abs(np.diff(pieces)).max() < 1.5 * np.abs(np.diff(whole)).max()
    assert np.corrcoef(pieces, whole)[0, 1] > 0.9


def test_latency_is_what_the_stream_says(converter, voice):
    stream = converter.stream(voice)
    assert stream.latency_samples <= 0.060 * RATE
    sound = np.zeros(RATE, np.float32)
    start = 24000
    sound[start : start + 9600] = np.random.default_rng(0).standard_normal(9600) * 0.1
    converted = stream.push(sound)
    loud = np.flatnonzero(np.abs(converted) > 0.02)
    assert abs(loud[0] - start - stream.latency_samples) < 0.02 * RATE
    assert abs(loud[-1] - start - 9600 - stream.latency_samples) < 0.03 * RATE


def test_silence_stays_silent_and_length_is_kept(converter, voice):
    for sample_rate in (16000, 44100, 48000):
        clip = AudioClip(np.zeros((1, sample_rate // 2 + 13), np.float32), sample_rate)
        converted = converter.convert(clip, voice, contour(0.5, 200.0))
        assert converted.sample_rate == RATE
        assert converted.num_samples == round(clip.num_samples * RATE / sample_rate)
        assert np.abs(converted.samples).max() < 1e-3


def test_rumble_below_consonants_does_not_come_out(converter, voice):
    """A hiss in a room that rumbles: below the voice nothing is left that could sound like one."""
    hiss = 0.03 * np.random.default_rng(1).standard_normal(2 * 48000)
    low = scipy.signal.butter(4, 100.0, fs=48000, output="sos")
    rumble = scipy.signal.sosfilt(low, np.random.default_rng(2).standard_normal(2 * 48000))
    clip = AudioClip((hiss + 0.5 * rumble).astype(np.float32)[None], 48000)
    unvoiced = F0Contour(np.full(201, np.nan, np.float32), np.zeros(201, np.float32))
    converted = converter.convert(clip, voice, unvoiced, source_f0=unvoiced)

    def low_db(sound):
        hz, power = scipy.signal.welch(sound.samples[0, 9600:], 48000, nperseg=4800)
        return 10 * np.log10(power[(hz > 20) & (hz < 150)].sum() / power[(hz > 500) & (hz < 4000)].sum())

    assert low_db(clip) > 5
    assert low_db(converted) < -20


def test_nothing_that_is_not_finite_comes_out(converter, voice):
    stream = converter.stream(voice)
    broken = np.full(4800, np.nan, np.float32)
    assert np.isfinite(stream.push(broken)).all()
    assert np.isfinite(stream.push(voiced_sound(0.2, 150.0).samples[0] * 30)).all()
    clip = AudioClip(np.concatenate([voiced_sound(0.2, 150.0).samples, broken[None]], axis=1), RATE)
    f0 = contour(0.3, 150.0)
    assert np.isfinite(converter.convert(clip, voice, f0, source_f0=f0).samples).all()


def test_changes_of_voice_and_pitch_do_not_click(converter, voice, other_voice):
    samples = voiced_sound(1.2, 200.0).samples[0]

    def steepest(change):
        stream = converter.stream(voice)
        first = stream.push(samples[:28800])
        change(stream)
        second = stream.push(samples[28800:])
        steps = np.abs(np.diff(np.concatenate([first, second])))
        return np.max(steps[28700:36000])

    def all_at_once(stream):
        stream.voice = other_voice
        stream.transpose_semitones = 5.0
        stream.formant_semitones = -2.0

    def other_all_along(stream):
        stream.reset()

    calm = max(steepest(lambda stream: None), steepest(other_all_along))
    loud = converter.stream(other_voice, transpose_semitones=5.0, formant_semitones=-2.0).push(samples)
    calm = max(calm, float(np.abs(np.diff(loud)).max()))
    assert steepest(all_at_once) < 1.5 * calm


def test_reset_starts_anew(converter, voice):
    samples = voiced_sound(0.5, 180.0).samples[0]
    stream = converter.stream(voice)
    first = stream.push(samples)
    stream.reset()
    np.testing.assert_array_equal(stream.push(samples), first)


def test_recent_pitch_shows_source_and_wanted(converter, voice):
    stream = converter.stream(voice, transpose_semitones=12.0)
    stream.push(voiced_sound(1.0, 180.0).samples[0])
    source, wanted = stream.recent_f0
    assert abs(np.nanmedian(source) - 180.0) < 4.0
    np.testing.assert_allclose(wanted, 2.0 * source, rtol=1e-5)


def test_converted_pitch_is_the_wanted_one(converter, voice):
    from engine.pitch import estimate_f0

    clip = voiced_sound(2.0, 220.0)
    source = F0Contour(np.full(201, 220.0, np.float32), np.ones(201, np.float32))
    wanted = F0Contour(np.full(201, 165.0, np.float32), np.ones(201, np.float32))
    converted = converter.convert(clip, voice, wanted, source_f0=source)
    assert abs(estimate_f0(converted, tracker="swift").median_hz() - 165.0) < 2.0


def test_long_input_needs_bounded_memory(converter, voice):
    import tracemalloc

    stream = converter.stream(voice, pitch=lambda: GivenPitch(contour(60, 200.0), contour(60, 200.0)))
    block = voiced_sound(2.0, 200.0).samples[0]
    stream.push(block)
    tracemalloc.start()
    for _ in range(5):
        stream.push(block)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 1_000_000


def test_voice_survives_its_file(voice):
    tensors, metadata = voice.to_tensors()
    assert all(isinstance(value, str) for value in metadata.values())
    again = Voice.from_tensors({key: array.astype(np.float16) for key, array in tensors.items()}, metadata)
    assert again.name == "Low"
    assert again.model_id == voice.model_id
    assert len(voice_model_id()) == len(voice.model_id) == 16
    assert again.median_f0_hz == pytest.approx(140.0, abs=3.0)
    assert again.f0_range_hz[0] <= again.median_f0_hz <= again.f0_range_hz[1]
    np.testing.assert_allclose(again.tensors["prints"], voice.tensors["prints"], atol=0.05)
    assert again.tensors["condition"].shape == (CONDITION_SIZE,)
    assert again.tensors["bias"].shape == (2, NUM_BANDS)


def test_damaged_voice_is_refused(voice):
    tensors, metadata = voice.to_tensors()
    with pytest.raises(ModelError):
        Voice.from_tensors({"prints": tensors["prints"]}, metadata)
    with pytest.raises(ModelError):
        Voice.from_tensors({**tensors, "prints": tensors["prints"] * np.nan}, metadata)


def test_blend_lies_between(voice, other_voice):
    blend = blend_voices([voice, other_voice], [3.0, 1.0], name="Mixed")
    assert 140 < blend.median_f0_hz < 260
    assert np.linalg.norm(blend.speaker_embedding) == pytest.approx(1.0, abs=1e-5)
    expected = 0.75 * voice.tensors["prints"] + 0.25 * other_voice.tensors["prints"]
    np.testing.assert_allclose(blend.tensors["prints"], expected, atol=1e-5)


def test_blend_refuses_stale_and_senseless(voice):
    stale = dataclasses.replace(voice, model_id="of older models")
    with pytest.raises(ModelError):
        blend_voices([voice, stale], [1.0, 1.0], name="Mixed")
    with pytest.raises(ValueError, match="weight"):
        blend_voices([voice], [0.0], name="Nobody")


def test_similarity_is_one_with_itself(voice, other_voice):
    assert similarity(voice, voice) == pytest.approx(1.0, abs=1e-4)
    assert similarity(voiced_sound(4.0, 140.0), voice) > similarity(voiced_sound(4.0, 140.0), other_voice)


def test_too_short_a_recording_makes_no_voice():
    with pytest.raises(EnrollmentError):
        embed_voice([AudioClip(np.zeros((1, 48000), np.float32), 48000)], name="Nobody")
    with pytest.raises(EnrollmentError):
        embed_voice([], name="Nobody")


def test_pulses_of_all_hops_are_those_of_each():
    from engine.conversion.synthesis import Excitation, HopPhases, pulses_of_hops

    f0_hz = np.concatenate([np.full(40, 200.0), np.full(7, np.nan), 300 + 200 * np.sin(np.arange(60) / 9), [np.nan]])
    f0_hz = f0_hz.astype(np.float32)
    wanted, _ = Excitation().push(f0_hz)
    phases = HopPhases()
    hops = np.concatenate([phases.push(f0_hz[:33]), phases.push(f0_hz[33:])], axis=1)
    pulses = pulses_of_hops(*torch.from_numpy(hops)[:, None])[0, : f0_hz.size * 480].numpy()
    np.testing.assert_allclose(pulses.reshape(wanted.shape), wanted, atol=1e-6)


def test_envelopes_of_many_frames_are_those_of_few():
    rng = np.random.default_rng(0)
    samples = rng.standard_normal(60 * 480 + 1024).astype(np.float32)
    f0_hz = np.where(rng.random(61) < 0.3, np.nan, rng.uniform(50, 2000, 61)).astype(np.float32)
    np.testing.assert_allclose(band_levels(samples, f0_hz)[0], envelopes(samples, f0_hz), atol=1e-5)


def test_envelope_of_pulses_does_not_depend_on_their_pitch():
    from engine.conversion.synthesis import Excitation

    means = []
    for f0_hz in (120.0, 310.0):
        pulses, _ = Excitation().push(np.full(60, f0_hz, np.float32))
        audio = pulses.reshape(-1)[4800:]
        frames = 1 + (len(audio) - 1024) // 480
        envelope, _ = band_levels(audio, np.full(frames, f0_hz, np.float32))
        means.append(envelope[:, 8:-4].mean(axis=0))
    assert np.abs(means[0]).max() < 0.4
    assert np.abs(means[0] - means[1]).max() < 0.4
