"""Published weights that a user may add: what there is, fetching with resumption and hash check, and by file.

Demucs publishes its networks as pickled checkpoints. Those are read once, weights only, and rewritten as safetensors
in the user's folder; nothing else of a checkpoint is kept.
"""

import json
import logging
import os
import shutil
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.errors import ModelError
from engine.jobs import JobContext
from engine.models.files import check_safetensors, sha256_of
from engine.models.registry import ModelInfo, add_entry, installed_models, model_info, remove_entry, user_models_folder

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

_STAGE = "Downloading"
_TIMEOUT_S = 20.0
_BLOCK = 1 << 16
MAX_ADDED_BYTES = 2 << 30


@dataclass(frozen=True)
class PublishedModel:
    """A model that can be downloaded.

    Attributes:
        name: What it will be called once installed.
        title: What it is, for people.
        url: Where its file lies.
        size: Bytes of the file.
        sha256: Of the file.
        licence: Of the weights, as their publisher states it.
        page: Where to read about it.
    """

    name: str
    title: str
    url: str
    size: int
    sha256: str
    licence: str
    page: str


_DEMUCS_URL = "https://dl.fbaipublicfiles.com/demucs/hybrid_transformer/"
_DEMUCS_PAGE = "https://github.com/facebookresearch/demucs"

# htdemucs_ft is a bag of four networks of which the vocals come from one alone, so only that one is fetched.
PUBLISHED: dict[str, PublishedModel] = {
    "htdemucs": PublishedModel(
        name="htdemucs",
        title="Hybrid Transformer Demucs",
        url=_DEMUCS_URL + "955717e8-8726e21a.th",
        size=84_141_911,
        sha256="8726e21a993978c7ba086d3872e7608d7d5bfca646ca4aca459ffda844faa8b4",
        licence="MIT",
        page=_DEMUCS_PAGE,
    ),
    "htdemucs_ft": PublishedModel(
        name="htdemucs_ft",
        title="Hybrid Transformer Demucs, fine-tuned for vocals",
        url=_DEMUCS_URL + "04573f0d-f3cf25b2.th",
        size=84_141_271,
        sha256="f3cf25b222c4eed7cd49dd8b2c9597d50c18bd154090f7b919cfa5f93cf22c49",
        licence="MIT",
        page=_DEMUCS_PAGE,
    ),
}


def download_model(name: str, ctx: JobContext | None = None) -> ModelInfo:
    """Fetch and install a published model; an interrupted download goes on where it stopped.

    Args:
        name: A key of PUBLISHED.
        ctx: Told of the progress; cancelling keeps what was fetched for the next time.

    Returns:
        The installed model.

    Raises:
        ModelError: Unknown name, no network, a full disk, or a file other than the published one.
        Cancelled: The user stopped it.
    """
    if name not in PUBLISHED:
        raise ModelError(f"There is no model '{name}' to download.", hint=f"There are: {', '.join(PUBLISHED)}.")
    published, ctx = PUBLISHED[name], ctx or JobContext()
    folder = _user_folder()
    part = folder / f"{name}.download.part"
    _fetch(published, part, ctx.part(0.0, 0.95))
    ctx.checkpoint("Checking", 0.95)
    if sha256_of(part) != published.sha256:
        part.unlink()
        raise ModelError(
            f"The download of '{name}' is not the published file: its hash is wrong.",
            hint="Try again later, or fetch the file yourself and use autovoice models add FILE.",
        )
    ctx.checkpoint("Installing", 0.97)
    try:
        return _install_checkpoint(part, name, published.licence, "downloaded")
    finally:
        part.unlink(missing_ok=True)


def add_model(path: Path) -> ModelInfo:
    """Install a separator from a file: a Demucs checkpoint (.th), or a safetensors file that AutoVoice wrote.

    A checkpoint that is one of the published ones is installed under its published name.

    Raises:
        ModelError: The file is missing, damaged, hostile, or not a separator.
    """
    if not path.is_file():
        raise ModelError(f"The model file '{path.name}' does not exist.", hint="Check the path.")
    if path.stat().st_size > MAX_ADDED_BYTES:
        raise ModelError(f"'{path.name}' is too large for a model.", hint="Models are at most 2 GB.")
    sha256 = sha256_of(path)
    if path.suffix == ".th":
        known = next((model for model in PUBLISHED.values() if model.sha256 == sha256), None)
        return _install_checkpoint(
            path, known.name if known else path.stem, known.licence if known else "unknown", "added"
        )
    metadata = check_safetensors(path)
    if metadata.get("format") not in ("vocalnet", "demucs"):
        raise ModelError(f"'{path.name}' is not a separator.", hint="AutoVoice takes its own separators and Demucs's.")
    name = _free_name(path.stem)
    folder = _user_folder()
    temporary = folder / f".{name}.{os.getpid()}.part"
    try:
        shutil.copyfile(path, temporary)
        os.replace(temporary, folder / f"{name}.safetensors")
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise _disk_failure(error) from error
    return _enter(name, sha256, metadata.get("licence", "unknown"), "added")


