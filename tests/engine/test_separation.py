import threading
from dataclasses import replace

import numpy as np
import pytest
import torch

from engine import models
from engine.bench.separation import stem_figures
from engine.errors import AudioFileError, Cancelled, EngineBusyError, ModelError
from engine.jobs import JobContext
from engine.separation import load_separator, separate
from engine.separation.network import NetworkConfig, VocalNet, band_edges
from engine.separation.song import channel_pairs, fold, unfold
from engine.separation.streaming import OverlapAdd
from engine.signal import AudioClip, read_audio, write_audio

RATE = 44_100


def singing(seconds, rate=RATE, pitch_hz=220.0):
    """A sung vowel with vibrato, the formants of an open "a" and pauses, [N]."""
    times = np.arange(int(seconds * rate)) / rate
    phase = 2 * np.pi * np.cumsum(pitch_hz * (1 + 0.02 * np.sin(2 * np.pi * 5.5 * times))) / rate
    voice = np.zeros_like(times)
    for harmonic in range(1, 24):
        hz = harmonic * pitch_hz
        voice += sum(np.exp(-(((hz - f) / 180) ** 2)) for f in (700, 1150, 2600)) * np.sin(harmonic * phase) + (
            0.05 / harmonic * np.sin(harmonic * phase)
        )
    syllables = np.clip(np.sin(2 * np.pi * 1.4 * times) * 4, 0, 1) * (times % 5 < 3.6)
    return 0.12 * voice * syllables


def band(seconds, rate=RATE):
    """A kick drum, hats and panned chords of decaying tones, [2, N]."""
    rng = np.random.default_rng(3)
    times = np.arange(int(seconds * rate)) / rate
    beat = times % 0.5
    kick = np.sin(2 * np.pi * 55 * beat) * np.exp(-beat * 18)
    hat = rng.standard_normal(len(times)) * np.exp(-(times % 0.25) * 60) * 0.2
    sides = []
    for detune in (0.997, 1.004):
        chord = sum(np.sin(2 * np.pi * hz * detune * times) for hz in (110, 164.8, 277.2, 329.6))
        sides.append(0.2 * kick + 0.15 * hat + 0.05 * chord * np.exp(-(times % 2.0)))
    return np.stack(sides)


def song(seconds=6.0, rate=RATE):
    vocals = np.stack([singing(seconds, rate)] * 2)
    mixture = np.round((vocals + band(seconds, rate)) * 32767) / 32768
    return AudioClip(mixture.astype(np.float32), rate), vocals.astype(np.float32)


SMALL = NetworkConfig(sample_rate=16_000, fft_size=512, hop=256, channels=4, growth=1.5, num_bands=32, depth=3)


def tiny_model(folder, name="tiny"):
    """An untrained separator of the real kind, small enough to be quick."""
    torch.manual_seed(1)
    net = VocalNet(SMALL)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(1.5)
    metadata = {"format": "vocalnet", "config": net.config.to_json()}
    return models.publish_embedded(name, "separator", net.state_dict(), metadata, folder=folder).path


@pytest.fixture
def tiny(tmp_path):
    return str(tiny_model(tmp_path / "weights"))


def stems(result):
    return read_audio(result.vocals).samples, read_audio(result.accompaniment).samples


def test_the_stems_sum_to_the_mixture_exactly_at_its_rate_and_length(tmp_path, tiny):
    for rate, num_channels in ((44_100, 2), (48_000, 2), (22_050, 1)):
        clip, _ = song(2.0, rate)
        clip = AudioClip(np.ascontiguousarray(clip.samples[:num_channels]), rate)
        vocals, accompaniment = stems(separate(clip, tmp_path, model=tiny, torch_device="cpu"))
        assert np.array_equal(vocals + accompaniment, clip.samples)
        assert np.abs(vocals).max() > 0.01


def test_a_file_gives_the_same_as_a_clip(tmp_path, tiny):
    clip, _ = song(2.0)
    path = tmp_path / "Süßes Lied 🎵.wav"
    write_audio(path, clip)
    from_file = separate(path, tmp_path / "a", model=tiny, torch_device="cpu")
    from_clip = separate(read_audio(path), tmp_path / "b", model=tiny, torch_device="cpu")
    assert from_file.seconds == clip.seconds
    assert np.array_equal(stems(from_file)[0], stems(from_clip)[0])


def test_segments_give_what_the_whole_gives_without_a_seam_or_a_shift(tmp_path, tiny):
    clip, _ = song(9.0)
    whole, _ = stems(separate(clip, tmp_path / "whole", model=tiny, torch_device="cpu", segment_s=30))
    pieces, _ = stems(separate(clip, tmp_path / "pieces", model=tiny, torch_device="cpu", segment_s=2))
    np.testing.assert_allclose(pieces, whole, atol=1e-5)


