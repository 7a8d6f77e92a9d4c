"""Turn a name or a file into a network that takes the vocals out of stereo.

Three kinds of weights run here: our own `VocalNet`, members of a published Demucs bag that `engine.models.published`
has rewritten as safetensors, and single Demucs files given by path. No class is ever looked up by a name that a
file holds: only the classes listed here are built.
"""

import json
import math
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine import models
from engine.errors import ModelError
from engine.models.files import sha256_of
from engine.models.published import read_demucs_checkpoint

if TYPE_CHECKING:
    import torch
    from torch import nn

EMBEDDED = "separator"
_DEMUCS_SEGMENT_S = 7.8  # what the published transformers were trained on


@dataclass(frozen=True)
class Separator:
    """A network with what the streaming around it must know.

    Attributes:
        name: For reports.
        sha256: Of its file.
        module: Maps [B, 2, N] to [B, 2, N] vocals, or to [B, S, 2, N] sources.
        vocals_index: Which of the S sources are the vocals; None when the module gives only them.
        sample_rate: Hz.
        rms: Level that a song is brought to before.
        alignment: Segments start and last multiples of this many samples.
        margin: Samples at each end of a segment that are thrown away.
        fade: Samples over which neighbouring segments cross-fade.
        segments_s: Lengths that fit, s, longest first.
    """

    name: str
    sha256: str
    module: "nn.Module"
    vocals_index: int | None
    sample_rate: int
    rms: float
    alignment: int
    margin: int
    fade: int
    segments_s: tuple[float, ...]

    def segment_samples(self, segment_s: float) -> int:
        """A segment of about that length, in samples: aligned, and longer than what it throws away."""
        least = 2 * self.margin + 2 * self.fade + self.alignment
        wanted = max(int(segment_s * self.sample_rate), least)
        return math.ceil(wanted / self.alignment) * self.alignment

    def vocals(self, mix: "torch.Tensor") -> "torch.Tensor":
        """The vocals [B, 2, N] of a mixture [B, 2, N] on the module's device."""
        estimate: torch.Tensor = self.module(mix)
        return estimate if self.vocals_index is None else estimate[:, self.vocals_index]


def load_separator(model: str) -> Separator:
    """Load a separator on the CPU.

    Args:
        model: "embedded", the name of an installed separator, or a path to a .safetensors or Demucs .th file.

    Raises:
        ModelError: It is not installed, damaged, or no separator.
    """
    if model == "embedded":
        model = EMBEDDED
    path = Path(model)
    if path.suffix in (".safetensors", ".th"):
        if not path.is_file():
            raise ModelError(f"The model file '{path.name}' does not exist.", hint="Check the path.")
        if path.suffix == ".th":
            return _demucs(path.stem, sha256_of(path), *read_demucs_checkpoint(path))
        return build_separator(path.stem, sha256_of(path), *models.read_tensors(path))
    info = models.model_info(model)
    if info.kind != "separator":
        raise ModelError(f"The model '{model}' does not separate songs.", hint="See autovoice models list.")
    return build_separator(info.name, info.sha256, *models.load_tensors(model))


def build_separator(name: str, sha256: str, tensors: dict[str, "torch.Tensor"], metadata: dict[str, str]) -> Separator:
    """Build the network that a model file's tensors and metadata describe.

    Raises:
        ModelError: They describe none that this version knows.
    """
    form = metadata.get("format")
    try:
        if form == "vocalnet":
            return _vocal_net(name, sha256, tensors, metadata["config"])
        if form == "demucs":
            return _demucs(name, sha256, tensors, json.loads(metadata["config"]))
    except (KeyError, ValueError, TypeError) as error:
        raise ModelError(
            f"The separator '{name}' cannot be built from its file.", hint="Get the file again, or update AutoVoice."
        ) from error
    raise ModelError(f"'{name}' is not a separator.", hint="AutoVoice takes its own separators and Demucs's.")


def _vocal_net(name: str, sha256: str, tensors: dict[str, "torch.Tensor"], config: str) -> Separator:
    from engine.separation.network import NetworkConfig, VocalNet

    module = VocalNet(NetworkConfig.from_json(config))
    models.fill_module(module, tensors, model_name=name)
    align = module.alignment
    return Separator(
        name=name,
        sha256=sha256,
        module=module.eval(),
        vocals_index=None,
        sample_rate=module.config.sample_rate,
        rms=0.1,
        alignment=align,
        margin=math.ceil(module.reach / align) * align,
        fade=math.ceil(0.2 * module.config.sample_rate / align) * align,
        segments_s=(24.0, 12.0, 6.0),
    )


def _demucs(name: str, sha256: str, tensors: dict[str, "torch.Tensor"], config: dict[str, Any]) -> Separator:
    from demucs.hdemucs import HDemucs
    from demucs.htdemucs import HTDemucs

    known = {"HDemucs": HDemucs, "HTDemucs": HTDemucs}
    arguments = {key: value for key, value in config["arguments"].items() if _is_plain(value)}
    if isinstance(arguments.get("segment"), (str, float)):
        arguments["segment"] = Fraction(str(arguments["segment"]))
    if "vocals" not in arguments.get("sources", ()) or arguments.get("audio_channels", 2) != 2:
        raise ModelError(f"'{name}' gives no vocals of stereo songs.", hint="Choose another model.")
    module = known[config["class"]](**arguments)
    models.fill_module(module, tensors, model_name=name)
    rate = int(module.samplerate)
    segment_s = min(_DEMUCS_SEGMENT_S, float(module.segment))
    return Separator(
        name=name,
        sha256=sha256,
        module=module.eval(),
        vocals_index=list(module.sources).index("vocals"),
        sample_rate=rate,
        rms=0.1,
        alignment=1,
        margin=int(0.1 * rate),
        fade=int(0.2 * segment_s * rate),
        segments_s=(segment_s,),
    )


def _is_plain(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return all(_is_plain(item) for item in value)
    return value is None or isinstance(value, (bool, int, float, str))
