import os
import socket
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.multiprocessing
from torch import nn

from engine.conversion.content import ContentShape, load_content_encoder
from engine.conversion.features import NUM_MELS, SILENCE_LOG_MEL
from engine.errors import TrainingError
from engine.models import load_tensors
from engine.phones import PHONES
from engine.signal import AudioClip, write_audio
from engine.training.align import Aligner, label_cache, words_of
from engine.training.augmentation import AugmentationConfig, augment, noise_log_mel, stretched
from engine.training.cache import ArrayCache, AudioCache
from engine.training.config import build, read_config
from engine.training.content import (
    AlignedSpeech,
    ContentConfig,
    ContentTask,
    edit_distance,
    load_aligned,
    measure,
    most_probable_path,
)
from engine.training.loop import LoopConfig, Task, TrainingLoop, process_group
from engine.training.manifest import COLUMNS, read_manifest, with_speeds
from tests.fakes import tone

ROW = "a/b/c.wav,a,a-b,en,1.0,8000,CC0-1.0,hello"


HEADER = ",".join(COLUMNS)


def write_manifest(folder, *rows, header=HEADER):
    (folder / "train").mkdir(parents=True, exist_ok=True)
    (folder / "train" / "manifest.csv").write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return folder


def test_manifest_rows_become_utterances(tmp_path):
    (utterance,) = read_manifest(write_manifest(tmp_path, ROW), "train")
    assert utterance.path == tmp_path / "train/a/b/c.wav"
    assert (utterance.key, utterance.speaker, utterance.text) == ("train/a/b/c", "a-b", "hello")
    assert (utterance.seconds, utterance.bandwidth_hz) == (1.0, 8000.0)


@pytest.mark.parametrize(
    ("rows", "header"),
    [
        ([], HEADER),
        ([ROW], "path,set,speaker"),
        ([ROW, ROW], HEADER),
        ([ROW.replace("1.0,8000", "long,8000")], HEADER),
        ([ROW.replace("1.0,8000", "0,8000")], HEADER),
        ([ROW.replace("a/b/c.wav", "../c.wav")], HEADER),
        ([ROW.replace("a-b", "")], HEADER),
    ],
    ids=["empty", "columns", "twice", "no number", "no duration", "outside", "nobody"],
)
def test_an_unusable_manifest_says_what_is_wrong(tmp_path, rows, header):
    with pytest.raises(TrainingError):
        read_manifest(write_manifest(tmp_path, *rows, header=header), "train")


def test_a_missing_manifest_is_a_training_error(tmp_path):
    with pytest.raises(TrainingError) as caught:
        read_manifest(tmp_path, "train")
    assert caught.value.hint


def test_audio_is_decoded_once_and_a_lost_file_is_named(tmp_path):
    corpus = write_manifest(tmp_path, ROW)
    (utterance,) = read_manifest(corpus, "train")
    cache = AudioCache(tmp_path / "cache", 16000)
    with pytest.raises(TrainingError, match=r"c\.wav"):
        cache.samples(utterance)
    utterance.path.parent.mkdir(parents=True)
    write_audio(utterance.path, AudioClip(tone(440.0, 1.0, 48000, 0.5).reshape(1, -1), 48000))
    samples = cache.samples(utterance)
    assert (samples.dtype, samples.shape) == (np.int16, (16000,))
    assert abs(np.abs(samples).max() - 16384) < 400
    utterance.path.unlink()
    assert np.array_equal(cache.samples(utterance), samples)


def test_at_another_speed_a_recording_is_another_speaker(tmp_path):
    corpus = write_manifest(tmp_path, ROW)
    spoken = read_manifest(corpus, "train")
    spoken[0].path.parent.mkdir(parents=True)
    write_audio(spoken[0].path, AudioClip(tone(300.0, 1.0, 16000, 0.5).reshape(1, -1), 16000))
    assert with_speeds(spoken, ()) == spoken
    same, faster = with_speeds(spoken, [1.25])
    assert (same, faster.speed, faster.speaker) == (spoken[0], 1.25, spoken[0].speaker + "@1.25")
    assert faster.seconds == pytest.approx(spoken[0].seconds / 1.25)
    cache = AudioCache(tmp_path / "cache", 16000)
    assert len(cache.samples(same)) == 16000
    played = cache.samples(faster)
    assert len(played) == pytest.approx(12800, abs=2)
    assert np.abs(np.fft.rfft(played[:12800])).argmax() == pytest.approx(300, abs=1)  # 375 Hz in bins of 1.25 Hz


