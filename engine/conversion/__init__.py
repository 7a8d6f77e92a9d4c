"""Voice conversion: what is said, who says it, and the sound of it.

PyTorch is imported with the first name that needs it, not with this package.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from engine.conversion.voice import Voice, blend_voices, voice_model_id

if TYPE_CHECKING:
    from engine.conversion.converter import (
        AnalysedClip,
        Converter,
        embed_voice,
        load_converter,
        similarity,
        speaker_embedding,
    )
    from engine.conversion.streaming import ConversionStream

_LAZY = {
    "AnalysedClip": "converter",
    "ConversionStream": "streaming",
    "Converter": "converter",
    "embed_voice": "converter",
    "load_converter": "converter",
    "similarity": "converter",
    "speaker_embedding": "converter",
}

__all__ = [
    "AnalysedClip",
    "ConversionStream",
    "Converter",
    "Voice",
    "blend_voices",
    "embed_voice",
    "load_converter",
    "similarity",
    "speaker_embedding",
    "voice_model_id",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(f"engine.conversion.{_LAZY[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
