"""Improving a voice on generated speech, with the shipped models."""

import numpy as np
import pytest

from engine.conversion import Voice, embed_voice
from engine.conversion.adaptation import improve_voice
from engine.errors import Cancelled, EnrollmentError, ModelError
from engine.jobs import JobContext
from engine.signal import AudioClip
from tests.synthetic_speech import speak

PHRASES = ("masetinalokiremoSutefa.zilanemu", "sorikalenaSimo.rafunetilomas.e", "nuSifakemolatizoremi.kanSeluto.a")


class StoppingContext(JobContext):
    """Cancels itself at a fraction of the work."""

    def __init__(self, at):
        super().__init__()
        self.at = at

    def checkpoint(self, stage, fraction):
        if fraction >= self.at:
            self.cancel()
        super().checkpoint(stage, fraction)


@pytest.fixture(scope="module")
def recording():
    clips = [speak(phrase * 2, f0_hz=115.0, seed=number)[0] for number, phrase in enumerate(PHRASES)]
    return AudioClip(np.concatenate([clip.samples for clip in clips], axis=1), clips[0].sample_rate)


@pytest.fixture(scope="module")
def voice(recording):
    return embed_voice([recording], name="Klatt")


def copied(voice):
    return {name: array.copy() for name, array in voice.tensors.items()}


def test_a_better_voice_is_kept_and_the_old_one_is_left_as_it_was(voice, recording):
    before = copied(voice)
    outcome = improve_voice(voice, [recording], ctx=JobContext(), steps=30)
    assert outcome.kept == (outcome.similarity_after > outcome.similarity_before)
    assert outcome.kept
    assert outcome.voice.name == "Klatt"
    assert not np.array_equal(outcome.voice.tensors["prints"], before["prints"])
    assert all(np.array_equal(voice.tensors[name], before[name]) for name in before)


def test_a_voice_that_got_no_better_is_refused(voice, recording):
    outcome = improve_voice(voice, [recording], ctx=JobContext(), steps=0)
    assert not outcome.kept
    assert outcome.voice is voice


@pytest.mark.parametrize("fraction", [0.0, 0.3, 0.6])
def test_it_stops_when_asked(voice, recording, fraction):
    before = copied(voice)
    with pytest.raises(Cancelled):
        improve_voice(voice, [recording], ctx=StoppingContext(fraction), steps=30)
    assert all(np.array_equal(voice.tensors[name], before[name]) for name in before)


def test_too_little_to_learn_from_is_told(voice, recording):
    short = AudioClip(recording.samples[:, : 10 * recording.sample_rate], recording.sample_rate)
    with pytest.raises(EnrollmentError, match="too little"):
        improve_voice(voice, [short], ctx=JobContext())


def test_a_voice_of_other_models_is_told(voice, recording):
    other = Voice(voice.name, voice.speaker_embedding, voice.tensors, 115.0, (90.0, 140.0), "another")
    with pytest.raises(ModelError, match="another version"):
        improve_voice(other, [recording], ctx=JobContext())
