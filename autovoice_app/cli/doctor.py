"""`autovoice doctor`: what is installed, what is missing, and how to get it."""

import argparse
import ctypes.util
import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable
from typing import Any

from autovoice_app.cli import print_json
from engine.errors import AutoVoiceError
from engine.models import ModelInfo
from engine.signal import probe_audio

NEEDED_MODELS = ("content", "speaker", "decoder", "separator")
_PACKAGES = (
    "PySide6-Essentials",
    "torch",
    "onnxruntime",
    "numpy",
    "scipy",
    "soundfile",
    "av",
    "soxr",
    "pyloudnorm",
    "sounddevice",
    "swift-f0",
    "torchcrepe",
    "silero-vad",
    "safetensors",
    "pyqtgraph",
)
# Libraries that Qt's windows need on Linux and that no Python package brings -> the Debian package of each.
_WINDOW_LIBRARIES = {
    "EGL": "libegl1",
    "xkbcommon": "libxkbcommon0",
    "xcb-cursor": "libxcb-cursor0",
    "dbus-1": "libdbus-1-3",
    "fontconfig": "libfontconfig1",
}
_LITTLE_SPACE_GB = 2.0


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    doctor = subparsers.add_parser(
        "doctor",
        help="say what is installed and what is missing",
        description="Check the installation. Exit code: 0 everything needed is there, 1 something is missing.",
    )
    doctor.add_argument("--json", action="store_true", help="print everything as JSON")
    doctor.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the findings."""
    findings = examine()
    if options.json:
        print_json(findings)
    else:
        _print_findings(findings)
    if findings["problems"]:
        first = findings["problems"][0]
        print(f"autovoice: {len(findings['problems'])} problem(s) found: {first['message']}", file=sys.stderr)
        print(f"  {first['hint']}", file=sys.stderr)
        return 1
    return 0


def examine() -> dict[str, Any]:
    """Everything the doctor knows.

    Returns:
        JSON values: versions, torch, devices, models, data_folder, window, demo; and problems, each with message and
        hint. Problems are what keeps the program from converting; what only limits it is a warning.
    """
    problems: list[dict[str, str]] = []
    warnings: list[dict[str, str]] = []
    return {
        "versions": _versions(problems),
        "torch": _torch(warnings),
        "models": _models(problems),
        "data_folder": _data_folder(problems, warnings),
        "devices": _devices(warnings),
        "window": _window(warnings),
        "demo": _demo(problems),
        "problems": problems,
        "warnings": warnings,
    }


def _versions(problems: list[dict[str, str]]) -> dict[str, str | None]:
    versions: dict[str, str | None] = {
        "autovoice": _version("autovoice"),
        "python": platform.python_version(),
        "system": platform.platform(),
    }
    for name in _PACKAGES:
        versions[name] = _version(name)
        if versions[name] is None:
            _add(problems, f"The Python package {name} is missing.", f"Install it: pip install {name}")
    return versions


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _torch(warnings: list[dict[str, str]]) -> dict[str, Any]:
    if importlib.util.find_spec("torch") is None:
        return {}
    from engine.models import describe_torch

    found = describe_torch()
    if not found["gpus"] and shutil.which("nvidia-smi") is not None:  # comes with the driver of NVIDIA's cards
        if found["cuda"] is None:  # as the package index has it for Windows
            _add(
                warnings,
                "There is an NVIDIA card, but this PyTorch computes on the processor only.",
                f"Install PyTorch {found['version'].split('+')[0]} for CUDA: https://pytorch.org/get-started/locally",
            )
        else:
            _add(warnings, "PyTorch cannot use the NVIDIA card.", "Its driver may be too old; bring it up to date.")
    return found


def _models(problems: list[dict[str, str]]) -> list[dict[str, Any]]:
    from engine.models import installed_models

    try:
        found = installed_models()
    except AutoVoiceError as error:
        _add(problems, error.message, error.hint)
        return []
    described = [_describe_model(info) for info in found]
    for model in described:
        if model["state"] != "good":
            _add(problems, f"The model {model['name']} is {model['state']}.", model["hint"])
    for name in NEEDED_MODELS:
        if name not in {info.name for info in found}:
            _add(problems, f"The model {name} is not installed.", "It is part of AutoVoice: install it again.")
    return described


def _describe_model(info: ModelInfo) -> dict[str, Any]:
    from engine.models import check_hash

    described = {**info.as_json(), "state": "good", "hint": ""}
    try:
        check_hash(info.path, info.sha256)
    except AutoVoiceError as error:
        described |= {"state": "damaged" if info.path.exists() else "missing", "hint": error.hint}
    return described


def _data_folder(problems: list[dict[str, str]], warnings: list[dict[str, str]]) -> dict[str, Any]:
    from engine.store import Store, default_data_folder

    folder = default_data_folder()
    described: dict[str, Any] = {"path": str(folder), "from_environment": "AUTOVOICE_HOME" in os.environ}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(b"x")
    except OSError as error:
        _add(
            problems,
            f"The data folder {folder} cannot be written: {(error.strerror or str(error)).lower()}.",
            "Set AUTOVOICE_HOME to a folder of yours.",
        )
        return described | {"writable": False}
    free_gb = shutil.disk_usage(folder).free / 1e9
    if free_gb < _LITTLE_SPACE_GB:
        _add(warnings, f"Only {free_gb:.1f} GB are free where the data folder lies.", "Free some space.")
    described |= {"writable": True, "free_gb": round(free_gb, 1)}
    try:
        with Store(folder) as store:
            voices = store.voices()
            described["voices"] = sum(not voice.builtin for voice in voices)
            described["demo_voices"] = sum(voice.builtin for voice in voices)
    except AutoVoiceError as error:
        _add(problems, error.message, error.hint)
        return described
    if not described["demo_voices"]:
        _add(problems, "The demo voices are missing.", "They are part of AutoVoice: install it again.")
    return described


def _devices(warnings: list[dict[str, str]]) -> dict[str, Any]:
    from engine.devices import system_devices

    try:
        devices = system_devices().devices()
    except AutoVoiceError as error:
        _add(warnings, error.message, error.hint)
        return {"inputs": [], "outputs": []}
    inputs = [device.name for device in devices if device.max_input_channels]
    outputs = [device.name for device in devices if device.max_output_channels]
    if not inputs:
        _add(warnings, "There is no microphone, so live conversion and recording cannot work.", "Plug one in.")
    if not outputs:
        _add(warnings, "There is no loudspeaker, so nothing can be played.", "Plug one in.")
    return {"inputs": inputs, "outputs": outputs}


def _window(warnings: list[dict[str, str]]) -> dict[str, Any]:
    if not sys.platform.startswith("linux"):
        return {"display": True, "missing_libraries": []}
    has_display = bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
    missing = [name for name in _WINDOW_LIBRARIES if ctypes.util.find_library(name) is None]
    if missing:
        packages = " ".join(_WINDOW_LIBRARIES[name] for name in missing)
        _add(
            warnings,
            f"Libraries that the window needs are missing: {', '.join(missing)}.",
            f"Install them: sudo apt-get install {packages}",
        )
    if not has_display:
        _add(warnings, "There is no display, so the window cannot open.", "The command line works without one.")
    return {"display": has_display, "missing_libraries": missing}


def _demo(problems: list[dict[str, str]]) -> dict[str, Any]:
    from autovoice_app.demo import demo_song

    path = demo_song()
    try:
        return {"path": str(path), "seconds": round(probe_audio(path).seconds, 1)}
    except AutoVoiceError as error:
        _add(problems, error.message, "The demo song is part of AutoVoice: install it again.")
        return {"path": str(path)}


def _add(where: list[dict[str, str]], message: str, hint: str) -> None:
    where.append({"message": message, "hint": hint})


def _print_findings(findings: dict[str, Any]) -> None:
    def section(title: str, lines: list[str]) -> None:
        print(title)
        for line in lines:
            print(f"  {line}")

    section("Versions", [f"{name:20} {version or 'missing'}" for name, version in findings["versions"].items()])
    torch = findings["torch"]
    section("Computing on", [f"{name:20} {value}" for name, value in torch.items()])
    section(
        "Models",
        [
            f"{model['name']:20} {model['state']:8} {model['size'] / 1e6:6.1f} MB  sha256 {model['sha256'][:16]}…"
            for model in findings["models"]
        ]
        or ["none"],
    )
    section("Data folder", [f"{name:20} {value}" for name, value in findings["data_folder"].items()])
    devices = findings["devices"]
    section(
        "Sound devices",
        [f"input   {name}" for name in devices["inputs"]] + [f"output  {name}" for name in devices["outputs"]]
        or ["none"],
    )
    section("Demo song", [str(findings["demo"]["path"])])
    _print_list("Warnings", findings["warnings"], section)
    _print_list("Problems", findings["problems"], section)


def _print_list(title: str, entries: list[dict[str, str]], section: Callable[[str, list[str]], None]) -> None:
    if entries:
        section(title, [f"{entry['message']}\n    {entry['hint']}" for entry in entries])
