"""The voice models as files: reading and publishing."""

import json
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import torch

from engine.conversion.decoder import Decoder, DecoderShape
from engine.conversion.prints import PrintModel
from engine.conversion.speaker import SpeakerEncoder
from engine.conversion.voice import DECODER_MODEL, SPEAKER_MODEL
from engine.errors import ModelError
from engine.models import load_tensors, model_info, publish_embedded

if TYPE_CHECKING:
    from collections.abc import Mapping

_FORMAT = "1"
_PRINTS = "print_model."


@dataclass(frozen=True)
class DecoderModel:
    """The decoder and what it knows of prints.

    Attributes:
        decoder: In evaluation mode.
        print_model: Average prints and eigenvoices.
    """

    decoder: Decoder
    print_model: PrintModel


def publish_speaker(encoder: SpeakerEncoder, metadata: "Mapping[str, str]") -> None:
    """Write the speaker encoder into the program."""
    width = str(encoder.layers[0].out_channels)
    tensors = {name: tensor for name, tensor in encoder.state_dict().items() if "num_batches" not in name}
    publish_embedded(SPEAKER_MODEL, "speaker", tensors, {**metadata, "format": _FORMAT, "width": width})


def publish_decoder(model: DecoderModel, metadata: "Mapping[str, str]") -> None:
    """Write the decoder and its print model into the program."""
    prints = {
        _PRINTS + name: torch.from_numpy(getattr(model.print_model, name)) for name in ("mean", "directions", "scatter")
    }
    shape = json.dumps(asdict(model.decoder.shape))
    tensors = {**model.decoder.state_dict(), **prints}
    publish_embedded(DECODER_MODEL, "decoder", tensors, {**metadata, "format": _FORMAT, "shape": shape})


def load_speaker() -> SpeakerEncoder:
    """The installed speaker encoder, in evaluation mode on the CPU, shared.

    Raises:
        ModelError: It is absent, damaged or of another version.
    """
    return _speaker(model_info(SPEAKER_MODEL).sha256)


@lru_cache(maxsize=2)
def _speaker(sha256: str) -> SpeakerEncoder:
    del sha256  # only the key of the cache: new weights load anew
    tensors, metadata = load_tensors(SPEAKER_MODEL)
    try:
        _check_format(metadata)
        encoder = SpeakerEncoder(int(metadata["width"]))
        counters = {k: v for k, v in encoder.state_dict().items() if "num_batches" in k}
        encoder.load_state_dict({**tensors, **counters})
    except (KeyError, ValueError, RuntimeError) as error:
        raise _other_version(SPEAKER_MODEL) from error
    return encoder.eval().requires_grad_(False)


def load_decoder() -> DecoderModel:
    """The installed decoder, on the CPU, fresh.

    Raises:
        ModelError: It is absent, damaged or of another version.
    """
    tensors, metadata = load_tensors(DECODER_MODEL)
    try:
        _check_format(metadata)
        values = json.loads(metadata["shape"])
        decoder = Decoder(DecoderShape(**{**values, "dilations": tuple(values["dilations"])}))
        prints = {name: tensors.pop(_PRINTS + name).numpy() for name in ("mean", "directions", "scatter")}
        decoder.load_state_dict(tensors)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise _other_version(DECODER_MODEL) from error
    return DecoderModel(decoder.eval().requires_grad_(False), PrintModel(**prints))


def _check_format(metadata: "Mapping[str, str]") -> None:
    if metadata["format"] != _FORMAT:
        raise ValueError(f"format {metadata['format']}")


def _other_version(name: str) -> ModelError:
    return ModelError(
        f"The model '{name}' is of another version of AutoVoice.", hint="Install AutoVoice again, or update it."
    )