def test_a_damaged_cached_array_is_a_training_error(tmp_path):
    cache = ArrayCache(tmp_path, "kind")
    cache.write("train/x", np.arange(4))
    cache.path("train/x").write_bytes(b"no array")
    with pytest.raises(TrainingError):
        cache.read("train/x")


def test_settings_come_from_the_size_over_the_common_ones(tmp_path):
    file = tmp_path / "stage.toml"
    file.write_text("[common]\nloop = { steps = 5, seed = 1 }\n[cpu]\nloop = { steps = 9 }\n[gpu]\n")
    settings = read_config(file, "content", "cpu", ["loop.warmup_steps=3"])
    assert build(LoopConfig, settings["loop"]) == LoopConfig(steps=9, seed=1, warmup_steps=3)
    for size, overrides in (("tpu", ()), ("cpu", ("steps=",))):
        with pytest.raises(TrainingError):
            read_config(file, "content", size, overrides)
    with pytest.raises(TrainingError):
        build(LoopConfig, {"steps": 5, "speed": 3})


def test_every_packaged_configuration_fits_its_stage():
    for size in ("cpu", "gpu"):
        settings = read_config(None, "content", size)
        build(LoopConfig, settings.pop("loop"))
        build(ContentShape, settings.pop("shape"))
        build(AugmentationConfig, settings.pop("augmentation", {}))
        build(ContentConfig, settings)
        assert read_config(None, "align", size)["sets"]


class Line(Task):
    """Two networks, one of them updated by the other's loss as an adversary would be."""

    def __init__(self):
        torch.manual_seed(0)
        self.networks = {"line": nn.Linear(3, 1), "drop": nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5))}
        self.optimizers = {name: torch.optim.AdamW(n.parameters(), lr=0.05) for name, n in self.networks.items()}
        self.published = []

    def batch(self, rng):
        return torch.from_numpy(rng.normal(size=(16, 3)).astype(np.float32))

    def step(self, batch, loop):
        loss = (self.networks["line"](batch) - batch.sum(dim=1, keepdim=True)).square().mean()
        loop.update("line", loss)
        loop.update("drop", self.networks["drop"](batch).square().mean())
        return {"loss": loss.detach()}

    def validate(self, averaged):
        return {"weight": float(averaged["line"].weight.mean())}

    def publish(self, averaged, step, figures):
        self.published.append(step)


def weights_of(task):
    return [p.detach().clone() for network in task.networks.values() for p in network.parameters()]


def test_a_resumed_run_ends_where_an_uninterrupted_one_does(tmp_path):
    config = LoopConfig(steps=30, warmup_steps=5, save_every=10, validate_every=15, log_every=10)
    whole = Line()
    figures = TrainingLoop(whole, config, tmp_path / "whole", resume=False).run()
    TrainingLoop(Line(), config, tmp_path / "parts", resume=False).run(until=13)
    resumed = Line()
    loop = TrainingLoop(resumed, config, tmp_path / "parts", resume=True)
    assert loop.step == 13
    assert loop.run() == figures
    for expected, found in zip(weights_of(whole), weights_of(resumed), strict=True):
        assert torch.equal(expected, found)
    assert whole.published == [15, 30]
    assert loop.run() == figures  # nothing is left to do but measure
    assert list((tmp_path / "parts").glob("events.out.tfevents.*"))


def test_workers_make_the_batches_that_the_loop_itself_would(tmp_path):
    config = LoopConfig(steps=9, warmup_steps=2, validate_every=9, save_every=9)
    here, elsewhere = Line(), Line()
    TrainingLoop(here, config, tmp_path / "here", resume=False).run()
    TrainingLoop(elsewhere, replace(config, workers=2), tmp_path / "elsewhere", resume=False).run()
    for expected, found in zip(weights_of(here), weights_of(elsewhere), strict=True):
        assert torch.equal(expected, found)


def test_a_deadline_ends_a_run_that_can_be_finished_in_fewer_steps(tmp_path):
    config = LoopConfig(steps=1000, warmup_steps=2, decay_share=0.5)
    task = Line()
    loop = TrainingLoop(task, config, tmp_path, resume=False)
    assert loop.run(deadline=time.monotonic() - 1.0) == task.validate(loop._average)
    assert task.published == [loop.step] == [1]
    shorter = TrainingLoop(Line(), replace(config, steps=6), tmp_path, resume=True)
    assert shorter.step == 1
    shorter.run(deadline=time.monotonic() + 600.0)
    assert shorter.step == 6
    assert shorter.task.optimizers["line"].param_groups[0]["lr"] == pytest.approx(0.05 / 3)


