import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from engine.errors import AutoVoiceError, TrainingError
from engine.separation.network import NetworkConfig
from engine.signal import AudioClip, read_audio, write_audio
from engine.training import separator_data
from engine.training.bands import DRUM_CHANNEL, STYLES, compose, play
from engine.training.loop import LoopConfig, TrainingLoop
from engine.training.separator import SeparatorConfig, SeparatorTask, si_sdr_db
from engine.training.separator_data import SAMPLE_RATE, Mixtures, held_out_song, prepare_cache
from tests.engine.test_separation import band, singing

SOUND_FONT = "/usr/share/sounds/sf2/FluidR3_GM.sf2"


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """A corpus of one dry voice and two short songs, decoded; bands stand in as arrays."""
    root = tmp_path_factory.mktemp("corpus")
    rows = []
    for index in range(2):
        path = root / "train" / "producerspace" / "x" / f"{index}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_audio(path, AudioClip(singing(6, pitch_hz=180 + 40 * index)[None].astype(np.float32), SAMPLE_RATE))
        rows.append({"path": f"producerspace/x/{index}.wav", "set": "producerspace", "seconds": 6})
    with (root / "train" / "manifest.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["path", "set", "seconds"])
        writer.writeheader()
        writer.writerows(rows)
    folder = tmp_path_factory.mktemp("cache")
    for name in ("one", "two"):
        for stem, samples in (("vocals", np.stack([singing(8)] * 2)), ("accompaniment", band(8))):
            target = folder / "songs" / f"train-{name}-{stem}.npy"
            target.parent.mkdir(exist_ok=True)
            np.save(target, np.round(samples * 32767).astype(np.int16))
    (folder / "bands").mkdir()
    np.save(folder / "bands" / "0000.npy", np.round(band(8)[::-1] * 32767).astype(np.int16))
    voices = {"producerspace": 1}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(separator_data, "VOICE_MINUTES", voices)
        prepare_cache(root, folder, root / "none.sf2", num_bands=1, band_seconds=8)
    return folder


def test_every_style_composes_and_no_program_is_a_voice():
    for style in STYLES:
        midi = compose(7, seconds=12, style=style)
        assert 12 <= midi.length < 30, style
        notes = [m for m in midi.tracks[0] if m.type == "note_on"]
        programs = {m.program for m in midi.tracks[0] if m.type == "program_change" and m.channel != DRUM_CHANNEL}
        assert len(notes) > 4, style
        assert not programs & {52, 53, 54, 85, 91}, style


def test_the_same_seed_writes_the_same_music():
    assert list(compose(3, seconds=10).tracks[0]) == list(compose(3, seconds=10).tracks[0])
    assert list(compose(3, seconds=10).tracks[0]) != list(compose(4, seconds=10).tracks[0])


def test_without_a_sound_font_the_way_to_get_one_is_told(tmp_path):
    with pytest.raises(AutoVoiceError) as caught:
        play(compose(1, seconds=4), tmp_path / "x.wav", tmp_path / "none.sf2")
    assert "apt-get" in caught.value.hint


@pytest.mark.slow
def test_a_band_can_be_heard(tmp_path):
    assert shutil.which("fluidsynth")
    play(compose(0, seconds=5), tmp_path / "band.wav", Path(SOUND_FONT))
    band = read_audio(tmp_path / "band.wav")
    assert band.seconds >= 5
    assert np.sqrt((band.samples**2).mean()) > 0.003


def test_examples_are_mixtures_with_their_vocals_and_depend_on_the_random_state_alone(cache):
    mixtures = Mixtures(cache, seconds=2.0, held_out=("two",))
    silent = 0
    for seed in range(30):
        mixture, vocals = mixtures.example(np.random.default_rng(seed))
        assert mixture.shape == vocals.shape == (2, 2 * SAMPLE_RATE)
        assert mixture.dtype == vocals.dtype == np.float32
        assert np.isfinite(mixture).all()
        assert 0.02 < np.sqrt((mixture**2).mean()) < 0.3
        silent += not vocals.any()
    assert 0 < silent < 12
    again, _ = Mixtures(cache, seconds=2.0, held_out=("two",)).example(np.random.default_rng(29))
    assert np.array_equal(again, mixture)


def test_a_held_out_song_is_whole(cache):
    vocals, accompaniment = held_out_song(cache, "two", from_s=3.0)
    assert vocals.shape == accompaniment.shape == (2, 5 * SAMPLE_RATE)
    with pytest.raises(TrainingError):
        held_out_song(cache, "three", from_s=0)
    with pytest.raises(TrainingError):
        Mixtures(cache, seconds=2.0, held_out=("one", "two"))


def test_a_few_steps_lower_the_loss_and_resume_where_they_stopped(cache, tmp_path):
    def make(run, *, resume):
        torch.manual_seed(0)
        network = NetworkConfig(channels=4, growth=1.5, num_bands=32, depth=3)
        config = SeparatorConfig(batch_size=2, example_s=0.7, learning_rate=5e-3)
        task = SeparatorTask(
            Mixtures(cache, seconds=1.0, held_out=("two",)),
            held_out_song(cache, "two", from_s=4),
            config,
            network=network,
        )
        loop = LoopConfig(steps=12, warmup_steps=2, log_every=12, save_every=6, validate_every=12, workers=1)
        return TrainingLoop(task, loop, run, resume=resume)

    whole = make(tmp_path / "a", resume=False)
    first = float(whole.task.step(whole.task.batch(np.random.default_rng(5)), whole)["loss"])
    figures = whole.run()
    last = float(whole.task.step(whole.task.batch(np.random.default_rng(5)), whole)["loss"])
    assert last < first
    assert figures["si_sdr_gain_db"] > -20
    make(tmp_path / "b", resume=False).run(until=6)
    resumed = make(tmp_path / "b", resume=True)
    assert resumed.step == 6
    resumed.run()
    assert resumed.step == 12


def test_the_start_of_a_held_out_song_can_be_learnt_from(cache):
    used = Mixtures(cache, seconds=1.0, held_out=("two",), used_until_s=3.0)
    assert sorted(vocals.num_samples for vocals, _ in used._songs)[0] == 3 * SAMPLE_RATE
    assert len(used._songs) == len(Mixtures(cache, seconds=1.0)._songs)


def test_si_sdr_ignores_the_scale():
    reference = torch.from_numpy(singing(1.0))
    noise = torch.from_numpy(np.random.default_rng(0).standard_normal(len(reference)))
    noise -= (noise @ reference) / (reference @ reference) * reference
    noise *= 0.1 * reference.norm() / noise.norm()
    assert si_sdr_db(3 * (reference + noise), reference) == pytest.approx(20.0, abs=1e-6)
