"""Settings of a stage: one TOML file with a table for each size."""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

from engine.errors import TrainingError

T = TypeVar("T")


@dataclass(frozen=True)
class Orders:
    """Where a stage works and for how long; what it does is in its settings.

    Attributes:
        corpus: Folder with train/manifest.csv and dev/manifest.csv.
        cache: Folder for decoded audio, features and labels.
        run_folder: Folder for saved state and TensorBoard logs.
        resume: Go on from the saved state.
        until: Stop after this step.
        deadline: Value of `time.monotonic()` at which to stop.
        torch_device: Where to compute.
    """

    corpus: Path
    cache: Path
    run_folder: Path
    resume: bool
    until: int | None
    deadline: float | None
    torch_device: str


def read_config(path: Path | None, stage: str, size: str, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Read a stage's settings.

    Args:
        path: TOML file; None for the package's own.
        stage: Names the package's own file.
        size: Table to use, "cpu" or "gpu"; its values go over those of the table `common`.
        overrides: "key=value" or "table.key=value", values as TOML writes them.

    Raises:
        TrainingError: The file cannot be read, has no such table, or an override is no TOML.
    """
    try:
        text = (path or files("engine.training") / "configs" / f"{stage}.toml").read_text(encoding="utf-8")
        tables = tomllib.loads(text)
        settings = _merged(tables.get("common", {}), tables[size])
        for override in overrides:
            settings = _merged(settings, tomllib.loads(override))
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise TrainingError(f"The settings of the stage cannot be read: {error}.") from error
    except KeyError as error:
        raise TrainingError(f"The settings have no table [{size}].") from error
    return settings


def build(kind: type[T], values: Mapping[str, Any]) -> T:
    """Make a settings dataclass; lists become tuples.

    Raises:
        TrainingError: A name is unknown or a needed one missing.
    """
    try:
        return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})
    except TypeError as error:
        raise TrainingError(
            f"{kind.__name__}: {error}.", hint="Compare the file in engine/training/configs."
        ) from error


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for name, value in above.items():
        old = merged.get(name)
        merged[name] = _merged(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged
