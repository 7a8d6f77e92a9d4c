import numpy as np
import pytest
import torch

from engine.conversion.features import (
    HOP_LENGTH,
    NUM_MELS,
    SAMPLE_RATE,
    SILENCE_LOG_MEL,
    LogMel,
    LogMelStream,
)
from tests.fakes import noise, tone


def test_frames_are_centred_on_multiples_of_the_hop():
    samples = torch.zeros(1, 20 * HOP_LENGTH)
    samples[0, 7 * HOP_LENGTH] = 1.0
    frames = LogMel()(samples)
    assert frames.shape == (1, NUM_MELS, 21)
    loudness = frames[0].mean(dim=0)
    assert int(loudness.argmax()) == 7
    assert torch.allclose(frames[0, :, 12], torch.tensor(SILENCE_LOG_MEL))


def test_a_full_scale_tone_lies_near_zero_in_the_band_of_its_frequency():
    samples = torch.from_numpy(tone(1000.0, 0.5, SAMPLE_RATE, 1.0)).reshape(1, -1)
    spectrum = LogMel()(samples)[0, :, 25]
    assert abs(float(spectrum.max())) < 1.0
    mels = np.linspace(2595 * np.log10(1 + 30 / 700), 2595 * np.log10(1 + 7800 / 700), NUM_MELS + 2)[1:-1]
    assert abs(700 * (10 ** (mels[int(spectrum.argmax())] / 2595) - 1) - 1000.0) < 40.0


@pytest.mark.parametrize("num_samples", [1, 159, 160, 4801])
@pytest.mark.parametrize("block", [1, 7, 128, 512])
def test_streaming_equals_offline(num_samples, block):
    samples = torch.from_numpy(noise(1, 0.4, SAMPLE_RATE)).reshape(1, -1)[:, :num_samples]
    front_end = LogMel()
    stream = LogMelStream(front_end)
    streamed = [stream.push(part) for part in samples.split(block, dim=-1)]
    assert torch.allclose(torch.cat([*streamed, stream.flush()], dim=-1), front_end(samples), atol=1e-4)


def test_a_frame_is_known_once_its_window_has_come():
    stream = LogMelStream(LogMel())
    made = [stream.push(torch.zeros(1, 1)).shape[-1] for _ in range(3 * HOP_LENGTH)]
    first = made.index(1)
    assert first == stream.latency_samples - 1
    assert sum(made) == 1 + (3 * HOP_LENGTH - stream.latency_samples) // HOP_LENGTH
