"""Reading weights from files that nobody vouches for: the header is checked before anything is built from it."""

import hashlib
import json
import math
import struct
from pathlib import Path
from typing import TYPE_CHECKING

from engine.errors import ModelError

if TYPE_CHECKING:
    import torch

MAX_HEADER_BYTES = 4 << 20
MAX_TENSORS = 20_000
MAX_DIMENSIONS = 8
# What safetensors calls its element types -> bytes of one element.
ELEMENT_BYTES = {
    "BOOL": 1, "U8": 1, "I8": 1, "I16": 2, "F16": 2, "BF16": 2, "I32": 4, "F32": 4, "I64": 8, "F64": 8,
}  # fmt: skip

_HOW_TO_GET = "Get the file again from where it came from; AutoVoice reads safetensors files."


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, as hexadecimal digits, read in bounded memory."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def check_hash(path: Path, sha256: str | None) -> None:
    """Check that a model's file is there and is the right one, without PyTorch.

    Args:
        path: The file.
        sha256: What its SHA-256 must be; None when nobody knows.

    Raises:
        ModelError: The file is missing, or another one than its hash says.
    """
    if not path.is_file():
        raise ModelError(f"The model file '{path.name}' is missing.", hint=_repair_hint(path))
    if sha256 is not None and sha256_of(path) != sha256:
        raise ModelError(f"The model file '{path.name}' is damaged: its hash is wrong.", hint=_repair_hint(path))


def check_safetensors(path: Path) -> dict[str, str]:
    """Check that a file is a whole and sane safetensors file, reading only its header.

    The header must be bounded JSON whose tensors have known types and non-negative shapes, and together fill the
    rest of the file exactly, without gaps and overlaps.

    Args:
        path: The file.

    Returns:
        The metadata kept in the header, text to text.

    Raises:
        ModelError: The file is missing, cut short, or not what it claims to be.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(8)
            if len(start) < 8:
                raise ModelError(f"'{path.name}' is not a model file: it is too short.", hint=_HOW_TO_GET)
            (header_bytes,) = struct.unpack("<Q", start)
            if header_bytes > min(MAX_HEADER_BYTES, size - 8):
                raise ModelError(f"'{path.name}' is not a model file: its header is damaged.", hint=_HOW_TO_GET)
            header = file.read(header_bytes)
    except OSError as error:
        raise ModelError(f"The model file '{path.name}' cannot be read.", hint=str(error)) from error
    try:
        return _check_header(json.loads(header.decode("utf-8")), size - 8 - header_bytes)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ModelError(f"'{path.name}' is not a model file: its header is damaged.", hint=_HOW_TO_GET) from error


def _check_header(header: object, data_bytes: int) -> dict[str, str]:
    if not isinstance(header, dict) or len(header) > MAX_TENSORS:
        raise ValueError("not a table of tensors")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(x, str) for pair in metadata.items() for x in pair):
        raise ValueError("metadata is not text")
    spans = []
    for entry in header.values():
        shape, (begin, end) = entry["shape"], entry["data_offsets"]
        if len(shape) > MAX_DIMENSIONS or not all(type(n) is int and n >= 0 for n in (*shape, begin, end)):
            raise ValueError("bad shape")
        if end - begin != math.prod(shape) * ELEMENT_BYTES[entry["dtype"]]:
            raise ValueError("shape and size disagree")
        spans.append((begin, end))
    reached = 0
    for begin, end in sorted(spans):
        if begin != reached:
            raise ValueError("gap or overlap")
        reached = end
    if reached != data_bytes:
        raise ValueError("cut short")
    return metadata


def read_tensors(path: Path, *, sha256: str | None = None) -> tuple[dict[str, "torch.Tensor"], dict[str, str]]:
    """Read all tensors of a safetensors file, half precision widened to float32.

    Args:
        path: The file.
        sha256: What its SHA-256 must be; None when nobody knows.

    Returns:
        Tensors by name, on the CPU, and the file's metadata.

    Raises:
        ModelError: The file is missing, damaged, or another one than its hash says.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    check_hash(path, sha256)
    metadata = check_safetensors(path)
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise ModelError(f"The model file '{path.name}' cannot be read.", hint=_repair_hint(path)) from error
    half = (torch.float16, torch.bfloat16)
    # Copies: what is mapped into memory can be neither replaced nor removed on Windows.
    return {name: t.float() if t.dtype in half else t.clone() for name, t in tensors.items()}, metadata


def fill_module(module: "torch.nn.Module", tensors: dict[str, "torch.Tensor"], *, model_name: str) -> None:
    """Load tensors into a module, which must have exactly their names and shapes.

    Raises:
        ModelError: A name is missing or unknown, a shape differs, or a value is not finite.
    """
    import torch

    expected = module.state_dict()
    fits = expected.keys() == tensors.keys() and all(expected[k].shape == tensors[k].shape for k in expected)
    if not fits:
        raise ModelError(
            f"The model '{model_name}' does not fit this version of AutoVoice.",
            hint="Install the model that came with this version, or update AutoVoice.",
        )
    if not all(bool(torch.isfinite(t).all()) for t in tensors.values() if t.is_floating_point()):
        raise ModelError(f"The model '{model_name}' holds values that are not numbers.", hint=_HOW_TO_GET)
    module.load_state_dict(tensors)


def _repair_hint(path: Path) -> str:
    return (
        f"Install AutoVoice again to get '{path.name}' back; for a model that you downloaded or added, "
        "remove it and fetch it again (autovoice models remove NAME, autovoice models download NAME)."
    )