def test_a_run_is_not_overwritten_nor_resumed_into_another_network(tmp_path):
    config = LoopConfig(steps=2)
    TrainingLoop(Line(), config, tmp_path, resume=False).run()
    with pytest.raises(TrainingError):
        TrainingLoop(Line(), config, tmp_path, resume=False)
    other = Line()
    other.networks["line"] = nn.Linear(4, 1)
    with pytest.raises(TrainingError):
        TrainingLoop(other, config, tmp_path, resume=True)


def test_the_learning_rate_falls_by_the_clock(tmp_path):
    task = Line()
    config = LoopConfig(steps=10**6, warmup_steps=1, decay_share=1.0, decay_by_clock=True, validate_every=10**6)
    rates = []
    step = task.step

    def watched(batch, loop):
        scalars = step(batch, loop)
        rates.extend(group["lr"] for optimizer in task.optimizers.values() for group in optimizer.param_groups)
        return scalars

    task.step = watched
    TrainingLoop(task, config, tmp_path / "run", resume=False).run(deadline=time.monotonic() + 0.5)
    assert all(later <= earlier for earlier, later in zip(rates[:-1], rates[1:], strict=True))
    assert rates[-1] < 0.1 * rates[0]


def test_the_learning_rate_rises_stays_and_falls():
    config = LoopConfig(steps=100, warmup_steps=10, decay_share=0.5)
    scales = [config.learning_rate_scale(step) for step in (0, 9, 40, 75, 99)]
    assert scales == pytest.approx([0.1, 1.0, 1.0, 0.5, 0.02])


