"""Small networks as ONNX graphs, for frames as they come.

A network of half a million to a few million weights, asked for one or two frames every 10 ms, spends most of its time
on calls between Python and torch, and on products that torch's library does badly for so few rows. ONNX Runtime walks
a whole graph in one call and packs the weights for few rows beforehand: measured, four times as fast. What is left is
the time to fetch the weights; where they are many, a byte for each is fetched in a quarter of it.

Graphs are written here directly, in the wire format of protocol buffers, because ONNX's own package is not among what
we need otherwise. Field numbers are those of onnx.proto3, IR version 8, operator set 18.
"""

import struct
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from torch import nn

from engine.signal.clip import FloatArray

FEW_FRAMES = 100  # up to which a graph in one thread is no slower than torch's convolutions in one; measured
TO_THE_END = np.iinfo(np.int64).max

_IR_VERSION, _OPERATOR_SET = 8, 18
OWN_OPERATORS = "com.microsoft"  # of ONNX Runtime, beside the standard's
_KINDS = {np.dtype(np.float32): 1, np.dtype(np.uint8): 2, np.dtype(np.int64): 7}
_LEVELS, _ZERO = 127, 128  # a signed number in a byte: levels to each side of the one that stands for 0
_FINE = 1 / 254  # a level's rounding error is at most half of it
_TINY = 1e-20


class Graph:
    """A graph under construction; values are known by name."""

    def __init__(self) -> None:
        self._nodes: list[bytes] = []
        self._constants: list[bytes] = []
        self._inputs: list[bytes] = []
        self._outputs: list[bytes] = []
        self._count = 0

    def input(self, name: str, width: int) -> str:
        """Declare an input [any, width] float32."""
        self._inputs.append(_value(name, width))
        return name

    def constant(self, array: npt.ArrayLike) -> str:
        """A constant: signed integers become int64, bytes stay bytes, all else becomes float32."""
        values = np.asarray(array)
        kind = np.dtype({"i": np.int64, "u": np.uint8}.get(values.dtype.kind, np.float32))
        name = self._name()
        shape = b"".join(_integer(1, size) for size in values.shape)
        data = _bytes(9, np.ascontiguousarray(values, kind).tobytes())
        self._constants.append(shape + _integer(2, _KINDS[kind]) + _text(8, name) + data)
        return name

    def add(self, operator: str, *inputs: str, domain: str = "", **attributes: float) -> str:
        """Apply an operator; the name of its only result."""
        name = self._name()
        node = b"".join(_text(1, value) for value in inputs) + _text(2, name) + _text(4, operator) + _text(7, domain)
        self._nodes.append(node + b"".join(_attribute(key, value) for key, value in attributes.items()))
        return name

    def rows(self, value: str, start: int, end: int = TO_THE_END) -> str:
        """Rows of a table from `start` to before `end`, counted as Python does."""
        return self.add("Slice", value, *(self.constant([number]) for number in (start, end, 0)))

    def columns(self, value: str, start: int, end: int = TO_THE_END) -> str:
        """Columns of a table."""
        return self.add("Slice", value, *(self.constant([number]) for number in (start, end, 1)))

    def product(self, rows: str, weights: FloatArray) -> str:
        """Rows [T, N] times weights [N, M], weights rounded to 8 bits by column and rows to two bytes each.

        The second byte is the rounding error of the first, in finer levels: with one byte, a difference in the last
        digit of a float would now and then move a value by a whole level, and streams would differ from recordings.
        Each row is scaled by itself and sums are of integers, so that a row's result does not depend on the others.
        Bytes without sign, because processors before AVX-VNNI clip the sums of two products with signs.
        """
        levels, scales = _in_levels(weights)
        table = self.constant((levels + _ZERO).astype(np.uint8))
        zero, level = self.constant(np.uint8(_ZERO)), self.constant(np.float32(1 / _LEVELS))
        largest = self.add("ReduceMax", self.add("Abs", rows), self.constant([1]))
        largest = self.add("Max", largest, self.constant([_TINY]))
        scaled = self.add("Div", rows, largest)
        coarse = self.add("QuantizeLinear", scaled, level, zero)
        error = self.add("Sub", scaled, self.add("DequantizeLinear", coarse, level, zero))
        fine = self.add("QuantizeLinear", error, self.constant(np.float32(_FINE / _LEVELS)), zero)
        both = self.add("Concat", coarse, fine, axis=0)
        of_both = self.add(
            "MatMulIntegerToFloat", both, table, level, self.constant(scales), zero, zero, domain=OWN_OPERATORS
        )
        of_coarse, of_fine = self.halves(of_both)
        found = self.add("Add", of_coarse, self.add("Mul", of_fine, self.constant([_FINE])))
        return self.add("Mul", found, largest)

    def halves(self, value: str) -> tuple[str, str]:
        """The first and the second half of the rows of a table."""
        first, second = self._name(), self._name()
        node = _text(1, value) + _text(2, first) + _text(2, second) + _text(4, "Split")
        self._nodes.append(node + _attribute("num_outputs", 2))
        return first, second

    def output(self, value: str, width: int) -> None:
        """Let the graph give this value, [any, width]."""
        name = f"result{len(self._outputs)}"
        self._nodes.append(_text(1, value) + _text(2, name) + _text(4, "Identity"))
        self._outputs.append(_value(name, width))

    def compile(self) -> "CompiledGraph":
        """Make it run."""
        graph = b"".join(_bytes(1, node) for node in self._nodes) + _text(2, "frames")
        graph += b"".join(_bytes(5, constant) for constant in self._constants)
        graph += b"".join(_bytes(11, value) for value in self._inputs)
        graph += b"".join(_bytes(12, value) for value in self._outputs)
        operators = _bytes(8, _text(1, "") + _integer(2, _OPERATOR_SET))
        operators += _bytes(8, _text(1, OWN_OPERATORS) + _integer(2, 1))
        return CompiledGraph(_integer(1, _IR_VERSION) + _bytes(7, graph) + operators)

    def _name(self) -> str:
        self._count += 1
        return f"v{self._count}"


