"""A voice: all that conversion needs of a person, as arrays; free of PyTorch, so that lists of voices are cheap."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from engine.errors import ModelError
from engine.models import installed_models
from engine.signal.clip import FloatArray

SPEAKER_MODEL = "speaker"
CONTENT_MODEL = "content"
DECODER_MODEL = "decoder"
# The embedded models that turn recordings into a voice: a change of one of them makes voices stale.
VOICE_MODELS = (SPEAKER_MODEL, CONTENT_MODEL, DECODER_MODEL)
_EMBEDDING = "speaker_embedding"


@dataclass(frozen=True, eq=False)
class Voice:
    """How one person (or a blend) sounds.

    Attributes:
        name: For people.
        speaker_embedding: [256] float32 of unit length.
        tensors: float32 arrays that condition the decoder: `prints` [2, P, 72] (unvoiced and voiced mean band levels
            of each phone), `condition` [24] and `bias` [2, 72] (zero until adapted; see engine.conversion.adaptation).
        median_f0_hz: Middle of the pitch the voice speaks or sings at.
        f0_range_hz: 5th and 95th percentile of it.
        model_id: Of the models that made it; a voice of other models must be embedded again from its recordings.
    """

    name: str
    speaker_embedding: FloatArray
    tensors: dict[str, FloatArray] = field(default_factory=dict)
    median_f0_hz: float = 0.0
    f0_range_hz: tuple[float, float] = (0.0, 0.0)
    model_id: str = ""

    def to_tensors(self) -> tuple[dict[str, FloatArray], dict[str, str]]:
        """Arrays and metadata as a safetensors file holds them; `from_tensors` turns them back."""
        metadata = {
            "name": self.name,
            "median_f0_hz": json.dumps(self.median_f0_hz),
            "f0_range_hz": json.dumps(list(self.f0_range_hz)),
            "model_id": self.model_id,
        }
        return {_EMBEDDING: self.speaker_embedding, **self.tensors}, metadata

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, FloatArray], metadata: Mapping[str, str]) -> "Voice":
        """Read what `to_tensors` wrote, in single or half precision.

        Raises:
            ModelError: Something is missing, of the wrong shape or not finite.
        """
        try:
            arrays = {name: np.asarray(array, np.float32) for name, array in tensors.items()}
            if not all(np.isfinite(array).all() for array in arrays.values()):
                raise ValueError("values that are not finite")
            embedding = arrays.pop(_EMBEDDING)
            low, high = (float(value) for value in json.loads(metadata["f0_range_hz"]))
            voice = cls(
                metadata["name"],
                embedding,
                arrays,
                float(json.loads(metadata["median_f0_hz"])),
                (low, high),
                metadata["model_id"],
            )
            if embedding.ndim != 1 or not np.isfinite([voice.median_f0_hz, low, high]).all():
                raise ValueError("its embedding or pitch is malformed")
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError("The voice's file does not hold a voice.", hint=f"Missing or wrong: {error}.") from error
        return voice

    def renamed(self, name: str) -> "Voice":
        """The same voice under another name."""
        return replace(self, name=name)


def voice_model_id() -> str:
    """Names the versions of the models that voices are made with; empty while they are not installed.

    A voice whose `model_id` is another should be embedded again from its recordings.
    """
    hashes = {info.name: info.sha256 for info in installed_models() if info.name in VOICE_MODELS}
    if len(hashes) < len(VOICE_MODELS):
        return ""
    return hashlib.sha256("".join(hashes[name] for name in VOICE_MODELS).encode()).hexdigest()[:16]


def blend_voices(voices: Sequence[Voice], weights: Sequence[float], *, name: str) -> Voice:
    """Mix voices.

    Args:
        voices: One or more, made by the same models.
        weights: One each, none negative, not all zero; their sum does not matter.
        name: Of the blend.

    Raises:
        ValueError: The weights do not fit.
        ModelError: The voices come from different models.
    """
    shares = np.asarray(weights, np.float64)
    if not len(voices) or len(shares) != len(voices) or (shares < 0).any() or not shares.sum() > 0:
        raise ValueError("blend_voices needs one weight for each voice, none negative, not all zero")
    if len({voice.model_id for voice in voices}) > 1:
        raise ModelError(
            "These voices were made by different versions of the models and cannot be blended.",
            hint="Bring the older one up to date on the Voices page first.",
        )
    shares = shares / shares.sum()

    def mean(arrays: Sequence[FloatArray]) -> FloatArray:
        return np.sum([share * array for share, array in zip(shares, arrays, strict=True)], axis=0).astype(np.float32)

    def mean_hz(values: Sequence[float]) -> float:
        return float(np.exp(np.sum(shares * np.log(np.maximum(values, 1.0)))))

    embedding = mean([voice.speaker_embedding for voice in voices])
    names = set.intersection(*(set(voice.tensors) for voice in voices))
    return Voice(
        name,
        (embedding / max(float(np.linalg.norm(embedding)), 1e-9)).astype(np.float32),
        {key: mean([voice.tensors[key] for voice in voices]) for key in sorted(names)},
        mean_hz([voice.median_f0_hz for voice in voices]),
        (mean_hz([voice.f0_range_hz[0] for voice in voices]), mean_hz([voice.f0_range_hz[1] for voice in voices])),
        voices[0].model_id,
    )
