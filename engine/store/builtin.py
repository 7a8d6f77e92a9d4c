"""The voices that ship with the program, read from its resources."""

import functools
import json
import logging
from importlib.resources import files
from pathlib import Path

from engine.store.records import VoiceRecord

logger = logging.getLogger(__name__)

_CONSENT = "A blend of several training speakers; it is nobody's voice."


def builtin_voices() -> list[VoiceRecord]:
    """The demo voices, in order of name; their tensors lie in the program's resources."""
    folder = Path(str(files("resources"))) / "models" / "voices"
    if not folder.is_dir():
        return []
    stamp = tuple(sorted((str(path), path.stat().st_mtime_ns) for path in folder.glob("*.safetensors")))
    return list(_read(stamp))


@functools.lru_cache(maxsize=2)
def _read(stamp: tuple[tuple[str, int], ...]) -> tuple[VoiceRecord, ...]:
    records = []
    for name, changed in stamp:
        path = Path(name)
        try:
            with path.open("rb") as stream:
                size = int.from_bytes(stream.read(8), "little")
                metadata = json.loads(stream.read(min(size, 1 << 20))).get("__metadata__", {})
        except (OSError, ValueError) as error:
            logger.error("built-in voice %s cannot be read: %s", path.name, error)
            continue
        records.append(_record(path, changed / 1e9, metadata))
    return tuple(sorted(records, key=lambda record: record.name.casefold()))


def _record(path: Path, changed: float, metadata: dict[str, str]) -> VoiceRecord:
    low, high = _pair(metadata.get("f0_range_hz", ""))
    return VoiceRecord(
        id=f"builtin:{path.stem}",
        name=metadata.get("name", path.stem.capitalize()),
        created=changed,
        last_used=None,
        median_f0_hz=float(metadata.get("median_f0_hz", 0.0)),
        f0_range_hz=(low, high),
        seconds=0.0,
        quality="good",
        messages=(),
        consent=metadata.get("consent", _CONSENT),
        colour=metadata.get("colour", "#7a7f87"),
        notes=metadata.get("notes", ""),
        origin="builtin",
        model_id=metadata.get("model_id", ""),
        tensors=path,
    )


def _pair(text: str) -> tuple[float, float]:
    try:
        low, high = json.loads(text)
        return float(low), float(high)
    except (ValueError, TypeError):
        return 0.0, 0.0
