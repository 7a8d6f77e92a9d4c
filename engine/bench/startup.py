"""`autovoice bench startup`: how long until the window is up, and what it must not load for that."""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from engine.errors import AutoVoiceError
from engine.jobs import JobContext

_PATIENCE_S = 60.0
_READY = re.compile(r"ready after ([0-9.]+) s")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this benchmark's options."""
    parser.add_argument("--runs", type=int, default=5, help="how many starts (default 5); the first is the coldest")


def run(options: argparse.Namespace, ctx: JobContext) -> dict[str, Any]:
    """Start the program in processes of its own, without a display where there is none."""
    seconds, closing, loads_torch = [], [], False
    for i in range(options.runs):
        ctx.checkpoint("Starting the window", i / options.runs)
        with tempfile.TemporaryDirectory() as home:
            started, closed, torch = _start_once(Path(home))
        seconds.append(round(started, 3))
        closing.append(round(closed, 3))
        loads_torch |= torch
    return {
        "first_s": seconds[0],
        "median_s": median(seconds),
        "all_s": seconds,
        "closing_s": median(closing),
        "loads_torch": loads_torch,
    }


def _start_once(home: Path) -> tuple[float, float, bool]:
    environment = {**os.environ, "AUTOVOICE_HOME": str(home)}
    if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        environment["QT_QPA_PLATFORM"] = "offscreen"
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "autovoice_app"], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    try:
        while not any(_READY.search(log.read_text(errors="replace")) for log in home.glob("logs/*")):
            if process.poll() is not None or time.perf_counter() - began > _PATIENCE_S:
                process.kill()
                _, said = process.communicate()
                raise AutoVoiceError(
                    "The window did not come up.", hint=said.decode(errors="replace").strip()[-300:] or "See its log."
                )
            time.sleep(0.01)
        seconds = time.perf_counter() - began
        maps = Path(f"/proc/{process.pid}/maps")
        loads_torch = maps.exists() and "libtorch" in maps.read_text()
        began = time.perf_counter()
        process.terminate()
        process.wait(timeout=_PATIENCE_S)
        return seconds, time.perf_counter() - began, loads_torch
    finally:
        process.kill()
        process.communicate()


def summarise(figures: Mapping[str, Any]) -> str:
    """Two lines."""
    return (
        f"window up after {figures['first_s']:.2f} s at first, {figures['median_s']:.2f} s in the middle of"
        f" {len(figures['all_s'])} starts; closed after {figures['closing_s']:.2f} s\n"
        f"PyTorch is {'loaded (it should not be)' if figures['loads_torch'] else 'not loaded'} by then"
    )


def table_rows(figures: Mapping[str, Any]) -> Sequence[tuple[str, str]]:
    """Rows for the tables of README."""
    return [("Window up", f"{figures['median_s']:.2f} s (first start {figures['first_s']:.2f} s)")]
