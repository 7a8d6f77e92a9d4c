from importlib.resources import files
from pathlib import Path

import pytest
import torch

from engine.conversion.content import (
    MODEL_NAME,
    STRIDE,
    ContentEncoder,
    ContentFrameStream,
    ContentShape,
    ContentStream,
    load_content_encoder,
    round_weights,
)
from engine.conversion.features import HOP_LENGTH, NUM_MELS, SAMPLE_RATE, SILENCE_LOG_MEL, LogMel
from engine.errors import ModelError
from engine.models import fill_module, load_tensors
from engine.phones import PHONES, SILENCE
from engine.signal import read_audio, resample
from tests.fakes import noise


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    encoder = ContentEncoder(ContentShape(channels=16, dilations=(1, 2))).eval()
    round_weights(encoder)
    return encoder


@pytest.fixture
def log_mel():
    return torch.randn(1, NUM_MELS, 1100, generator=torch.Generator().manual_seed(1)) * 3 - 10


@pytest.mark.parametrize("block", [1, 7, 128, 480, 512])
def test_streaming_frames_equals_offline(encoder, log_mel, block):
    stream = ContentFrameStream(encoder)
    parts = [stream.push(part) for part in log_mel.split(block, dim=-1)]
    assert sum(part.shape[-1] for part in parts) == log_mel.shape[-1] - encoder.lookahead_frames
    streamed = torch.cat([*parts, stream.flush()], dim=-1)
    assert torch.allclose(streamed, encoder(log_mel), atol=1e-4)


@pytest.mark.parametrize("block", [1, 7, 128, 480, 512])
def test_streaming_samples_equals_offline(encoder, block):
    samples = torch.from_numpy(noise(3, 0.25, SAMPLE_RATE)).reshape(1, -1)
    stream = ContentStream(encoder)
    for _ in range(2):  # the second time after a reset
        streamed = [stream.push(part) for part in samples.split(block, dim=-1)]
        streamed.append(stream.flush())
        assert torch.allclose(torch.cat(streamed, dim=-1), encoder(LogMel()(samples)), atol=1e-4)
        stream.reset()


def test_latency_is_that_of_the_geometry(encoder):
    stream = ContentStream(encoder)
    before = sum(stream.push(torch.zeros(1, 1)).shape[-1] for _ in range(stream.latency_samples - 1))
    assert before == 0
    assert stream.push(torch.zeros(1, 1)).shape[-1] == 1
    assert stream.push(torch.zeros(1, HOP_LENGTH)).shape[-1] == 1
    assert stream.latency_samples / SAMPLE_RATE <= 0.040


def test_no_frame_depends_on_what_lies_beyond_the_lookahead(encoder, log_mel):
    changed = log_mel.clone()
    changed[..., 500:] += 1.0
    same = (encoder(log_mel) == encoder(changed)).all(dim=1)[0]
    assert bool(same[: 500 - encoder.lookahead_frames].all())
    assert not bool(same[500 - encoder.lookahead_frames])


def test_training_computes_the_same_frames_as_inference(encoder, log_mel):
    assert torch.allclose(encoder.strided(log_mel), encoder(log_mel)[..., ::STRIDE], atol=1e-5)


def test_posteriors_sum_to_one(encoder, log_mel):
    assert torch.allclose(encoder(log_mel).exp().sum(dim=1), torch.ones(1, log_mel.shape[-1]), atol=1e-5)


def test_the_description_survives_the_file_and_a_strange_one_is_refused():
    shape = ContentShape(64, (1, 3), 4, 2)
    assert ContentShape.from_metadata(shape.to_metadata()) == shape
    with pytest.raises(ModelError):
        ContentShape.from_metadata({**shape.to_metadata(), "phones": "A B"})
    with pytest.raises(ModelError):
        ContentShape.from_metadata({"phones": shape.to_metadata()["phones"]})


def test_the_shipped_encoder_hears_silence_as_silence():
    encoder = load_content_encoder()
    frames = torch.full((1, NUM_MELS, 100), SILENCE_LOG_MEL)
    hum = LogMel()(torch.from_numpy(noise(5, 1.0, SAMPLE_RATE, 0.002)).reshape(1, -1))
    for quiet in (frames, hum):
        with torch.inference_mode():
            found = encoder(quiet)[0, :, 20:].argmax(dim=0)
        assert (found == PHONES.index(SILENCE)).float().mean() > 0.9


def test_rounding_the_shipped_encoder_changes_hardly_a_phone():
    rounded = load_content_encoder()
    tensors, _ = load_tensors(MODEL_NAME)
    unrounded = ContentEncoder(rounded.shape).eval()
    fill_module(unrounded, tensors, model_name=MODEL_NAME)
    voice = resample(read_audio(Path(str(files("resources"))) / "demo" / "voice.opus").mono(), SAMPLE_RATE)
    with torch.inference_mode():
        log_mel = LogMel()(torch.from_numpy(voice.samples))
        found, wanted = rounded(log_mel), unrounded(log_mel)
        stream = ContentFrameStream(rounded)
        streamed = torch.cat([*(stream.push(part) for part in log_mel.split(3, dim=-1)), stream.flush()], dim=-1)
    assert (found.argmax(dim=1) == wanted.argmax(dim=1)).float().mean() > 0.985
    assert (found.exp() - wanted.exp()).abs().sum(dim=1).mean() < 0.02
    assert torch.allclose(streamed.exp(), found.exp(), atol=1e-3)