@pytest.mark.parametrize("size", [1, 100, 997, 1000, 5000, 12_345])
def test_overlap_add_of_the_identity_is_the_identity(size):
    signal = np.random.default_rng(0).standard_normal((2, 12_345)).astype(np.float32)
    join = OverlapAdd(np.copy, 2, segment=1000, margin=100, fade=150, alignment=10)
    blocks = [signal[:, at : at + size] for at in range(0, signal.shape[1], size)]
    if size == 1:
        blocks = blocks[:2500]
    out = np.concatenate([*(join.push(block) for block in blocks), join.flush()], axis=1)
    np.testing.assert_allclose(out, np.concatenate(blocks, axis=1), atol=1e-6)
    assert join.flush().shape == (2, 0)


def test_overlap_add_throws_margins_away():
    def spoil_ends(segment):
        spoilt = segment.copy()
        spoilt[:, :100] = spoilt[:, -100:] = 1e6
        return spoilt

    signal = np.random.default_rng(0).standard_normal((1, 4321)).astype(np.float32)
    join = OverlapAdd(spoil_ends, 1, segment=1000, margin=100, fade=150)
    np.testing.assert_allclose(np.concatenate([join.push(signal), join.flush()], axis=1), signal, atol=1e-6)


def test_six_channels_keep_their_places(tmp_path, tiny):
    mixture, vocals = song(2.0)
    surround = np.zeros((6, mixture.num_samples), np.float32)
    surround[3] = 0.1 * np.sin(np.arange(mixture.num_samples) * 2 * np.pi * 40 / RATE)
    surround[2] = np.round(vocals[0] * 32768) / 32768
    found, rest = stems(separate(AudioClip(surround, RATE), tmp_path, model=tiny, torch_device="cpu"))
    assert found.shape == surround.shape
    assert np.array_equal(found[2] + rest[2], surround[2])
    assert np.array_equal(rest[3], surround[3])  # the low-frequency channel holds no lead
    assert np.abs(found[2]).max() > 0.01
    assert not found[[0, 1, 3, 4, 5]].any()


def test_pairs_of_channels_fold_and_unfold():
    for num_channels in range(1, 12):
        pairs = channel_pairs(num_channels)
        block = np.random.default_rng(1).standard_normal((num_channels, 5)).astype(np.float32)
        back = unfold(fold(block, pairs), pairs, num_channels)
        used = sorted({c for pair in pairs for c in pair})
        np.testing.assert_allclose(back[used], block[used], atol=1e-6)
        assert len(used) >= num_channels - 1


def test_a_song_is_never_overwritten_by_its_stems(tmp_path, tiny):
    clip, _ = song(1.0)
    write_audio(tmp_path / "vocals.wav", clip)
    before = (tmp_path / "vocals.wav").read_bytes()
    with pytest.raises(AudioFileError, match="overwrite"):
        separate(tmp_path / "vocals.wav", tmp_path, model=tiny)
    assert (tmp_path / "vocals.wav").read_bytes() == before


def test_silence_and_very_short_songs_come_out_whole(tmp_path, tiny):
    silent = AudioClip(np.zeros((2, 3000), np.float32), RATE)
    vocals, accompaniment = stems(separate(silent, tmp_path, model=tiny))
    assert vocals.shape == (2, 3000)
    assert not vocals.any()
    assert not accompaniment.any()
    click = AudioClip(np.full((1, 7), 0.5, np.float32), 8000)
    vocals, accompaniment = stems(separate(click, tmp_path, model=tiny))
    assert np.array_equal(vocals + accompaniment, click.samples)
    with pytest.raises(AudioFileError):
        separate(AudioClip(np.zeros((2, 0), np.float32), RATE), tmp_path, model=tiny)


def test_cancelling_stops_within_a_second_and_leaves_no_file(tmp_path, tiny):
    class StopsInTheMiddle(JobContext):
        def checkpoint(self, stage, fraction):
            if fraction > 0.5:
                self.cancel()
            super().checkpoint(stage, fraction)

    clip, _ = song(8.0)
    with pytest.raises(Cancelled):
        separate(clip, tmp_path / "out", model=tiny, torch_device="cpu", ctx=StopsInTheMiddle())
    assert list((tmp_path / "out").iterdir()) == []


def test_even_one_long_segment_looks_for_cancellation_between_layers(tmp_path, tiny):
    stages = []

    class Counts(JobContext):
        def checkpoint(self, stage, fraction):
            stages.append((stage, fraction))
            super().checkpoint(stage, fraction)

    clip, _ = song(4.0)
    separate(clip, tmp_path, model=tiny, torch_device="cpu", segment_s=60, ctx=Counts())
    assert len(stages) > 60
    fractions = [fraction for _, fraction in stages]
    assert fractions == sorted(fractions)
    assert "Separating vocals" in {stage for stage, _ in stages}


def test_memory_that_runs_out_leads_to_smaller_segments_with_the_same_result(tmp_path, tiny, monkeypatch):
    clip, _ = song(20.0)
    expected, _ = stems(separate(clip, tmp_path / "a", model=tiny, torch_device="cpu"))
    real, sizes = torch.stft, []

    def short_of_memory(samples, *arguments, **keywords):
        sizes.append(samples.shape[-1])
        if samples.shape[-1] > 16 * SMALL.sample_rate:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return real(samples, *arguments, **keywords)

    monkeypatch.setattr(torch, "stft", short_of_memory)
    ctx = JobContext()
    vocals, _ = stems(separate(clip, tmp_path / "b", model=tiny, torch_device="cpu", ctx=ctx))
    np.testing.assert_allclose(vocals, expected, atol=1e-5)
    assert max(sizes) > 16 * SMALL.sample_rate
    assert any("segments" in note for note in ctx.progress.notes)