def spoken(seed, count=6, frames=240):
    """Utterances whose phone is told by the loudest band; a small world that a network learns in seconds."""
    rng = np.random.default_rng(seed)
    labels = [np.repeat(rng.integers(0, len(PHONES), frames // 12), 12).astype(np.uint8) for _ in range(count)]
    spectra = [np.where(np.arange(NUM_MELS) // 2 == phone[:, None], -3.0, -12.0) for phone in labels]
    noisy = [(spectrum + rng.normal(0, 0.5, spectrum.shape)).astype(np.float16) for spectrum in spectra]
    return AlignedSpeech(list(zip(noisy, labels, strict=True)))


def test_the_content_stage_learns(tmp_path):
    torch.manual_seed(0)
    config = ContentConfig(batch_size=8, crop_frames=120, learning_rate=5e-3)
    quiet = AugmentationConfig(warp=1.0001, gain_db=(-3.0, 3.0), equaliser_db=1.0, snr_db=(20.0, 30.0))
    task = ContentTask(spoken(0), spoken(1), config, shape=ContentShape(48, (1, 2)), augmentation=quiet)
    before = measure(task.networks["encoder"].eval(), spoken(1))
    losses = []
    step = task.step
    task.step = lambda batch, loop: (losses.append(step(batch, loop)), losses[-1])[1]
    loop = TrainingLoop(task, LoopConfig(steps=40, warmup_steps=5, ema_decay=0.8), tmp_path, resume=False)
    figures = loop.run()
    assert losses[-1]["loss"] < 0.6 * losses[0]["loss"]
    assert figures["frame_accuracy"] > before["frame_accuracy"] + 0.2
    assert 0 <= figures["phone_error"] < before["phone_error"]


def test_published_weights_are_those_that_were_averaged(tmp_path, monkeypatch):
    monkeypatch.setattr("engine.models.registry.models_folder", lambda: tmp_path)
    task = ContentTask(spoken(0), spoken(1), ContentConfig(publish=True), shape=ContentShape(16, (1,)))
    encoder = task.networks["encoder"].eval()
    task.publish({"encoder": encoder}, 7, {"phone_error": 0.5})
    tensors, metadata = load_tensors("content")
    assert (metadata["steps"], metadata["phone_error"]) == ("7", "0.5000")
    log_mel = torch.from_numpy(spoken(1).frames[:200].T.astype(np.float32))[None]
    assert torch.allclose(load_content_encoder()(log_mel), encoder(log_mel), atol=0.02)
    assert all(tensors[name].dtype == torch.float32 for name in tensors if "running_var" in name)


def test_labels_and_audio_in_the_cache_become_aligned_speech(tmp_path):
    corpus = write_manifest(tmp_path, ROW, ROW.replace("c.wav", "d.wav"))
    for name in ("c", "d"):
        path = corpus / f"train/a/b/{name}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_audio(path, AudioClip(tone(300.0, 1.0, 16000, 0.1).reshape(1, -1), 16000))
    cache = tmp_path / "cache"
    with pytest.raises(TrainingError):
        load_aligned(corpus, cache, "train")
    label_cache(cache).write("train/a/b/c", np.full(101, 3, np.uint8))
    label_cache(cache).write("train/a/b/d", np.zeros(0, np.uint8))  # could not be aligned
    speech = load_aligned(corpus, cache, "train")
    assert len(speech) == 1
    assert speech.frames.shape == (101, NUM_MELS)
    places = speech.crop(np.random.default_rng(0), 350)
    assert (len(places), places.min(), places.max()) == (350, 0, 100)
    assert set(speech.labels[places]) == {3}


def test_edit_distance():
    assert edit_distance(np.array([1, 2, 3]), np.array([1, 2, 3])) == 0
    assert edit_distance(np.array([1, 3]), np.array([1, 2, 3])) == 1
    assert edit_distance(np.array([], int), np.array([1, 2])) == 2
    assert edit_distance(np.array([5, 1, 2, 9, 3]), np.array([1, 2, 3, 4])) == 3


def test_a_path_changes_only_where_it_gains_by_it():
    probable = np.log(np.full((30, 3), 0.05))
    probable[:, 0] = probable[20:, 1] = np.log(0.9)
    probable[20:, 0] = np.log(0.05)
    probable[7] = np.log([0.3, 0.6, 0.1])  # a slip of one frame
    assert most_probable_path(probable).tolist() == [0] * 20 + [1] * 10


def test_augmentation_keeps_shape_floor_and_input():
    torch.manual_seed(0)
    log_mel = torch.full((64, NUM_MELS, 90), -9.0)
    config = AugmentationConfig(whisper_share=0.5, room_share=0.5)
    changed = augment(log_mel, config)
    assert changed.shape == log_mel.shape
    assert bool(torch.isfinite(changed).all())
    assert float(changed.min()) >= SILENCE_LOG_MEL - 1e-4
    assert bool((log_mel == -9.0).all())
    assert float(changed.mean(dim=(1, 2)).std()) > 0.5
    assert float(noise_log_mel(8, log_mel).max()) < 6.0


def test_a_warp_moves_a_band():
    log_mel = torch.full((1, NUM_MELS, 4), -15.0)
    log_mel[:, 40] = 0.0
    torch.manual_seed(3)
    only_warp = AugmentationConfig(1.2, (0.0, 0.0), 0.0, 0.0, (3.0, 35.0), 0.0, 0.0, 0)
    moved = [int(augment(log_mel, only_warp)[0, :, 0].argmax()) for _ in range(12)]
    assert min(moved) < 39
    assert max(moved) > 41
    assert max(abs(band - 40) for band in moved) < 9


def test_stretching_holds_frames_as_long_as_asked():
    before, after, share = stretched(np.array([1, 1, 3, 3, 1, 1.0]), 12)
    assert before.tolist() == [0, 1, 2, 2, 2, 3, 3, 3, 4, 5, 5, 5]
    assert after.tolist() == [1, 2, 3, 3, 3, 4, 4, 4, 5, 5, 5, 5]
    assert share == pytest.approx([0, 0, 0, 1 / 3, 2 / 3, 0, 1 / 3, 2 / 3, 0, 0, 0, 0], abs=1e-6)


def test_words_are_spelt_as_the_dictionary_does():
    assert words_of("“It’s ten-past,” said O'Neill; 'no'.") == ["it's", "ten", "past", "said", "o'neill", "no"]


def test_a_text_without_words_is_not_aligned():
    assert len(Aligner().align(np.zeros(16000, np.int16), "...", -60.0)) == 0


def train_in_a_group(rank, folder, port):
    os.environ.update(LOCAL_RANK=str(rank), RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
    with process_group():
        task = Line()
        config = LoopConfig(steps=12, warmup_steps=2, validate_every=6, save_every=6, num_threads=1)
        TrainingLoop(task, config, folder, resume=False).run()
        np.savez(folder / f"rank{rank}.npz", *[weights.numpy() for weights in weights_of(task)])


@pytest.mark.slow
def test_processes_of_a_group_learn_the_same_from_different_batches(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    torch.multiprocessing.spawn(train_in_a_group, (tmp_path, port), nprocs=2)
    first, second = (np.load(tmp_path / f"rank{rank}.npz") for rank in range(2))
    assert all(np.array_equal(first[name], second[name]) for name in first)
    alone = Line()
    TrainingLoop(alone, LoopConfig(steps=12, warmup_steps=2), tmp_path / "alone", resume=False).run()
    assert not np.allclose(first["arr_0"], weights_of(alone)[0].numpy())