class CompiledGraph:
    """A graph that runs in the calling thread; any thread may, at any time.

    Args:
        model: Serialised ONNX.
    """

    def __init__(self, model: bytes) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def run(self, inputs: Mapping[str, npt.NDArray[Any]]) -> list[FloatArray]:
        """The outputs in the order in which they were declared."""
        found: list[FloatArray] = self._session.run(None, inputs)
        return found


class Graphed(nn.Module):
    """A network that for a few frames on the CPU runs as a graph."""

    def __init__(self) -> None:
        super().__init__()
        self._graph: CompiledGraph | None = None

    def compiled(self) -> CompiledGraph:
        """The graph of the present weights; see the network for its inputs and outputs."""
        raise NotImplementedError

    @property
    def graph(self) -> CompiledGraph:
        """`compiled`, kept until the weights change."""
        if self._graph is None:
            self._graph = self.compiled()
        return self._graph

    def train(self, mode: bool = True) -> Self:
        """See `torch.nn.Module.train`."""
        if mode:
            self._graph = None  # its weights are about to change
        return super().train(mode)


def in_bytes(weights: FloatArray) -> FloatArray:
    """Weights [N, M] as `Graph.product` takes them: 255 levels in each column. Rounding them again changes nothing."""
    levels, scales = _in_levels(weights)
    return levels * scales


def _in_levels(weights: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Whole numbers [N, M] from -127 to 127, and what to multiply each column by."""
    scales = (np.maximum(np.abs(weights).max(axis=0), _TINY) / _LEVELS).astype(np.float32)
    return np.rint(weights / scales), scales


def _value(name: str, width: int) -> bytes:
    shape = _bytes(1, _text(2, "any " + name)) + _bytes(1, _integer(1, width))
    return _text(1, name) + _bytes(2, _bytes(1, _integer(1, _KINDS[np.dtype(np.float32)]) + _bytes(2, shape)))


def _attribute(name: str, value: float) -> bytes:
    if isinstance(value, int):
        return _bytes(5, _text(1, name) + _integer(3, value) + _integer(20, 2))
    return _bytes(5, _text(1, name) + _tag(2, 5) + struct.pack("<f", value) + _integer(20, 1))


def _varint(number: int) -> bytes:
    out = bytearray()
    number &= (1 << 64) - 1
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _tag(field: int, kind: int) -> bytes:
    return _varint(field << 3 | kind)


def _integer(field: int, number: int) -> bytes:
    return _tag(field, 0) + _varint(number)


def _bytes(field: int, data: bytes) -> bytes:
    return _tag(field, 2) + _varint(len(data)) + data


def _text(field: int, text: str) -> bytes:
    return _bytes(field, text.encode())