def test_two_jobs_do_not_share_the_models(tmp_path, tiny):
    clip, _ = song(1.0)
    outcome = []

    def second():
        try:
            separate(clip, tmp_path, model=tiny)
        except EngineBusyError as error:
            outcome.append(error)

    with models.lease():
        thread = threading.Thread(target=second)
        thread.start()
        thread.join()
    assert outcome


def test_models_that_are_no_separators_are_refused(tmp_path):
    clip, _ = song(1.0)
    other = models.publish_embedded("other", "speaker", {"w": torch.ones(3)}, {}, folder=tmp_path).path
    wrong = {"format": "vocalnet", "config": SMALL.to_json()}
    shapes = models.publish_embedded("shapes", "separator", {"w": torch.ones(3)}, wrong, folder=tmp_path).path
    huge = {"format": "vocalnet", "config": NetworkConfig(channels=100_000).to_json()}
    large = models.publish_embedded("large", "separator", {"w": torch.ones(3)}, huge, folder=tmp_path).path
    for model in (str(other), str(shapes), str(large), str(tmp_path / "nobody.safetensors"), "nobody"):
        with pytest.raises(ModelError) as caught:
            separate(clip, tmp_path / "out", model=model)
        assert caught.value.hint
    assert not (tmp_path / "out").exists()


def test_weights_that_give_no_numbers_are_told(tmp_path):
    torch.manual_seed(1)
    net = VocalNet(SMALL)
    net.feature_std.zero_()
    metadata = {"format": "vocalnet", "config": net.config.to_json()}
    path = models.publish_embedded("bad", "separator", net.state_dict(), metadata, folder=tmp_path).path
    clip, _ = song(1.0)
    with pytest.raises(ModelError, match="not numbers"):
        separate(clip, tmp_path / "out", model=str(path))
    assert list((tmp_path / "out").iterdir()) == []


def test_bands_cover_the_spectrum_once():
    for num_bands, fft_size in ((256, 2048), (512, 4096), (64, 2048)):
        edges = band_edges(num_bands, fft_size)
        assert (edges[0], edges[-1], len(edges)) == (0, fft_size // 2 + 1, num_bands + 1)
        widths = np.diff(edges)
        assert widths.min() == 1
        assert widths[-1] > 5


def test_the_network_reaches_no_further_than_it_says():
    torch.manual_seed(0)
    net = VocalNet(replace(SMALL, depth=4)).eval()
    samples = 8 * net.reach // net.alignment * net.alignment
    mix = 0.1 * torch.randn(1, 2, samples)
    changed = mix.clone()
    changed[..., samples // 2 :] += 0.1
    with torch.no_grad():
        difference = (net(mix) - net(changed)).abs().amax(dim=(0, 1))
    assert float(difference[: samples // 2 - net.reach].max()) < 1e-6
    assert float(difference[samples // 2 :].max()) > 1e-4


def test_more_passes_average_shifted_estimates(tmp_path, tiny):
    clip, _ = song(3.0)
    once, _ = stems(separate(clip, tmp_path / "a", model=tiny, torch_device="cpu"))
    twice, rest = stems(separate(clip, tmp_path / "b", model=tiny, torch_device="cpu", passes=2))
    assert np.array_equal(twice + rest, clip.samples)
    assert 1e-4 < np.abs(twice - once).max() < 0.5 * np.abs(once).max()


def test_the_shipped_separator_is_small_and_loads():
    separator = load_separator("embedded")
    assert separator.name == "separator"
    assert models.model_info("separator").size < 5_000_000


def test_the_shipped_separator_finds_a_singer_in_a_band(tmp_path):
    clip, vocals = song(10.0)
    stems_of = separate(clip, tmp_path, torch_device="cpu")
    assert stems_of.model == "separator"
    found, rest = stems(stems_of)
    assert np.array_equal(found + rest, clip.samples)
    before = stem_figures(clip.samples, vocals)["si_sdr_db"]
    assert stem_figures(found, vocals)["si_sdr_db"] > before + 5


def test_damaged_or_missing_weights_are_refused_with_a_way_to_repair_them(tmp_path, monkeypatch):
    folder = tmp_path / "models"
    path = tiny_model(folder, "separator")
    monkeypatch.setattr(models.registry, "models_folder", lambda: folder)
    clip, _ = song(1.0)
    assert separate(clip, tmp_path / "good", torch_device="cpu").model_ids == {
        "separator": models.model_info("separator").sha256
    }
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    for damage in (lambda: path.write_bytes(data), lambda: path.write_bytes(data[:100]), path.unlink):
        damage()
        with pytest.raises(ModelError) as caught:
            separate(clip, tmp_path / "out")
        assert "Install AutoVoice again" in caught.value.hint
    assert not (tmp_path / "out").exists()