def remove_model(name: str) -> None:
    """Remove a downloaded or added model.

    Raises:
        ModelError: There is none of that name, or it is part of the program.
    """
    info = model_info(name)
    if info.source == "embedded":
        raise ModelError(f"The model '{name}' is part of AutoVoice.", hint="Only added models can be removed.")
    try:
        remove_entry(info.path.parent, name)
        info.path.unlink(missing_ok=True)
    except OSError as error:
        raise _disk_failure(error) from error


def read_demucs_checkpoint(path: Path) -> tuple[dict[str, "torch.Tensor"], dict[str, Any]]:
    """Read one network of a Demucs checkpoint without running anything that the file holds.

    PyTorch's weights-only loader builds tensors, plain values and the few classes named here; a checkpoint that asks
    for anything else is refused.

    Args:
        path: A .th file as `demucs.states.serialize_model` writes it.

    Returns:
        Tensors by name, widened to float32, and {"class": name, "arguments": {...}}.

    Raises:
        ModelError: It is no such file.
    """
    import pickle

    import torch
    from demucs.hdemucs import HDemucs
    from demucs.htdemucs import HTDemucs

    hint = "AutoVoice takes the htdemucs and hdemucs files that Demucs publishes, and its own safetensors files."
    try:
        with torch.serialization.safe_globals([HDemucs, HTDemucs, Fraction]):
            package = torch.load(path, map_location="cpu", weights_only=True)
        names = {HDemucs: "HDemucs", HTDemucs: "HTDemucs"}
        arguments = dict(zip(("sources",), package["args"], strict=False)) | package["kwargs"]
        config = {"class": names[package["klass"]], "arguments": {k: _plain(v) for k, v in arguments.items()}}
        state = {str(k): v.float() if v.is_floating_point() else v for k, v in package["state"].items()}
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError) as error:
        raise ModelError(f"'{path.name}' is not a Demucs model, or is damaged.", hint=hint) from error
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise ModelError(f"'{path.name}' is not a Demucs model that AutoVoice knows.", hint=hint) from error
    return state, config


def _plain(value: Any) -> Any:
    if isinstance(value, Fraction):
        return str(value)
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def _install_checkpoint(path: Path, name: str, licence: str, source: str) -> ModelInfo:
    import torch
    from safetensors.torch import save_file

    tensors, config = read_demucs_checkpoint(path)
    name = name if name in PUBLISHED else _free_name(name)
    folder = _user_folder()
    temporary = folder / f".{name}.{os.getpid()}.part"
    half = {key: (t.half() if t.is_floating_point() else t).contiguous().clone() for key, t in tensors.items()}
    if not all(bool(torch.isfinite(t).all()) for t in half.values() if t.is_floating_point()):
        raise ModelError(f"'{path.name}' holds values that are not numbers.", hint="Get the file again.")
    try:
        save_file(half, temporary, metadata={"format": "demucs", "config": json.dumps(config), "licence": licence})
        os.replace(temporary, folder / f"{name}.safetensors")
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise _disk_failure(error) from error
    return _enter(name, sha256_of(folder / f"{name}.safetensors"), licence, source)


def _enter(name: str, sha256: str, licence: str, source: str) -> ModelInfo:
    entry = {
        "name": name,
        "kind": "separator",
        "file": f"{name}.safetensors",
        "sha256": sha256,
        "licence": licence,
        "source": source,
    }
    add_entry(_user_folder(), entry)
    return model_info(name)


def _free_name(stem: str) -> str:
    """A name from a file's stem that is safe as a file name and hides no embedded or published model."""
    name = "".join(c if c.isalnum() or c in "-_" else "-" for c in stem)[:60].strip("-") or "separator"
    taken = set(PUBLISHED) | {info.name for info in installed_models() if info.source == "embedded"}
    return f"{name}-added" if name in taken else name


def _user_folder() -> Path:
    folder = user_models_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _disk_failure(error) from error
    return folder


def _disk_failure(error: OSError) -> ModelError:
    return ModelError("The folder of models cannot be written.", hint=f"{error.strerror}: {user_models_folder()}")


def _fetch(published: PublishedModel, part: Path, ctx: JobContext) -> None:
    """Complete a part-file from the network; one that a server cannot continue starts over."""
    import http.client
    import urllib.error
    import urllib.request

    have = part.stat().st_size if part.exists() else 0
    if have > published.size:
        part.unlink()
        have = 0
    if have == published.size:
        return
    request = urllib.request.Request(published.url, headers={"User-Agent": "AutoVoice"})
    if have:
        request.add_header("Range", f"bytes={have}-")
    ctx.checkpoint(_STAGE, have / published.size)
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as response:
            if have and response.status != 206:
                log.info("%s: the server sends the whole file again", published.name)
                have = 0
            with part.open("r+b" if have else "wb") as file:
                file.seek(have)
                while block := response.read(_BLOCK):
                    file.write(block)
                    have += len(block)
                    if have > published.size:
                        break
                    ctx.checkpoint(_STAGE, have / published.size)
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
        raise ModelError(
            f"'{published.name}' could not be downloaded.",
            hint=f"Check the network and try again, it goes on where it stopped; or get {published.url} on another "
            "computer and use autovoice models add FILE.",
        ) from error
    except OSError as error:
        raise _disk_failure(error) from error
    if have != published.size:
        if have > published.size:
            part.unlink()
        raise ModelError(
            f"The download of '{published.name}' broke off.", hint="Try again: it goes on where it stopped."
        )
