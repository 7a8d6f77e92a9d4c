"""What is said: a causal network from log-mel frames to phone log-posteriors, offline and streaming.

A stack of dilated residual convolutions (a TDNN: Waibel et al. 1989; Peddinti et al., Interspeech 2015) whose only
view of the future lies in its first layer. All layers step in units of `STRIDE` frames: training computes every
STRIDE-th frame only, inference all of them with dilated filters and the same weights.
"""

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from engine.conversion.features import HOP_LENGTH, NUM_MELS, SILENCE_LOG_MEL, LogMel, LogMelStream
from engine.conversion.graphs import FEW_FRAMES, TO_THE_END, CompiledGraph, Graph, Graphed, in_bytes
from engine.errors import ModelError
from engine.models import fill_module, load_tensors
from engine.phones import PHONES
from engine.signal.clip import FloatArray

STRIDE = 3
MODEL_NAME = "content"
_Values = TypeVar("_Values", Tensor, FloatArray)


@dataclass(frozen=True)
class ContentShape:
    """Geometry of the network.

    Attributes:
        channels: Width of the hidden layers.
        dilations: Step of each residual block, in units of STRIDE frames.
        past_frames: Frames before the current one that the first layer sees.
        lookahead_frames: Frames after it.
    """

    channels: int = 320
    dilations: tuple[int, ...] = (1, 1, 2, 2, 4, 8)
    past_frames: int = 5
    lookahead_frames: int = 3

    def to_metadata(self) -> dict[str, str]:
        """As a model file's header keeps it."""
        return {
            "channels": str(self.channels),
            "dilations": ",".join(str(d) for d in self.dilations),
            "past_frames": str(self.past_frames),
            "lookahead_frames": str(self.lookahead_frames),
            "phones": " ".join(PHONES),
        }

    @classmethod
    def from_metadata(cls, metadata: dict[str, str]) -> "ContentShape":
        """Read what `to_metadata` wrote.

        Raises:
            ModelError: Something is missing, or the file was made for another phone set.
        """
        try:
            if metadata["phones"].split() != list(PHONES):
                raise ModelError(
                    "The content model was made for another phone set.", hint="Install this version's models."
                )
            return cls(
                int(metadata["channels"]),
                tuple(int(d) for d in metadata["dilations"].split(",")),
                int(metadata["past_frames"]),
                int(metadata["lookahead_frames"]),
            )
        except (KeyError, ValueError) as error:
            raise ModelError("The content model's description is damaged.", hint="Install the models again.") from error


