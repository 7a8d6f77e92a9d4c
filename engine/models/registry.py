"""Which models are installed, and the two folders they lie in."""

import json
import logging
import os
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import platformdirs

from engine.errors import ModelError
from engine.models.files import read_tensors, sha256_of

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

INDEX_NAME = "models.json"
INDEX_FORMAT = 1


@dataclass(frozen=True)
class ModelInfo:
    """One installed model.

    Attributes:
        name: What users and code call it, such as "separator".
        kind: What it is for: "separator", "content", "decoder", "speaker".
        path: Its file; the file may be missing or damaged, which loading tells.
        size: Bytes on disk; 0 when missing.
        sha256: What the file's SHA-256 must be.
        licence: Licence of the weights.
        source: "embedded", "downloaded" or "added".
    """

    name: str
    kind: str
    path: Path
    size: int
    sha256: str
    licence: str
    source: str

    def as_json(self) -> dict[str, Any]:
        """The attributes as values that JSON knows."""
        return {**asdict(self), "path": str(self.path)}


def models_folder() -> Path:
    """The folder of the embedded models, part of the program."""
    return Path(str(files("resources"))) / "models"


def user_models_folder() -> Path:
    """The folder of downloaded and added models, in the user's data folder (AUTOVOICE_HOME moves it); may not exist."""
    home = os.environ.get("AUTOVOICE_HOME")
    return (Path(home) if home else platformdirs.user_data_path("AutoVoice", appauthor=False)) / "models"


def installed_models() -> list[ModelInfo]:
    """Every model of both indexes: the embedded ones first, then the user's, each in the order of its index."""
    found = _read_index(models_folder(), "embedded")
    names = {info.name for info in found}
    return found + [info for info in _read_index(user_models_folder(), "added") if info.name not in names]


def model_info(name: str) -> ModelInfo:
    """The installed model of that name.

    Raises:
        ModelError: There is none.
    """
    models = installed_models()
    for info in models:
        if info.name == name:
            return info
    known = ", ".join(sorted(info.name for info in models)) or "none"
    raise ModelError(f"The model '{name}' is not installed.", hint=f"Installed: {known}. See autovoice models list.")


def load_tensors(name: str) -> tuple[dict[str, "torch.Tensor"], dict[str, str]]:
    """Read an installed model after checking its hash.

    Args:
        name: As in `installed_models`.

    Returns:
        Tensors by name (half precision widened to float32, on the CPU) and the file's metadata, text to text.

    Raises:
        ModelError: The model is not installed, its file is missing, or its hash is wrong; the hint says how to
            repair it.
    """
    info = model_info(name)
    return read_tensors(info.path, sha256=info.sha256)


def publish_embedded(
    name: str,
    kind: str,
    tensors: Mapping[str, "torch.Tensor"],
    metadata: Mapping[str, str],
    *,
    keep_precision: Collection[str] = (),
    folder: Path | None = None,
) -> ModelInfo:
    """Write trained weights into the program: `NAME.safetensors` and its entry in `models.json`, each replaced whole.

    Args:
        name: Name of the model and stem of its file.
        kind: What it is for; see `ModelInfo`.
        tensors: Weights; floating-point ones are stored as float16.
        metadata: Kept in the file's header; its "licence" (default Apache-2.0) also goes into the index.
        keep_precision: Names of tensors that stay as they are, such as means and scales that leave float16's range.
        folder: Where to write; None for `models_folder()`.

    Returns:
        The entry written.

    Raises:
        ValueError: A value is not finite in the precision it is stored in.
    """
    import torch
    from safetensors.torch import save_file

    folder = folder or models_folder()
    folder.mkdir(parents=True, exist_ok=True)
    stored = {}
    for key, tensor in tensors.items():
        half = tensor.is_floating_point() and key not in keep_precision
        value = tensor.detach().to("cpu", torch.float16 if half else tensor.dtype).clone().contiguous()
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise ValueError(f"{name}: {key} is not finite as {value.dtype}")
        stored[key] = value
    path = folder / f"{name}.safetensors"
    temporary = folder / f".{name}.{os.getpid()}.part"
    save_file(stored, temporary, metadata=dict(metadata))
    temporary.chmod(0o644)  # safetensors makes files that only their owner reads; the program is everybody's
    entry = {
        "name": name,
        "kind": kind,
        "file": path.name,
        "sha256": sha256_of(temporary),
        "licence": metadata.get("licence", "Apache-2.0"),
        "card": f"{name}.md",
    }
    with _locked(folder):
        os.replace(temporary, path)
        write_entry(folder, entry)
    log.info("published %s: %d bytes", name, path.stat().st_size)
    return next(info for info in _read_index(folder, "embedded") if info.name == name)


def add_entry(folder: Path, entry: dict[str, str]) -> None:
    """Put an entry into a folder's index, in place of one of the same name."""
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder):
        write_entry(folder, entry)


def remove_entry(folder: Path, name: str) -> None:
    """Take the entry of that name out of a folder's index."""
    with _locked(folder):
        _write_entries(folder, [entry for entry in _read_entries(folder) if entry["name"] != name])


def write_entry(folder: Path, entry: dict[str, str]) -> None:
    """Put an entry into the index of a folder that the caller has locked."""
    entries = {old["name"]: old for old in _read_entries(folder)}
    entries[entry["name"]] = entry
    _write_entries(folder, list(entries.values()))


def _write_entries(folder: Path, entries: list[dict[str, str]]) -> None:
    temporary = folder / f".{INDEX_NAME}.{os.getpid()}.part"
    temporary.write_text(json.dumps({"format": INDEX_FORMAT, "models": entries}, indent=2) + "\n", encoding="utf-8")
    os.replace(temporary, folder / INDEX_NAME)


def _read_entries(folder: Path) -> list[dict[str, str]]:
    path = folder / INDEX_NAME
    try:
        index: Any = json.loads(path.read_text(encoding="utf-8"))
        if index["format"] != INDEX_FORMAT:
            raise ModelError(
                f"The list of models in '{folder}' is of another version.", hint="Update AutoVoice, or remove the file."
            )
        entries = index["models"]
        for entry in entries:
            if not all(isinstance(entry[key], str) for key in ("name", "kind", "file", "sha256")):
                raise TypeError("not text")
            if Path(entry["file"]).name != entry["file"]:
                raise ValueError("a file outside the folder")
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"The list of models in '{folder}' is damaged.",
            hint=f"Remove {path} and add the models again, or install AutoVoice again.",
        ) from error
    return list(entries)


def _read_index(folder: Path, source: str) -> list[ModelInfo]:
    found = []
    for entry in _read_entries(folder):
        path = folder / entry["file"]
        found.append(
            ModelInfo(
                name=entry["name"],
                kind=entry["kind"],
                path=path,
                size=path.stat().st_size if path.is_file() else 0,
                sha256=entry["sha256"],
                licence=entry.get("licence", ""),
                source=entry.get("source", source),
            )
        )
    return found


@contextmanager
def _locked(folder: Path, timeout_s: float = 10.0) -> Iterator[None]:
    """Keep other processes from changing a folder's index at the same time; a lock older than a minute is void."""
    lock = folder / f".{INDEX_NAME}.lock"
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            os.close(os.open(lock, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
            break
        except FileExistsError as error:
            if lock.exists() and time.time() - lock.stat().st_mtime > 60:
                lock.unlink(missing_ok=True)
            elif time.monotonic() > deadline:
                raise ModelError(
                    "Another AutoVoice is changing the models.", hint=f"Try again; if it stays, remove {lock}."
                ) from error
            time.sleep(0.05)
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)
