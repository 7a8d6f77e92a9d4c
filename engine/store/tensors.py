"""A voice's file: safetensors whose header also describes the profile."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load, save

from engine.errors import StoreError

MAX_HEADER_BYTES = 1 << 20
MAX_BYTES = 64 << 20
_PROFILE = "autovoice.profile"
_ITEM_BYTES = {"F64": 8, "F32": 4, "F16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}


def pack(arrays: Mapping[str, npt.NDArray[Any]], metadata: Mapping[str, str], *, profile: Mapping[str, Any]) -> bytes:
    """The bytes of a voice's file.

    Args:
        arrays: What `Voice.to_tensors` gave.
        metadata: The same.
        profile: What the database says of the voice, JSON values only.
    """
    whole = {**metadata, _PROFILE: json.dumps(profile, ensure_ascii=False)}
    return save({name: np.ascontiguousarray(array) for name, array in arrays.items()}, metadata=whole)


def unpack(data: bytes) -> tuple[dict[str, npt.NDArray[Any]], dict[str, str]]:
    """Arrays and metadata for `Voice.from_tensors`.

    Raises:
        StoreError: it is not a sound file of tensors.
    """
    metadata = check(data)
    try:
        arrays = load(data)
    except (SafetensorError, ValueError, KeyError) as error:
        raise _unsound(str(error)) from error
    for name, array in arrays.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise _unsound(f"{name} is not finite")
    return arrays, {key: value for key, value in metadata.items() if key != _PROFILE}


def profile(data: bytes) -> dict[str, Any]:
    """The profile described in a voice's file; empty when there is none."""
    try:
        found = json.loads(check(data).get(_PROFILE, "{}"))
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def check(data: bytes) -> dict[str, str]:
    """Look at the header without trusting any of it.

    Returns:
        Its metadata.

    Raises:
        StoreError: sizes, types or offsets do not fit the data.
    """
    if not 8 <= len(data) <= MAX_BYTES:
        raise _unsound("wrong size")
    header_size = int.from_bytes(data[:8], "little")
    if header_size > min(MAX_HEADER_BYTES, len(data) - 8):
        raise _unsound("header too large")
    try:
        header = json.loads(data[8 : 8 + header_size])
    except (ValueError, RecursionError) as error:
        raise _unsound("header is not JSON") from error
    if not isinstance(header, dict):
        raise _unsound("header is not a table")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise _unsound("metadata is not text")
    for name, entry in header.items():
        if not isinstance(entry, dict) or not _fits(entry, len(data) - 8 - header_size):
            raise _unsound(f"{name[:80]} does not fit the file")
    return metadata


def _fits(entry: Mapping[str, Any], available: int) -> bool:
    item, shape, offsets = entry.get("dtype"), entry.get("shape"), entry.get("data_offsets")
    if not isinstance(item, str) or item not in _ITEM_BYTES or not isinstance(shape, list) or len(shape) > 8:
        return False
    if not isinstance(offsets, list) or len(offsets) != 2:
        return False
    if not all(type(number) is int and 0 <= number <= MAX_BYTES for number in (*shape, *offsets)):
        return False
    size = _ITEM_BYTES[item]
    for length in shape:
        size *= length
    return bool(offsets[0] <= offsets[1] <= available and offsets[1] - offsets[0] == size)


def _unsound(detail: str) -> StoreError:
    return StoreError("The voice's data are damaged.", hint=f"{detail}.")