class _Block(nn.Module):
    """Residual causal convolution of three taps, normalised and rectified before (He et al., ECCV 2016)."""

    def __init__(self, channels: int, dilation: int, dropout: float) -> None:
        super().__init__()
        self.dilation, self.dropout = dilation, dropout
        self.norm = nn.BatchNorm1d(channels)
        self.conv = nn.Conv1d(channels, channels, 3)

    def forward(self, hidden: Tensor, past: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """Continue after `past` [B, D, 2 * step * dilation], what the convolution saw last; gives that anew, too."""
        activated = nn.functional.dropout(nn.functional.relu(self.norm(hidden)), self.dropout, self.training)
        seen = torch.cat([past, activated], dim=-1)
        out = nn.functional.conv1d(seen, self.conv.weight, self.conv.bias, dilation=step * self.dilation)
        return hidden + out, seen[..., -past.shape[-1] :]


class ContentEncoder(Graphed):
    """Log-mel [B, NUM_MELS, T] at 100 Hz to phone log-posteriors [B, len(PHONES), T] at 100 Hz.

    Output frame t depends on no input frame after t + lookahead_frames.

    Args:
        shape: Geometry.
        dropout: Share of hidden values that training leaves out.
    """

    def __init__(self, shape: ContentShape | None = None, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.shape = shape or ContentShape()
        self.lookahead_frames = self.shape.lookahead_frames
        taps = self.shape.past_frames + 1 + self.shape.lookahead_frames
        self.first = nn.Conv1d(NUM_MELS, self.shape.channels, taps)
        self.blocks = nn.ModuleList(_Block(self.shape.channels, dilation, dropout) for dilation in self.shape.dilations)
        self.last_norm = nn.BatchNorm1d(self.shape.channels)
        self.last = nn.Conv1d(self.shape.channels, len(PHONES), 1)

    def compiled(self) -> CompiledGraph:
        """`_run` at full rate for a few frames on the CPU; frames and what blocks saw last are rows there."""
        return _graph_of(self)

    def forward(self, log_mel: Tensor) -> Tensor:
        """Log-posteriors of every frame; digital silence is assumed before and after."""
        padded = nn.functional.pad(_scaled(log_mel), (self.shape.past_frames, self.lookahead_frames), value=_SILENCE)
        return self._run(padded, self._empty_past(log_mel, step=STRIDE), STRIDE)[0]

    def strided(self, log_mel: Tensor) -> Tensor:
        """Log-posteriors of the frames 0, STRIDE, 2 STRIDE ... [B, len(PHONES), ceil(T / STRIDE)], for training."""
        padded = nn.functional.pad(_scaled(log_mel), (self.shape.past_frames, self.lookahead_frames), value=_SILENCE)
        return self._run(padded, self._empty_past(log_mel, step=1), 1, stride=STRIDE)[0]

    def _run(self, padded: Tensor, past: list[Tensor], step: int, stride: int = 1) -> tuple[Tensor, list[Tensor]]:
        hidden = nn.functional.conv1d(padded, self.first.weight, self.first.bias, stride=stride)
        following = []
        for block, before in zip(self.blocks, past, strict=True):
            hidden, after = block(hidden, before, step)
            following.append(after)
        hidden = nn.functional.relu(self.last_norm(hidden))
        return self.last(hidden).log_softmax(dim=1), following

    def _empty_past(self, like: Tensor, step: int) -> list[Tensor]:
        size = (like.shape[0], self.shape.channels)
        return [like.new_zeros(*size, 2 * step * dilation) for dilation in self.shape.dilations]


class ContentFrameStream:
    """The encoder on a stream of log-mel frames; output lags by lookahead_frames until `flush`."""

    def __init__(self, encoder: ContentEncoder) -> None:
        self._encoder = encoder.eval()
        self._on_cpu = encoder.last.weight.device.type == "cpu"
        self.reset()

    def reset(self) -> None:
        """Forget everything heard; silence lies before what comes next."""
        shape = self._encoder.shape
        sizes = [(2 * STRIDE * dilation, shape.channels) for dilation in shape.dilations]
        self._past = {f"past{number}": np.zeros(size, np.float32) for number, size in enumerate(sizes)}
        self._frames = np.full((shape.past_frames, NUM_MELS), _SILENCE, np.float32)

    @torch.inference_mode()
    def push(self, log_mel: Tensor) -> Tensor:
        """Take frames [1, NUM_MELS, T] (T may be 0), give the log-posteriors known now, on the CPU."""
        return self._push(_scaled(log_mel[0].T.cpu().numpy()))

    @torch.inference_mode()
    def flush(self) -> Tensor:
        """The log-posteriors still owed, silence assumed to follow."""
        if len(self._frames) <= self._encoder.shape.past_frames:
            return torch.zeros(1, len(PHONES), 0)
        return self._push(np.full((self._encoder.lookahead_frames, NUM_MELS), _SILENCE, np.float32))

    def _push(self, scaled: FloatArray) -> Tensor:
        frames = np.concatenate([self._frames, scaled])
        count = len(frames) - self._encoder.first.kernel_size[0] + 1
        if count <= 0:
            self._frames = frames
            return torch.zeros(1, len(PHONES), 0)
        self._frames = frames[count:]
        if count <= FEW_FRAMES and self._on_cpu:
            posteriors, *past = self._encoder.graph.run({"frames": frames, **self._past})
            self._past = dict(zip(self._past, past, strict=True))
            return torch.from_numpy(posteriors).T[None]
        torch_device = self._encoder.last.weight.device
        present, *before = (torch.from_numpy(rows).to(torch_device).T[None] for rows in (frames, *self._past.values()))
        found, after = self._encoder._run(present, before, STRIDE)
        tables = [seen[0].T.contiguous().cpu().numpy() for seen in after]
        self._past = dict(zip(self._past, tables, strict=True))
        return found.cpu()


class ContentStream:
    """Samples at 16 kHz to phone log-posteriors, block by block; any block size.

    Attributes:
        latency_samples: Frame t comes out once sample t * HOP_LENGTH + latency_samples - 1 has gone in.
    """

    def __init__(self, encoder: ContentEncoder) -> None:
        self._front_end = LogMelStream(LogMel())
        self._frames = ContentFrameStream(encoder)
        self.latency_samples = self._front_end.latency_samples + encoder.lookahead_frames * HOP_LENGTH

    def reset(self) -> None:
        """Forget everything heard."""
        self._front_end.reset()
        self._frames.reset()

    def push(self, samples: Tensor) -> Tensor:
        """Take [1, N] float32 samples at 16 kHz on the CPU (N may be 0), give log-posteriors [1, len(PHONES), T]."""
        return self._frames.push(self._front_end.push(samples))

    def flush(self) -> Tensor:
        """The log-posteriors still owed: in all 1 + N // HOP_LENGTH frames for N samples pushed."""
        return torch.cat([self._frames.push(self._front_end.flush()), self._frames.flush()], dim=-1)


def load_content_encoder(torch_device: str = "cpu") -> ContentEncoder:
    """The shipped encoder, ready to run.

    Raises:
        ModelError: The model is absent or damaged, or of another version.
    """
    tensors, metadata = load_tensors(MODEL_NAME)
    encoder = ContentEncoder(ContentShape.from_metadata(metadata))
    fill_module(encoder, tensors, model_name=MODEL_NAME)
    round_weights(encoder)
    return encoder.to(torch_device).eval().requires_grad_(False)


@torch.no_grad()
def round_weights(encoder: ContentEncoder) -> None:
    """Round what the graph rounds, so that long stretches and other devices hear the same phones."""
    for block in encoder.blocks:
        assert isinstance(block, _Block)
        weight = block.conv.weight
        rounded = torch.from_numpy(in_bytes(_table(weight)))
        weight.copy_(rounded.unflatten(0, (weight.shape[2], weight.shape[1])).permute(2, 1, 0))


def _graph_of(encoder: ContentEncoder) -> CompiledGraph:
    """Inputs "frames" [T + taps - 1, NUM_MELS] and "past0" ...; gives log-posteriors [T, len(PHONES)] and the pasts."""
    graph, channels = Graph(), encoder.shape.channels
    frames = graph.input("frames", NUM_MELS)
    hidden = _convolution(graph, encoder.first, frames)
    bias, pasts = torch.zeros(channels), []
    for number, block in enumerate(encoder.blocks):
        assert isinstance(block, _Block)
        past = graph.input(f"past{number}", channels)
        seen = graph.add("Concat", past, _normalised(graph, block.norm, hidden, bias), axis=0)
        hidden = _convolution(graph, block.conv, seen, STRIDE * block.dilation, hidden)
        # Biases wait for the next normalisation, so that a product adds to what came before in one step.
        bias = bias + block.conv.bias.detach() if block.conv.bias is not None else bias
        pasts.append(graph.rows(seen, -2 * STRIDE * block.dilation))
    hidden = _normalised(graph, encoder.last_norm, hidden, bias)
    hidden = _convolution(graph, encoder.last, hidden)
    graph.output(graph.add("LogSoftmax", hidden, axis=1), len(PHONES))
    for past in pasts:
        graph.output(past, channels)
    return graph.compile()


def _convolution(graph: Graph, layer: nn.Conv1d, seen: str, dilation: int = 1, added: str | None = None) -> str:
    """Rows seen [T + (taps - 1) dilation, C] to [T, O], added to a value of the graph or to the layer's bias."""
    taps = layer.kernel_size[0]
    if taps > 1:
        last = (taps - 1) * dilation
        ends = [tap * dilation - last or TO_THE_END for tap in range(taps)]
        shifted = [graph.rows(seen, tap * dilation, end) for tap, end in enumerate(ends)]
        seen = graph.add("Concat", *shifted, axis=1)
    weight = _table(layer.weight)
    if added is not None:
        return graph.add("Add", graph.product(seen, weight), added)
    assert layer.bias is not None
    return graph.add("Gemm", seen, graph.constant(weight), graph.constant(layer.bias.detach().numpy()))


def _table(weight: Tensor) -> FloatArray:
    """A convolution's weights as what rows of all taps are multiplied with, [taps * C, O]."""
    table: FloatArray = weight.detach().permute(2, 1, 0).flatten(0, 1).numpy()
    return table


def _normalised(graph: Graph, norm: nn.BatchNorm1d, value: str, bias: Tensor) -> str:
    """A value and a bias, normalised by stored statistics and rectified."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight.detach() / (norm.running_var + norm.eps).sqrt()
    shift = norm.bias.detach() + (bias - norm.running_mean) * scale
    scaled = graph.add("Mul", value, graph.constant(scale.numpy()))
    return graph.add("Relu", graph.add("Add", scaled, graph.constant(shift.numpy())))


def _scaled(log_mel: _Values) -> _Values:
    """Log-mel power, about -20 to 0, to about -2 to 2."""
    return log_mel * 0.2 + 2.2


_SILENCE = SILENCE_LOG_MEL * 0.2 + 2.2
