"""The stages `speaker` and `decoder` on a few seconds of made-up voices: each loss falls, and a run can go on."""

import numpy as np
import pytest
import torch

from engine.conversion.bands import HOP_LENGTH, NUM_SPEECH_BANDS, SAMPLE_RATE, WINDOW_LENGTH, band_levels
from engine.conversion.prints import estimate_prints, formant_distance, formant_distances
from engine.conversion.source import smooth_deviation
from engine.conversion.synthesis import Excitation
from engine.phones import PHONES
from engine.training import decoder
from engine.training.decoder import DecoderConfig, Listeners, build_task
from engine.training.excerpts import Excerpts, make_utterance, print_model_of
from engine.training.loop import LoopConfig, TrainingLoop
from engine.training.pulses import pulse_trains
from engine.training.speaker import SpeakerConfig, SpeakerTask, Windows, active_levels


def made_up_speech(speaker, seed, seconds=2.0):
    """Three "phones" of one speaker: a low and a high vowel and a hiss, 0.2 s each; samples, F0, posteriors."""
    rng = np.random.default_rng(seed)
    num_frames = int(seconds * 100) + 1
    phones = np.repeat(rng.integers(1, 4, num_frames // 20 + 1), 20)[:num_frames]
    f0_hz = np.where(phones < 3, 110.0 + 40.0 * speaker, np.nan).astype(np.float32)
    time = np.arange((num_frames - 1) * HOP_LENGTH) / SAMPLE_RATE
    phone_at = np.repeat(phones[:-1], HOP_LENGTH)
    samples = np.zeros(len(time))
    for harmonic in range(1, 40):
        frequency = harmonic * (110.0 + 40.0 * speaker)
        formant = np.where(phone_at == 1, 500.0, 1500.0) * (1 + 0.15 * speaker)
        strength = 0.03 + np.exp(-(((frequency - formant) / 300.0) ** 2))
        samples += np.where(phone_at < 3, strength * np.sin(2 * np.pi * frequency * time), 0.0)
    samples += np.where(phone_at == 3, 1.0, 0.01) * rng.standard_normal(len(time))
    posteriors = np.eye(len(PHONES), dtype=np.float32)[phones]
    return (0.1 * samples).astype(np.float32), f0_hz, posteriors


def utterance(speaker, seed):
    samples, f0_hz, posteriors = made_up_speech(speaker, seed)
    padded = np.zeros((len(f0_hz) - 1) * HOP_LENGTH + WINDOW_LENGTH, np.float32)
    padded[WINDOW_LENGTH // 2 :][: len(samples)] = samples[: len(padded) - WINDOW_LENGTH // 2]
    envelope, raw = band_levels(padded, f0_hz)
    embedding = np.zeros(256, np.float32)
    embedding[speaker] = 1.0
    stored = (samples * 32767).astype(np.int16)
    made = make_utterance(
        f"speaker {speaker}",
        envelope,
        f0_hz,
        posteriors,
        embedding,
        embedding,
        active_levels(raw[:, :NUM_SPEECH_BANDS]).mean(axis=0),
        24000.0,
        stored,
    )
    return made, raw


@pytest.fixture(scope="module")
def speech():
    return [utterance(speaker, 10 * speaker + take) for speaker in range(3) for take in range(2)]


def losses_of(task, tmp_path, name, steps):
    """The scalars of every step on one batch, again and again: what can be learnt is learnt at once."""
    batch = task.batch(np.random.default_rng(0))
    task.batch = lambda rng: batch

    class Recorder(TrainingLoop):
        def _one_step(self, batch):
            scalars = super()._one_step(batch)
            seen.append({key: float(value) for key, value in scalars.items()})
            return scalars

    seen = []
    config = LoopConfig(steps=steps, warmup_steps=2, decay_share=0.2, validate_every=steps, save_every=steps, workers=0)
    figures = Recorder(task, config, tmp_path / name, resume=False).run()
    assert all(np.isfinite(value) for value in figures.values())
    return seen


def test_speaker_loss_falls(speech, tmp_path):
    raw = [active_levels(raw[:, :44]) for _, raw in speech]
    teachers = [made.embedding for made, _ in speech]
    torch.manual_seed(0)
    task = SpeakerTask(
        Windows(raw, teachers), list(zip(raw, teachers, strict=True)), SpeakerConfig(batch_size=6, width=32)
    )
    losses = [scalars["loss"] for scalars in losses_of(task, tmp_path, "speaker", 25)]
    assert np.mean(losses[-4:]) < 0.6 * np.mean(losses[:4])


def test_decoder_losses_fall(speech, tmp_path):
    made = [each for each, _ in speech]
    torch.manual_seed(0)
    config = DecoderConfig(batch_size=4, frames=40, width=48, dilations=(1, 2), num_directions=2, learning_rate=5e-3)
    seen = losses_of(build_task(made[:5], made[5:], config), tmp_path, "decoder", 30)
    for name in ("envelope", "spectrum"):
        values = [scalars[name] for scalars in seen]
        assert np.mean(values[-5:]) < 0.85 * np.mean(values[:5]), name


class Ear(torch.nn.Module):
    """Stands for resemblyzer's encoder, whose weights the tests do not have: a fixed random projection of spectra."""

    def __init__(self):
        super().__init__()
        self.lstm = torch.nn.Identity()
        generator = torch.Generator().manual_seed(0)
        self.register_buffer("projection", torch.randn(257, 256, generator=generator))

    def forward(self, samples):
        spectra = torch.stft(samples, 512, 160, window=torch.hann_window(512), return_complex=True).abs()
        return torch.nn.functional.normalize((spectra + 1e-4).log().mean(-1) @ self.projection, dim=1)


def test_losses_on_sound_fall(speech, tmp_path, monkeypatch):
    monkeypatch.setattr(decoder, "Ge2e", Ear)
    made = [each for each, _ in speech]
    torch.manual_seed(0)
    config = DecoderConfig(
        batch_size=3,
        frames=60,
        width=32,
        critic_width=2,
        dilations=(1, 2),
        num_directions=2,
        learning_rate=1e-2,
        sound_from_step=0,
        sound_shares={
            "spectra": 0.3,
            "likeness": 0.1,
            "deceived": 0.1,
            "ge2e": 1.0,
            "speaker": 0.3,
            "manner": 0.3,
            "content": 1.0,
        },
    )
    task = build_task(made, made[2:], config, listeners=Listeners().requires_grad_(False))
    seen = losses_of(task, tmp_path, "decoder", 8)
    assert {"spectra", "likeness", "deceived", "ge2e", "speaker", "manner", "content", "doubt"} <= set(seen[0])
    for name in ("ge2e", "content"):
        values = [scalars[name] for scalars in seen]
        assert np.mean(values[-3:]) < np.mean(values[:3]), name
    figures = task.validate({"decoder": task.networks["decoder"]})
    assert 0.0 <= figures["closer"] <= 1.0


def test_pulses_on_the_device_are_those_of_the_synthesis():
    f0_hz = np.concatenate([np.zeros(3), 150 + 60 * np.sin(np.arange(60) / 7), np.zeros(5), np.full(20, 400.0)])
    excitation = Excitation()
    excitation.push(np.full(1, np.nan, np.float32))
    wanted, _ = excitation.push(np.where(f0_hz > 0, f0_hz, np.nan)[1:].astype(np.float32))
    made = pulse_trains(torch.from_numpy(f0_hz.astype(np.float32))[None])[0].numpy()
    np.testing.assert_allclose(made, wanted, atol=1e-4)


def test_a_gathered_excerpt_is_the_recording(speech):
    made = [each for each, _ in speech]
    model = print_model_of(made, 2)
    excerpts = Excerpts(made, model, 50)
    plan = excerpts.plan(np.random.default_rng(0), 4)
    batch = excerpts.gather(plan)
    source, start = made[int(plan.utterance[1])], int(plan.start[1])
    np.testing.assert_allclose(batch.envelope[1].numpy(), source.envelope[start : start + 50], atol=1e-3)
    audio = source.samples[start * HOP_LENGTH : (start + 49) * HOP_LENGTH] / 32768.0
    np.testing.assert_allclose(batch.audio[1].numpy(), audio, atol=1e-6)
    # What the tables do is what conversion does.
    own = estimate_prints(source.statistics, model)
    wanted = batch.voice.prints[1].numpy()
    tables = excerpts._tables
    distances = formant_distances(torch.from_numpy(np.stack([wanted, own])), torch.from_numpy(np.stack([own, wanted])))
    assert float(distances[1]) == pytest.approx(formant_distance(own, wanted))
    assert float(distances[0]) == pytest.approx(formant_distance(wanted, own))
    shapes = np.random.default_rng(1).normal(0, 2, (7, 72)).astype(np.float32)
    moved = tables.moved(tables.smoothed(torch.from_numpy(shapes)[None]), torch.tensor([1.5]))[0].numpy()
    np.testing.assert_allclose(moved, smooth_deviation(shapes[:, :44], 1.5), atol=1e-4)
