"""Voices made of numbers alone, for tests of keeping them."""

import functools
import tempfile
from pathlib import Path

import numpy as np

import engine.conversion.voice
from engine.conversion.voice import Voice
from engine.signal import AudioClip, write_audio
from engine.store import NewRecording

MODEL_ID = "the models of the tests"


def freeze_models(set_attribute=setattr):
    """Let these voices be up to date, whatever models are installed."""
    set_attribute(engine.conversion.voice, "voice_model_id", lambda: MODEL_ID)


def some_voice(name="Ada", seed=0, model_id=MODEL_ID):
    """A voice whose every number follows from the seed; its median pitch is 100 Hz + seed."""
    rng = np.random.default_rng(seed)
    embedding = rng.standard_normal(256).astype(np.float32)
    return Voice(
        name=name,
        speaker_embedding=embedding / np.linalg.norm(embedding),
        tensors={"prints": rng.standard_normal((2, 40, 72)).astype(np.float32)},
        median_f0_hz=100.0 + seed,
        f0_range_hz=(90.0 + seed, 300.0 + seed),
        model_id=model_id,
    )


@functools.lru_cache(maxsize=64)
def some_flac(seed, seconds):
    samples = 0.1 * np.random.default_rng(seed).standard_normal((1, int(8000 * seconds)))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "noise.flac"
        write_audio(path, AudioClip(samples.astype(np.float32), 8000))
        return path.read_bytes()


def some_recording(seed=0, name="take 1"):
    return NewRecording(
        source_name=name,
        original=some_flac(seed, 0.25),
        original_suffix=".flac",
        processed=some_flac(seed, 0.125),
        seconds=12.5,
        voiced_seconds=9.5,
        assessment={"snr_db": 40.5, "verdict": "good"},
    )


def add(store, name="Ada", seed=0, **more):
    options = {"consent": f"{name} agreed.", "seconds": 45.0, "recordings": [some_recording(seed)], **more}
    return store.add_voice(some_voice(name, seed), **options)
