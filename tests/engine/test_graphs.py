import numpy as np
import pytest
import torch

from engine.conversion.content import ContentEncoder, ContentFrameStream, ContentShape, round_weights
from engine.conversion.decoder import Conditioning, Decoder, DecoderInputs, DecoderShape, DecoderStream
from engine.conversion.graphs import Graph, in_bytes
from engine.conversion.source import SourceFrames
from engine.conversion.synthesis import SourceFilter, _few_filters


def test_a_graph_computes_what_was_written():
    graph = Graph()
    table = graph.input("table", 3)
    doubled = graph.add("Mul", table, graph.constant([2.0]))
    graph.output(graph.rows(doubled, -1), 3)
    graph.output(graph.columns(doubled, 0, -1), 2)
    graph.output(graph.add("LayerNormalization", table, graph.constant(np.ones(3)), epsilon=0.5), 3)
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    last, left, normal = graph.compile().run({"table": values})
    np.testing.assert_array_equal(last, 2 * values[-1:])
    np.testing.assert_array_equal(left, 2 * values[:, :-1])
    np.testing.assert_allclose(normal[0], [-1 / np.sqrt(2 / 3 + 0.5), 0, 1 / np.sqrt(2 / 3 + 0.5)], rtol=1e-6)


def test_a_product_of_bytes_is_that_of_its_rounded_weights_and_every_row_is_by_itself():
    rng = np.random.default_rng(3)
    rows, weights = rng.standard_normal((5, 300), np.float32), rng.standard_normal((300, 40), np.float32)
    rows[1] *= 1e4
    rows[2] = 0.0
    weights[:, 7] = 0.0
    graph = Graph()
    graph.output(graph.product(graph.input("rows", 300), weights), 40)
    compiled = graph.compile()
    (found,) = compiled.run({"rows": rows})
    rounded = in_bytes(weights)
    np.testing.assert_allclose(rounded, weights, atol=np.abs(weights).max() / 253)
    np.testing.assert_allclose(in_bytes(rounded), rounded, rtol=1e-6)
    wanted = rows @ rounded
    assert np.all(np.abs(found - wanted).max(axis=1) <= 1e-4 * np.abs(wanted).max(axis=1))
    for row, alone in zip(found, rows, strict=True):
        np.testing.assert_array_equal(compiled.run({"rows": alone[None]})[0][0], row)


@pytest.mark.parametrize("lengths", [[1, 2, 3, 150, 4], [150, 1, 1], [2] * 20])
def test_few_frames_and_many_lead_to_the_same_decoding(lengths):
    """Through the graph, through torch, and from one to the other."""
    torch.manual_seed(0)
    decoder = Decoder(DecoderShape(num_phones=5, width=16)).eval().requires_grad_(False)
    torch.nn.init.normal_(decoder.leave.weight)
    num_frames, rng = sum(lengths), np.random.default_rng(1)

    def some(*shape):
        return rng.standard_normal(shape, dtype=np.float32)

    f0_hz = np.where(rng.random(num_frames) < 0.3, np.nan, 30.0 + 300 * rng.random(num_frames)).astype(np.float32)
    posteriors = rng.dirichlet(np.ones(5), num_frames).astype(np.float32)
    frames = SourceFrames(
        posteriors, some(num_frames, 44), some(num_frames, 44), 8 * some(num_frames), 8 * some(num_frames)
    )
    voice = Conditioning(*(torch.from_numpy(some(1, *size)) for size in ((256,), (2, 5, 72), (24,), (2, 72))))
    fields = (frames.posteriors, frames.deviation, np.nan_to_num(f0_hz), frames.loudness, frames.relative_loudness)
    shape, share, _ = decoder(DecoderInputs(*(torch.from_numpy(field)[None] for field in fields)), voice)
    stream, start, found = DecoderStream(decoder), 0, []
    for length in lengths:
        part = slice(start, start + length)
        cut = SourceFrames(*(getattr(frames, name)[part] for name in frames.__dataclass_fields__))
        found.append(stream.push(cut, f0_hz[part], voice))
        start += length
    np.testing.assert_allclose(np.concatenate([pair[0] for pair in found]), shape[0].numpy(), atol=1e-4)
    np.testing.assert_allclose(np.concatenate([pair[1] for pair in found]), share[0].numpy(), atol=1e-4)


def test_weights_that_change_are_not_forgotten():
    encoder = ContentEncoder(ContentShape(channels=8, dilations=(1,))).eval().requires_grad_(False)
    log_mel = torch.randn(1, 80, 12)
    ContentFrameStream(encoder).push(log_mel)  # makes the graph
    encoder.train()
    encoder.last.bias[3] += 5.0
    encoder.eval()
    round_weights(encoder)
    stream = ContentFrameStream(encoder)
    found = torch.cat([stream.push(log_mel), stream.flush()], dim=-1)
    assert torch.allclose(found, encoder(log_mel), atol=1e-4)


def test_filters_of_few_frames_are_those_of_many():
    levels = np.random.default_rng(2).uniform(-22, -6, (2, 3, 72)).astype(np.float32)
    levels[1, 2] = -60.0  # silence
    source_filter = SourceFilter()
    wanted = source_filter.filters(torch.from_numpy(levels)).numpy()
    for found in (_few_filters(levels), source_filter.tabled_filters(torch.from_numpy(levels)).numpy()):
        np.testing.assert_allclose(found, wanted, atol=2e-5 * np.abs(wanted).max())
    assert not np.any(wanted[1, 2])
