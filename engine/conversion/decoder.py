"""The decoder: from phones, prints, pitch and loudness to the envelope and the share of harmonics in each band.

It starts where the phone print of the wanted voice and the source's own deviation from *its* print leave off, and
predicts what is left: a small causal ConvNet (ConvNeXt blocks, Liu et al., CVPR 2022), the same for whole recordings
and for frames as they come.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from engine.conversion.bands import BAND_CENTRES_HZ, NUM_BANDS, NUM_SPEECH_BANDS
from engine.conversion.graphs import FEW_FRAMES, OWN_OPERATORS, TO_THE_END, CompiledGraph, Graph, Graphed
from engine.conversion.source import SourceFrames
from engine.conversion.synthesis import SynthesisControls
from engine.signal.clip import FloatArray

EMBEDDING_SIZE = 256
CONDITION_SIZE = 24
_RESIDUAL_LIMIT = 4.0  # natural log of power: 17 dB
NO_LEVEL = -60.0
_LOUDNESS_EXPONENT = 0.3


@dataclass(frozen=True)
class DecoderShape:
    """Sizes of the network.

    Attributes:
        num_phones: P of the content encoder.
        width: Channels between blocks.
        dilations: One block each.
        kernel: Frames that a block sees, before dilation.
    """

    num_phones: int
    width: int = 160
    dilations: tuple[int, ...] = (1, 2, 4, 1, 2, 4)
    kernel: int = 3


@dataclass(frozen=True)
class Conditioning:
    """One voice (or a batch of voices) as tensors; all of them may be fine-tuned.

    Attributes:
        embedding: [B, 256] speaker embedding of unit length.
        prints: [B, 2, P, 72] phone prints, unvoiced and voiced.
        condition: [B, 24] added to the projected embedding.
        bias: [B, 2, 72] added to the envelope and to the logit of the harmonic share.
    """

    embedding: torch.Tensor
    prints: torch.Tensor
    condition: torch.Tensor
    bias: torch.Tensor


@dataclass(frozen=True)
class DecoderInputs:
    """T frames of a batch.

    Attributes:
        posteriors: [B, T, P].
        deviation: [B, T, NUM_SPEECH_BANDS]: how the source's envelope deviates from the print of the same phone in
            the source's own voice, already weighted.
        f0_hz: [B, T] wanted F0, 0 where unvoiced.
        loudness: [B, T] natural log of power, as engine.conversion.bands.loudness has it.
        relative_loudness: [B, T] the same, above the running mean of the active frames.
    """

    posteriors: torch.Tensor
    deviation: torch.Tensor
    f0_hz: torch.Tensor
    loudness: torch.Tensor
    relative_loudness: torch.Tensor


State = list[torch.Tensor]


class _Block(nn.Module):
    """Depthwise causal convolution, then two layers on each frame; adds to its input."""

    def __init__(self, width: int, kernel: int, dilation: int) -> None:
        super().__init__()
        self.history = (kernel - 1) * dilation
        self.depthwise = nn.Conv1d(width, width, kernel, dilation=dilation, groups=width)
        self.norm = nn.LayerNorm(width)
        self.widen = nn.Linear(width, 2 * width)
        self.narrow = nn.Linear(2 * width, width)

    def forward(self, x: torch.Tensor, state: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        joined = torch.cat([state, x], dim=1)
        mixed = self._mix(joined, x.shape[1])
        change = self.narrow(nn.functional.gelu(self.widen(self.norm(mixed))))
        return x + change, joined[:, joined.shape[1] - self.history :]

    def _mix(self, joined: torch.Tensor, count: int) -> torch.Tensor:
        """The depthwise convolution, tap by tap: for a few frames much faster than conv1d."""
        layer = self.depthwise
        assert layer.bias is not None
        mixed = layer.bias.expand(1, 1, -1)
        for tap in range(layer.kernel_size[0]):
            first = tap * layer.dilation[0]
            mixed = mixed + joined[:, first : first + count] * layer.weight[:, 0, tap]
        return mixed


class Decoder(Graphed):
    """Predicts envelopes and harmonic shares.

    Args:
        shape: Sizes.
    """

    def __init__(self, shape: DecoderShape) -> None:
        super().__init__()
        self.shape = shape
        self.project = nn.Linear(EMBEDDING_SIZE, CONDITION_SIZE)
        num_inputs = shape.num_phones + NUM_BANDS + NUM_SPEECH_BANDS + CONDITION_SIZE + 4
        self.enter = nn.Linear(num_inputs, shape.width)
        self.blocks = nn.ModuleList(_Block(shape.width, shape.kernel, dilation) for dilation in shape.dilations)
        self.norm = nn.LayerNorm(shape.width)
        self.leave = nn.Linear(shape.width, 2 * NUM_BANDS)
        nn.init.normal_(self.leave.weight, std=0.01)
        with torch.no_grad():  # until trained: harmonics below, noise from some 5 kHz up
            self.leave.bias[:NUM_BANDS] = 0.0
            self.leave.bias[NUM_BANDS:] = torch.from_numpy(3.0 - BAND_CENTRES_HZ / 2000.0).clamp(min=-3.0)

    def compiled(self) -> CompiledGraph:
        """`forward` for a few frames on the CPU."""
        return _graph_of(self)

    def initial_state(self, batch: int = 1) -> State:
        """The state before the first frame."""
        like = self.enter.weight
        histories = [(self.shape.kernel - 1) * dilation for dilation in self.shape.dilations]
        return [like.new_zeros(batch, history, self.shape.width) for history in histories]

    def forward(
        self, inputs: DecoderInputs, voice: Conditioning, state: State | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, State]:
        """Predict frames.

        Args:
            inputs: T frames.
            voice: Who should speak, of the same batch.
            state: What the last call returned; None before the first frame.

        Returns:
            The envelope's shape and the logit of the harmonic share, each [B, T, 72], and the state after the frames.
        """
        state = self.initial_state(len(inputs.f0_hz)) if state is None else state
        voiced = (inputs.f0_hz > 0).to(inputs.posteriors.dtype).unsqueeze(-1)
        unvoiced_print = inputs.posteriors @ voice.prints[:, 0]
        voiced_print = inputs.posteriors @ voice.prints[:, 1]
        base = unvoiced_print + voiced * (voiced_print - unvoiced_print) + extended(inputs.deviation)
        pitch = voiced * torch.log2(inputs.f0_hz.clamp(min=40.0) / 200.0).unsqueeze(-1)
        condition = (self.project(voice.embedding) + voice.condition).unsqueeze(1).expand(-1, base.shape[1], -1)
        relative = (inputs.relative_loudness.clamp(-12.0, 6.0) / 4.0).unsqueeze(-1)
        quiet = torch.clamp((inputs.loudness + 14.0) / 4.0, -1.0, 1.0).unsqueeze(-1)
        x = self.enter(
            torch.cat(
                [inputs.posteriors, base / 3.0, inputs.deviation / 2.0, condition, voiced, pitch, relative, quiet], -1
            )
        )
        states = []
        for block, last in zip(self.blocks, state, strict=True):
            x, last = block(x, last)
            states.append(last)
        residual, share = self.leave(self.norm(x)).chunk(2, dim=-1)
        residual = _RESIDUAL_LIMIT * torch.tanh(residual / _RESIDUAL_LIMIT)
        shape = base + residual + voice.bias[:, None, 0]
        return shape, share + voice.bias[:, None, 1], states


class DecoderStream:
    """The decoder over frames as they come.

    Args:
        decoder: In evaluation mode.
    """

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder
        self._torch_device = decoder.enter.weight.device
        states = [state[0].cpu().numpy() for state in decoder.initial_state()]
        self._state = {f"past{number}": state for number, state in enumerate(states)}
        self._voice: Conditioning | None = None

    def push(self, frames: SourceFrames, f0_hz: FloatArray, voice: Conditioning) -> tuple[FloatArray, FloatArray]:
        """Predict the next frames.

        Args:
            frames: T of them, their deviation already weighted.
            f0_hz: [T] wanted F0, NaN where unvoiced.
            voice: A batch of one.

        Returns:
            The envelope's shape and the logit of the harmonic share, each [T, 72].
        """
        if len(f0_hz) <= FEW_FRAMES and self._torch_device.type == "cpu":
            return self._push_few(frames, f0_hz, voice)

        def batch(array: FloatArray) -> torch.Tensor:
            return torch.from_numpy(np.ascontiguousarray(array, np.float32))[None].to(self._torch_device)

        inputs = DecoderInputs(
            batch(frames.posteriors),
            batch(frames.deviation),
            batch(np.nan_to_num(f0_hz)),
            batch(frames.loudness),
            batch(frames.relative_loudness),
        )
        shape, share, after = self._decoder(inputs, voice, [batch(state) for state in self._state.values()])
        self._state = dict(zip(self._state, [state[0].cpu().numpy() for state in after], strict=True))
        return shape[0].cpu().numpy(), share[0].cpu().numpy()

    def _push_few(self, frames: SourceFrames, f0_hz: FloatArray, voice: Conditioning) -> tuple[FloatArray, FloatArray]:
        if voice is not self._voice:
            condition = self._decoder.project(voice.embedding) + voice.condition
            self._voice = voice
            self._voice_inputs = {
                "prints": torch.cat([voice.prints[0, 0], voice.prints[0, 1]], 1).numpy(),
                "condition": condition.numpy(),
                "bias": voice.bias[0].numpy(),
            }
        inputs = {
            "posteriors": frames.posteriors,
            "deviation": frames.deviation,
            "features": _features(frames, f0_hz),
            **self._voice_inputs,
            **self._state,
        }
        shape, share, *after = self._decoder.graph.run(inputs)
        self._state = dict(zip(self._state, after, strict=True))
        return shape, share


def _features(frames: SourceFrames, f0_hz: FloatArray) -> FloatArray:
    """[T, 4]: voicing, pitch, and loudness twice, as `Decoder.forward` has them."""
    features = np.empty((len(f0_hz), 4), np.float32)
    voiced = f0_hz > 0
    features[:, 0] = voiced
    features[:, 1] = np.log2(np.where(voiced, np.maximum(f0_hz, 40.0), 200.0) / 200.0)
    features[:, 2] = np.clip(frames.relative_loudness, -12.0, 6.0) / 4.0
    features[:, 3] = np.clip((frames.loudness + 14.0) / 4.0, -1.0, 1.0)
    return features


def _graph_of(decoder: Decoder) -> CompiledGraph:
    """See `DecoderStream._push_few` for its inputs; gives shape and logit of the share, [T, 72], and the states."""
    graph, num_phones, width = Graph(), decoder.shape.num_phones, decoder.shape.width

    def constant(tensor: torch.Tensor) -> str:
        return graph.constant(tensor.detach().numpy())

    def linear(layer: nn.Linear, value: str) -> str:
        return graph.add("Gemm", value, constant(layer.weight.T), constant(layer.bias))

    def normalised(norm: nn.LayerNorm, value: str) -> str:
        return graph.add("LayerNormalization", value, constant(norm.weight), constant(norm.bias), epsilon=norm.eps)

    def scaled(value: str, factor: float) -> str:
        return graph.add("Mul", value, graph.constant([factor]))

    posteriors, deviation = graph.input("posteriors", num_phones), graph.input("deviation", NUM_SPEECH_BANDS)
    features, prints = graph.input("features", 4), graph.input("prints", 2 * NUM_BANDS)
    condition, bias = graph.input("condition", CONDITION_SIZE), graph.input("bias", NUM_BANDS)
    found = graph.add("MatMul", posteriors, prints)
    voiced = graph.add("Greater", graph.columns(features, 0, 1), graph.constant([0.0]))
    printed = graph.add("Where", voiced, graph.columns(found, NUM_BANDS), graph.columns(found, 0, NUM_BANDS))
    base = graph.add("Gemm", deviation, constant(extended(torch.eye(NUM_SPEECH_BANDS))), printed)
    sizes = [num_phones, NUM_BANDS, NUM_SPEECH_BANDS, CONDITION_SIZE, 4]
    of_phones, of_base, of_deviation, of_condition, of_features = decoder.enter.weight.split(sizes, dim=1)
    entering = torch.cat([of_phones, of_base / 3.0, of_deviation / 2.0, of_features], dim=1)
    voice = graph.add("Gemm", condition, constant(of_condition.T), constant(decoder.enter.bias))
    inputs = graph.add("Concat", posteriors, base, deviation, features, axis=1)
    x = graph.add("Gemm", inputs, constant(entering.T), voice)
    pasts = []
    for number, block in enumerate(decoder.blocks):
        assert isinstance(block, _Block)
        depthwise = block.depthwise
        assert depthwise.bias is not None
        joined = graph.add("Concat", graph.input(f"past{number}", width), x, axis=0)
        mixed = constant(depthwise.bias)
        for tap in range(depthwise.kernel_size[0]):
            first = tap * depthwise.dilation[0]
            seen = graph.rows(joined, first, first - block.history or TO_THE_END)
            mixed = graph.add("Add", mixed, graph.add("Mul", seen, constant(depthwise.weight[:, 0, tap])))
        wide = linear(block.widen, normalised(block.norm, mixed))
        x = graph.add("Add", x, linear(block.narrow, graph.add("Gelu", wide, domain=OWN_OPERATORS)))
        pasts.append(graph.rows(joined, -block.history))
    left = linear(decoder.leave, normalised(decoder.norm, x))
    residual = graph.add("Tanh", scaled(graph.columns(left, 0, NUM_BANDS), 1 / _RESIDUAL_LIMIT))
    shape = graph.add("Add", base, scaled(residual, _RESIDUAL_LIMIT))
    graph.output(graph.add("Add", shape, graph.rows(bias, 0, 1)), NUM_BANDS)
    graph.output(graph.add("Add", graph.columns(left, NUM_BANDS), graph.rows(bias, 1)), NUM_BANDS)
    for past in pasts:
        graph.output(past, width)
    return graph.compile()


def extended(deviation: torch.Tensor) -> torch.Tensor:
    """Speech bands to all bands, [..., 44] to [..., 72]: above, the mean of the highest four goes on, halved."""
    top = deviation[..., -4:].mean(dim=-1, keepdim=True) / 2
    return torch.cat([deviation, top.expand(*deviation.shape[:-1], NUM_BANDS - NUM_SPEECH_BANDS)], dim=-1)


def tensor_loudness(levels: torch.Tensor) -> torch.Tensor:
    """`engine.conversion.bands.loudness` for tensors."""
    speech = levels[..., :NUM_SPEECH_BANDS] * _LOUDNESS_EXPONENT
    return (torch.logsumexp(speech, dim=-1) - float(np.log(NUM_SPEECH_BANDS))) / _LOUDNESS_EXPONENT


def to_controls(
    shape: torch.Tensor, share: torch.Tensor, inputs: DecoderInputs, loudness: torch.Tensor
) -> SynthesisControls:
    """Set each frame to its loudness and split it into harmonics and noise.

    Args:
        shape: [B, T, 72] envelope of any level.
        share: [B, T, 72] logit of the harmonic share.
        inputs: Where `f0_hz` is 0 all is noise.
        loudness: [B, T] what the frames' loudness becomes.
    """
    levels = shape + (loudness - tensor_loudness(shape)).unsqueeze(-1)
    voiced = (inputs.f0_hz > 0).unsqueeze(-1)
    nothing = torch.full_like(levels, NO_LEVEL)
    harmonic = torch.where(voiced, levels + nn.functional.logsigmoid(share), nothing)
    noise = torch.where(voiced, levels + nn.functional.logsigmoid(-share), levels)
    return SynthesisControls(harmonic, noise)
